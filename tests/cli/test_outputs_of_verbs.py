"""What every verb does with its output: held while it works, opened before it works, never another's files replaced."""

import contextlib
import os
import resource
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from specpolicy import load_policy
from specpolicy.cli import VERBS, main
from specpolicy.cli.convert import PART
from specpolicy.outputs import LOCK, claim, claim_path
from specpolicy.policy import DiffusionPolicy

TASKS = str(Path(__file__).parents[1] / "evaluation")  # where drift_env.py, a task without a simulator, lies
PENDULUM = ["task=gym", "task.id=Pendulum-v1", "threads=1"]
DRIFT = ["task=gym", "task.name=drift", "task.id=drift_env:Drift-v0"]
SMALL = ["policy.network.down_dims=[16,32]", "policy.horizon=8", "policy.n_action_steps=4"]
CHAIN = ["policy.chain.train_steps=20", "policy.chain.steps=20", "steps=2", "batch_size=8", "save_every=1"]
KEYS = {"convert": "out", "merge": "out"}  # what a verb's output is called, if not output
OVERWRITING = ("train", "evaluate", "convert")


@pytest.fixture(scope="module")
def policy(small_policy_config, tmp_path_factory):
    """A small untrained policy of the task drift, and observations for it."""
    torch.manual_seed(0)
    config = {**small_policy_config, "chain": {"train_steps": 12, "steps": 12}}
    directory = DiffusionPolicy.from_config(config).save(tmp_path_factory.mktemp("policies") / "policy")
    source = np.random.default_rng(0)
    seen = {key: source.normal(size=(30, 2, size)).astype(np.float32) for key, size in (("position", 2), ("object", 3))}
    save_file(seen, directory.parent / "seen.safetensors")
    return directory


@pytest.fixture(scope="module")
def data(tmp_path_factory, write_demonstrations):
    return write_demonstrations(tmp_path_factory.mktemp("data") / "pendulum.hdf5")


@pytest.fixture(scope="module")
def shard(policy, tmp_path_factory):
    """The only shard of an evaluation, with recorded actions."""
    output = tmp_path_factory.mktemp("shards")
    little = ["episodes=1", "workers=0", "videos=0", "samplers=[ddim-4]", "shard=1/1", "record_actions=true"]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TASKS)
        assert main(["evaluate", *DRIFT, f"policy={policy}", *little, f"output={output}"]) == 0
    return output / "shards" / "1-of-1"


@pytest.fixture
def run(policy, data, shard, monkeypatch):
    """Runs a verb with little to do."""
    monkeypatch.syspath_prepend(TASKS)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    of_policy, seen = [f"policy={policy}", "threads=1"], f"observations={policy.parent / 'seen.safetensors'}"
    little = ["chains=24", "rounds=16", "training_steps=20", "steps=[6]", "held_out=0"]
    arguments = {
        "collect": ["task=lift", "episodes=1", "workers=0"],
        "train": [*PENDULUM, *SMALL, *CHAIN, f"data={data}"],
        "calibrate": [*of_policy, seen, *little],
        "train_drafter": [*of_policy, seen, "chains=24", "training_steps=12", "down_dims=[8,16]"],
        "evaluate": [*DRIFT, f"policy={policy}", "episodes=1", "workers=0", "videos=0", "samplers=[ddim-4]"],
        "merge": [str(shard)],
        "replay": [f"path={shard}"],
        "benchmark": [*of_policy, seen, "samplers=[ddim-4]", "count=2"],
        "control": [*DRIFT, f"policy={policy}", "clock=paused", "sampler=ddim-4"],
        "serve": [f"policy={policy}", "port=0"],
        "rollout": [*DRIFT, f"policy={policy}", "sampler=ddim-4", "viewer=false", "video=false"],
        "convert": [f"path={policy}"],
    }
    assert arguments.keys() == VERBS.keys()

    def start(verb, output, *more):
        return main([verb, *arguments[verb], f"{KEYS.get(verb, 'output')}={output}", *more])

    return start


def place(verb, directory):
    """What a verb writes: a directory, or the file of a collection."""
    return directory / "data.hdf5" if verb == "collect" else directory


def tree(directory):
    """Everything below a directory, with its content."""
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name != LOCK}


def refused(capsys):
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and "Traceback" not in lines[0], lines
    return lines[0]


@pytest.mark.parametrize("verb", VERBS)
def test_an_output_that_another_run_holds_is_refused(verb, run, tmp_path, capsys):
    output = place(verb, tmp_path / "out")
    with claim_path(output, "collect") if verb == "collect" else claim(output, verb):
        assert run(verb, output) == 2
    assert f"in use by specpolicy {verb} (process" in refused(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", VERBS)
def test_one_run_in_several_processes_is_refused(verb, run, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert run(verb, place(verb, tmp_path / "out")) == 2
    line = refused(capsys)
    if verb == "train":  # several processes of torchrun train together; these are not torchrun's
        assert "WORLD_SIZE=2 is set, and MASTER_ADDR, MASTER_PORT is not" in line
    else:
        assert "WORLD_SIZE=2 RANK=1" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", VERBS)
def test_an_output_that_cannot_be_written_is_found_before_the_work(verb, run, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").touch()
    # Whatever a verb works with: it must not come to it.
    for name in (
        "specpolicy.data.recorder.Recorder",
        "specpolicy.training.trainer.train",
        "specpolicy.samplers.sample",
    ):
        monkeypatch.setattr(name, lambda *arguments, **options: pytest.fail("it worked first"))
    monkeypatch.setattr(DiffusionPolicy, "predict", lambda *arguments, **options: pytest.fail("it worked first"))
    monkeypatch.setattr(DiffusionPolicy, "encode", lambda *arguments, **options: pytest.fail("it worked first"))
    assert run(verb, place(verb, tmp_path / "file" / "out")) == 2
    assert "Not a directory" in refused(capsys)


FOREIGN = {
    "notes": {"thesis.tex": "years of work"},
    "a model of another project": {"config.json": '{"model_type": "bert"}', "model.safetensors": "weights"},
    "settings of another program": {"config.yaml": "a: 1\n", "settings.json": "{}", "metrics.csv": "x,y\n"},
    "results of another program": {"episodes.csv": "a\n", "summary.json": "[]", "report.html": "", "plot_a.png": ""},
    "states of another program": {"training.pt": "state", "wandb_run_id.txt": "abc"},
    "figures of another program": {"table.md": "|", "chunks.csv": "a\n", "timing.json": "{}", "metrics.txt": ""},
}


@pytest.mark.parametrize("content", FOREIGN)
@pytest.mark.parametrize("verb", OVERWRITING)
def test_overwriting_a_directory_that_is_not_ours_is_refused(verb, content, run, tmp_path, capsys):
    output = tmp_path / "out"
    output.mkdir()
    for name, text in FOREIGN[content].items():
        (output / name).write_text(text)
    (tmp_path / "link").symlink_to(output)
    before = tree(tmp_path)
    for given in (output, tmp_path / "link"):
        assert run(verb, given, "overwrite=true") == 2
        assert str(given) in refused(capsys)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("verb", "name"),
    [
        *(
            ("train", name)
            for name in ("config.yaml", "config.json", "model.safetensors", "training.pt", "metrics.csv")
        ),
        *(("evaluate", name) for name in ("config.yaml", "settings.json", "episodes.csv", "report.html")),
        *(("benchmark", name) for name in ("config.yaml", "summary.json", "table.md", "chunks.csv")),
        *(("control", name) for name in ("config.yaml", "timing.json")),
        *(("serve", name) for name in ("config.yaml", "metrics.txt")),
        *(("rollout", name) for name in ("config.yaml", "videos/ddim-4-100000.mp4")),
        *(("calibrate", name) for name in ("observations.safetensors", "calibrate.yaml")),
        ("benchmark", "observations.safetensors"),
        ("convert", "notes.txt"),
        ("collect", "data.yaml"),
        ("collect", "data.hdf5"),
        ("collect", "data.hdf5.parts/notes.txt"),
    ],
)
def test_files_of_others_are_not_replaced(verb, name, run, tmp_path, capsys):
    path = tmp_path / "out" / name
    path.parent.mkdir(parents=True)
    path.write_text("title: mine\n")
    before = tree(tmp_path)
    more = {"rollout": ["video=true"], "calibrate": ["held_out=9"]}.get(verb, [])
    assert run(verb, place(verb, tmp_path / "out"), *more) == 2
    assert Path(name).parts[0] in refused(capsys) or verb == "convert"
    assert tree(tmp_path) == before


def test_the_output_of_another_verb_is_not_overwritten(run, tmp_path, capsys):
    assert run("rollout", tmp_path / "out") == 0
    capsys.readouterr()
    before = tree(tmp_path)
    for verb in ("train", "evaluate", "benchmark", "control", "serve"):
        assert run(verb, tmp_path / "out") == 2
        assert f"no output of specpolicy {verb}" in refused(capsys)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("verb", "more", "where"),
    [
        ("benchmark", ["logger=csv"], "specpolicy.benchmarking.write_report"),
        ("rollout", ["video=true"], "specpolicy.evaluation.player.Player.__call__"),
        ("control", [], "specpolicy.control.Controller.run"),
        ("train", [], "specpolicy.training.train"),
        ("evaluate", ["logger=csv"], "specpolicy.evaluation.runner.play"),
    ],
)
def test_what_was_killed_at_work_begins_again(verb, more, where, run, tmp_path, monkeypatch):
    """What it has left is known as its own."""

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(where, killed)
        assert run(verb, tmp_path / "out", *more) == 130
    assert run(verb, tmp_path / "out", *more) == 0


BAD = {
    "train": ("data=nothing", "policy.horizon=9", "policy.chain.prediction=x"),
    "evaluate": ("policy=nothing", "task.id=Nothing-v0"),
    "convert": ("path=nothing", "path=.."),
}


@pytest.mark.parametrize("verb", OVERWRITING)
def test_overwriting_comes_after_everything_that_can_be_wrong(verb, run, tmp_path, capsys):
    output = tmp_path / "out"
    assert run(verb, output) == 0
    before = tree(output)
    capsys.readouterr()
    for bad in BAD[verb]:
        assert run(verb, output, bad, "overwrite=true") == 2, bad
        refused(capsys)
        assert tree(output) == before, bad
    (output / "notes.txt").write_text("mine")
    other = {"train": "seed=3", "evaluate": "seed=3", "convert": "half_precision=true"}[verb]
    assert run(verb, output, other, "overwrite=true") == 0
    after = tree(output)
    assert after.pop(str(output / "notes.txt")) == b"mine"
    assert after.keys() == before.keys() and after != before


def test_a_checkpoint_whose_training_cannot_go_on_is_kept(run, policy, tmp_path, capsys):
    output = tmp_path / "out"
    shutil.copytree(policy, output)
    (output / "speculation.json").write_text("{}")  # of the old weights
    before = tree(output)
    assert run("train", output) == 2
    assert "holds a checkpoint without training.pt" in refused(capsys)
    assert tree(output) == before
    assert run("train", output, "overwrite=true") == 0
    assert load_policy(output).config.task["id"] == "Pendulum-v1" and not (output / "speculation.json").exists()


def test_the_working_directory_may_be_the_output_and_the_home_may_not(run, tmp_path, capsys, monkeypatch):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "main.py").write_text("print()")
    monkeypatch.chdir(tmp_path / "project")
    assert run("train", ".", "overwrite=true") == 2
    monkeypatch.setenv("HOME", str(tmp_path / "project"))
    assert run("train", tmp_path / "project") == 2
    assert [path.name for path in (tmp_path / "project").iterdir()] == ["main.py"]


def test_a_conversion_that_was_killed_or_has_failed_can_be_done_again(run, tmp_path, monkeypatch, capsys):
    output = tmp_path / "out"

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("specpolicy.cli.configuration.save_config", full)  # after the weights
        assert run("convert", output) == 2
    assert "No space left on device" in refused(capsys)
    assert not output.exists()
    (output / PART).mkdir(parents=True)  # as a kill leaves it
    for name in ("model.safetensors", "config.json", ".model-abcd1234.safetensors"):
        (output / PART / name).write_text("half")
    (output / LOCK).touch()
    assert run("convert", output) == 0
    assert {path.name for path in output.iterdir()} == {"config.json", "convert.yaml", "model.safetensors"}


@pytest.mark.parametrize("moved", [1, 2])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_conversion_that_was_killed_between_two_of_its_files_can_be_done_again(run, tmp_path, moved, overwrite):
    output, more = tmp_path / "out", ["overwrite=true"] if overwrite else []
    assert run("convert", output) == 0
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    (output / PART).mkdir()
    for name in ("convert.yaml", "model.safetensors", "config.json")[moved:]:
        (output / name).rename(output / PART / name)
    assert run("convert", output, *more) == 0
    after = {path.name: path.read_bytes() for path in output.iterdir()}
    assert after.keys() == before.keys() and after["model.safetensors"] == before["model.safetensors"]


def test_a_conversion_deletes_no_part_that_is_not_its_own(run, tmp_path, capsys):
    mine = tmp_path / "out" / ".part"
    mine.mkdir(parents=True)
    for name in ("model.safetensors", "config.json", "convert.yaml"):
        (mine / name).write_text("mine")
    before = tree(tmp_path)
    for more in ([], ["overwrite=true"]):
        assert run("convert", tmp_path / "out", *more) == 2
        refused(capsys)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("verb", ["benchmark", "rollout", "control"])
def test_policies_of_one_name_have_other_outputs(verb, run, policy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["ema-0.950", "ema-0.969"] if verb == "benchmark" else ["a/pretrained_model", "b/pretrained_model"]
    for name in names:
        shutil.copytree(policy, tmp_path / name)
        assert run(verb, "null", f"policy={name}") == 0
    saved = [path for path in (tmp_path / "outputs").rglob("config.yaml") if path.parent.name != ".hydra"]
    assert len(saved) == len(names)


@pytest.mark.parametrize("verb", ["train", "evaluate", "benchmark", "rollout", "control", "convert"])
def test_a_disk_that_fills_up_is_one_line_and_leaves_nothing_half_written(verb, run, tmp_path, capsys, monkeypatch):
    def fill():
        """From now on files cannot grow beyond a few bytes."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (fsync(handle), fill()))  # as soon as the output is held
    try:
        assert run(verb, tmp_path / "out") == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    *progress, line = capsys.readouterr().err.strip().splitlines()
    assert line.endswith(" cannot be written: File too large") and "Traceback" not in "".join(progress)
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_two_runs_at_once_record_every_episode_once(run, tmp_path, capsys, monkeypatch):
    """The second one begins while the first one plays."""
    from specpolicy.evaluation import runner

    output, codes, play = tmp_path / "out", [], runner.play

    def while_playing(*arguments, **options):
        with contextlib.suppress(IndexError):
            if not codes:
                codes.append(None)
                codes[0] = run("evaluate", output, "episodes=2")
        return play(*arguments, **options)

    monkeypatch.setattr(runner, "play", while_playing)
    assert run("evaluate", output, "episodes=2") == 0
    assert codes == [2]
    assert len((output / "episodes.csv").read_text().splitlines()) == 1 + 2
