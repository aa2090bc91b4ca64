"""The settings of the command line: names and paths are text, and what is refused is refused with what to write."""

import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from specpolicy import SpecpolicyError
from specpolicy.cli import VERBS, main
from specpolicy.cli.configuration import compose_verb
from specpolicy.cli.groups import SHIPPED, default_groups, load_option
from specpolicy.cli.overrides import SPECIAL, TEXT, parse_override
from specpolicy.policy import DiffusionPolicy

SPELLINGS = (
    *("100000", "2026", "007", "1_000", "-3", "+4", "0.950", "1e5", "1E-3", ".5", "5.", "inf", "nan", "True", "false"),
    *("0x10", "2026-01-01", "1e5/run", "a b", "Grüße", "日本", "a;b", "#1", "a&b", "x!", "back\\slash", "50%", "a@b"),
)
# Keys of verbs that are no text though their default may be a string or nothing: choices, numbers, lists.
OTHERS = {
    *("clock", "control_hz", "data_hz", "engine", "episodes", "execute_steps", "format", "graphs", "hold", "hz"),
    *(
        "inference_timeout",
        "lead",
        "max_message_mb",
        "network",
        "objective",
        "on_miss",
        "pad_after",
        "precision",
        "samplers",
        "shard",
    ),
    *("shards", "start", "steps", "stitching", "stop", "task", "threads", "uncommitted", "viewer", "window"),
    *("worker", "workers"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize(("verb", "key"), [("evaluate", "policy"), ("train", "data"), ("rollout", "output")])
def test_paths_keep_the_users_own_spelling(verb, key, spelling):
    common = ["task=lift", *([] if verb == "train" or key == "policy" else ["policy=p"])]
    for written in (spelling, f" {spelling} "):
        assert compose_verb(verb, [*common, f"{key}={written}"])[key] == spelling
    assert parse_override("seed=1_000").value() == 1000  # numbers are numbers elsewhere


def test_every_key_is_known_as_text_or_not():
    for verb in VERBS:
        own = OmegaConf.to_container(OmegaConf.load(SHIPPED / f"{verb}.yaml"), resolve=False)
        unsure = {key for key, value in own.items() if value is None or isinstance(value, str)} - {"defaults"}
        assert unsure <= TEXT | OTHERS, verb
        assert not unsure & TEXT & default_groups(verb).keys() - {"policy"}


def test_a_network_is_still_chosen_by_its_name():
    assert compose_verb("train", ["task=lift", "policy=transformer"]).policy.name == "transformer"
    with pytest.raises(SpecpolicyError, match="unknown policy '2026'"):
        compose_verb("train", ["task=lift", "policy=2026"])


def test_null_and_interpolations_are_not_text():
    assert compose_verb("rollout", ["task=lift", "policy=p", "output=null"]).output is None
    assert compose_verb("rollout", ["task=lift", "policy=p", "output='null'"]).output == "null"
    assert compose_verb("rollout", ["task=lift", "policy=p", "output=a/${task.name}"]).output == "a/lift"


@pytest.mark.parametrize("value", ["[a,b]", "{a: b}", "", "''", "[2026]"])
@pytest.mark.parametrize("key", ["output", "policy"])
def test_what_is_no_text_is_refused(key, value):
    with pytest.raises(SpecpolicyError, match=rf"{key}=.*expected"):
        compose_verb("rollout", ["task=lift", *(["policy=p"] if key == "output" else []), f"{key}={value}"])


def test_a_whole_number_in_a_file_of_the_users_own_is_a_name(tmp_path):
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "mine.yaml").write_text("name: 2026\nid: mine:Mine-v0\nkwargs: {}\nobservation_keys: null\n")
    config = compose_verb("collect", ["task=mine"], [tmp_path])
    assert (config.task.name, config.output) == ("2026", "data/2026.hdf5")


@settings(max_examples=300, derandomize=True)
@given(
    st.text(
        alphabet=st.one_of(
            st.sampled_from([*SPECIAL, *"\\ab ~!#$:é"]), st.characters(codec="utf-8", categories=["L", "P", "S"])
        ),
        min_size=1,
    )
)
def test_what_a_hint_says_is_what_can_be_written(value):
    """Whatever is refused as a value comes with the same value, quoted for the shell, and that is understood."""
    text = f"output={value}"
    try:
        override = parse_override(text)
    except SpecpolicyError as error:
        if "$HOME" in str(error) and value.startswith("~/"):
            return
        typed = str(error).removesuffix(")").partition(": " if "cannot read" in str(error) else "a comma ")[2]
        typed = typed.partition(": ")[2] if "cannot read" in str(error) else typed
        (argument,) = shlex.split(typed[typed.index("output=") - 1 :])
        assert parse_override(argument).value() == value.strip()
    else:
        assert override.input_line is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("output=a=b", "quote a value that holds =: \"output='a=b'\""),
        ("data=epoch=0550-score=0.969.ckpt", "quote a value that holds =:"),
        ("output=(a)", "quote a value that holds ():"),
        ("output=it's", "quote a value that holds ':"),
        ("output=run(1)", "quote a value"),
        ("output=a,b", "a name with a comma \"output='a,b'\""),
        ("output=~/x", "output=$HOME/x"),
        ("expected_success=é", "quote a value that holds é:"),
        ("out put=3", "'out put' is no key"),
    ],
)
def test_hints_name_the_characters_that_are_refused(text, words):
    with pytest.raises(SpecpolicyError) as caught:
        parse_override(text)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_verb_runs_on_names_that_look_like_numbers(policy_config, tmp_path, monkeypatch, write_demonstrations):
    monkeypatch.chdir(tmp_path)
    DiffusionPolicy.from_config(policy_config).save("100000")
    assert main(["convert", "path=100000", "out=1_000"]) == 0
    assert (tmp_path / "1_000" / "config.json").exists()
    write_demonstrations(tmp_path / "1e5")
    small = ["policy.network.down_dims=[16,32]", "policy.horizon=8", "policy.n_action_steps=4", "policy.chain.steps=20"]
    tiny = [
        "task=gym",
        "task.id=Pendulum-v1",
        "task.name=2026",
        "steps=1",
        "batch_size=8",
        "policy.chain.train_steps=20",
    ]
    assert main(["train", *tiny, *small, "threads=1", "data=1e5", "output=2026"]) == 0
    assert (tmp_path / "2026" / "config.json").exists()


@pytest.mark.parametrize("value", ("{a:x,a:y}", "{a: x, b: {c: 1, d: 2}, a: y}", "{a:'x,y',a:[1,2]}"))
def test_a_key_given_twice_is_refused(value):
    with pytest.raises(SpecpolicyError, match="gives a key twice"):
        parse_override(f"task.rename={value}")


@pytest.mark.parametrize("value", ("{}", "{a:x}", "{a: x, b: {a: 1, c: 2}}", "{a:'x,y',b:[1,2],c:\"}\"}"))
def test_a_key_given_once_is_not(value):
    assert isinstance(parse_override(f"task.rename={value}").value(), dict)


def test_a_broken_file_of_the_users_own_is_one_line(tmp_path):
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "mine.yaml").write_text("name: mine\nid: Mine-v0\nrename: {a: x, a: y}\n")
    with pytest.raises(SpecpolicyError, match=r"^task/mine: .*duplicate key a in .*mine\.yaml.*, line 3[^\n]*$"):
        compose_verb("rollout", ["task=mine", "policy=p"], [tmp_path])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- name: mine\n", "expected keys with their values"),
        ("", "expected keys with their values"),
        ("name: mine\n", "the key 'id' is missing, and a task needs name and id"),
        ("id: Mine-v0\nkwargs: {}\n", "the key 'name' is missing"),
    ],
)
def test_a_file_that_is_no_task_is_named(text, words, tmp_path):
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "mine.yaml").write_text(text)
    for verb in (["rollout", "policy=p"], ["train"], ["collect"]):
        with pytest.raises(SpecpolicyError, match=rf"^{tmp_path}/task/mine\.yaml: {words}[^\n]*$"):
            compose_verb(verb[0], ["task=mine", *verb[1:]], [tmp_path])
    with pytest.raises(SpecpolicyError, match=r"mine\.yaml: "):
        load_option("task", "mine", [tmp_path])


def test_a_task_may_leave_to_another_file_what_it_needs(tmp_path):
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "mine.yaml").write_text("defaults: [lift]\nname: mine\n")
    task = compose_verb("train", ["task=mine"], [tmp_path]).task
    assert (task.name, task.id) == ("mine", "specpolicy/Lift-v0")
