"""Shards in any order, merged, are the single run: same rows, same report. What does not belong together is refused."""

import csv
import json
import random
import re
import shutil
from pathlib import Path

import pytest
import torch

import specpolicy
from specpolicy import SpecpolicyError
from specpolicy.cli import main
from specpolicy.cli.overrides import with_paths
from specpolicy.evaluation.shards import Shard, read_shard
from specpolicy.policy import DiffusionPolicy

HERE = str(Path(__file__).parent)
pytestmark = pytest.mark.usefixtures("without_plots")


@pytest.fixture(scope="module")
def arguments(small_policy_config, tmp_path_factory):
    """What all runs of the evaluation have in common."""
    torch.manual_seed(1)
    config = {**small_policy_config, "chain": {"train_steps": 12, "steps": 12}}
    policy = DiffusionPolicy.from_config(config).save(tmp_path_factory.mktemp("policy") / "policy")
    task = ["task=gym", "task.name=drift", "task.id=drift_env:Drift-v0", "+task.kwargs.coverage=true"]
    play = ["episodes=5", "workers=0", "videos=0", "max_seconds=1.5", "engine=eager"]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(HERE)
        yield [*task, f"policy={policy}", "samplers=[ddpm,{name: ddim, steps: 4}]", *play]


@pytest.fixture(scope="module")
def two_shards(arguments, tmp_path_factory):
    """Both shards of an evaluation of two episodes, not to be changed."""
    output = tmp_path_factory.mktemp("two")
    for number in (1, 2):
        evaluate(output, *arguments, "episodes=2", f"shard={number}/2")
    return output


@pytest.fixture
def output(two_shards, tmp_path):
    """A copy of both shards."""
    return Path(shutil.copytree(two_shards, tmp_path / "out"))


def evaluate(output, *arguments):
    assert main(["evaluate", *arguments, f"output={output}"]) == 0


def merge(output, *arguments):
    assert main(["merge", f"out={output}", *arguments]) == 0


def rows(output, table="episodes.csv"):
    """The rows in their order, without measured times."""
    with (output / table).open() as file:
        return [{name: row[name] for name in row if not timed(name, table)} for row in csv.DictReader(file)]


def timed(name, table):
    """Whether a column has measured times; `seconds` of an episode are simulated."""
    return any(part in name for part in ("_seconds", "seconds_", "_share")) or (name, table) == (
        "seconds",
        "chunks.csv",
    )


def refused(capsys, *arguments):
    """The one line in which a command is refused."""
    capsys.readouterr()
    assert main(list(arguments)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_shards_in_any_order_are_the_single_run(arguments, tmp_path):
    evaluate(tmp_path / "whole", *arguments)
    expected = [rows(tmp_path / "whole", table) for table in ("episodes.csv", "chunks.csv")]
    assert len(expected[0]) == 10 and len({row["return"] for row in expected[0]}) == 10
    for count in (1, 2, 5):
        output, numbers = tmp_path / f"{count}", list(range(1, count + 1))
        random.Random(count).shuffle(numbers)
        for number in numbers:
            evaluate(output, *arguments, f"shard={number}/{count}")
        merge(output)
        assert [rows(output, table) for table in ("episodes.csv", "chunks.csv")] == expected
        whole, merged = (json.loads((one / "summary.json").read_text()) for one in (tmp_path / "whole", output))
        assert merged["fingerprint"] == whole["fingerprint"] and merged["differences"] == whole["differences"]
        assert [one["successes"] for one in merged["conditions"]] == [one["successes"] for one in whole["conditions"]]
        assert len(merged["shards"]) == count and (output / "report.html").stat().st_size > 1000
    before = (output / "episodes.csv").read_text()
    evaluate(output, *arguments, "episodes=6")  # goes on as if all had been played here
    merge(output)
    assert (output / "episodes.csv").read_text().startswith(before) and len(rows(output)) == 12


def test_blocks_of_batches_stay_whole(arguments, tmp_path):
    """Nine episodes in blocks of eight, one of them filmed; the second shard has a single seed."""
    batched = [*arguments, "episodes=9", "batch=2", "videos=1"]
    evaluate(tmp_path / "whole", *batched)
    for number in (2, 1):
        evaluate(tmp_path / "parts", *batched, f"shard={number}/2")
    merge(tmp_path / "parts")
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    films = [sorted(path.name for path in (tmp_path / one / "videos").iterdir()) for one in ("whole", "parts")]
    assert films[0] == films[1] and len(films[0]) == 2


def test_what_is_missing_is_named(arguments, output, capsys):
    table = output / "shards" / "2-of-2" / "episodes.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]) + "drift,dd")  # as a kill leaves it
    torn = table.read_bytes()
    shutil.move(output / "shards" / "1-of-2", output / "kept")
    (output / "shards" / "1-of-2").mkdir()  # as one leaves it that is killed before it begins
    (output / "shards" / "1-of-2" / ".specpolicy.lock").touch()
    error = refused(capsys, "merge", f"out={output}")
    assert "1/2 (not there)" in error and "2/2 (1 episodes, of seeds 100001)" in error
    assert table.read_bytes() == torn and not (output / "episodes.csv").exists()
    evaluate(output, *arguments, "episodes=2", "shard=2/2")
    merge(output, str(output / "kept"), str(output / "shards" / "2-of-2"))
    assert len(rows(output)) == 4


def changed(path, change):
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


def other_version(found):
    found["versions"]["mujoco"] = "2.1.0"


def other_physics(found):
    found["physics"]["values"]["position"][3][1] += 0.01


def other_weights(found):
    found["policy"] = "0" * 16


def other_processor(found):
    found["machines"][0]["cpu"] = "Abacus"


@pytest.mark.parametrize(
    "file, change, message",
    (
        ("world.json", other_version, "mujoco"),
        ("world.json", other_physics, "at step 3, position by 0.01"),
        ("settings.json", other_weights, "another policy"),
        ("settings.json", other_processor, "mixed_hardware=true"),
        ("shard.json", lambda found: found.update(margin=0.1), "margin=0.05, not 0.1"),
        ("shard.json", lambda found: found["evaluation"].update(shard={"number": 1, "count": 2}), "both shard 1/2"),
        ("shard.json", lambda found: found["evaluation"].update(shard={"number": 2, "count": 3}), "shard 1/2 and"),
        ("shard.json", lambda found: found.pop("margin"), "lacks 'margin'"),
    ),
)
def test_shards_that_do_not_belong_together(output, capsys, file, change, message):
    changed(output / "shards" / "2-of-2" / file, change)
    assert message in refused(capsys, "merge", f"out={output}")
    assert not (output / "episodes.csv").exists()
    if change is other_processor:
        merge(output, "mixed_hardware=true")
        assert len(rows(output)) == 4


def test_a_trace_that_is_another_one_by_now(arguments, tmp_path, capsys):
    trace, output = tmp_path / "calls.csv", tmp_path / "out"
    trace.write_text("sampler,seconds\nddpm,0.31\nddim-4,0.02\n")
    charged = ["episodes=2", "track=charged", "track.factors=[1]", f"track.trace={trace}"]
    for number in (1, 2):
        evaluate(output, *arguments, *charged, f"shard={number}/2")
    there = {path for path in output.rglob("*") if path.is_file()}
    before = trace.read_text()
    for content in ("sampler,seconds\nddpm,0.01\nddim-4,0.02\n", None):
        trace.write_text(content) if content else trace.unlink()
        assert "is not the trace whose times were charged" in refused(capsys, "merge", f"out={output}")
        assert {path for path in output.rglob("*") if path.is_file()} == there
    trace.write_text(before)
    merge(output)


def test_charged_times_are_of_one_processor(arguments, tmp_path, capsys):
    charged = ["track=charged", "track.factors=1", "samplers=ddpm", "episodes=2", f"output={tmp_path}"]
    for number in (1, 2):
        assert main(["evaluate", *arguments, *charged, f"shard={number}/2"]) == 0
    changed(tmp_path / "shards" / "2-of-2" / "settings.json", other_processor)
    assert "track.trace" in refused(capsys, "merge", f"out={tmp_path}", "mixed_hardware=true")
    resumed = refused(capsys, "evaluate", *arguments, *charged, "shard=2/2")
    assert "Abacus" in resumed and "overwrite=true" in resumed


def test_a_run_does_not_go_on_in_another_world(arguments, tmp_path, capsys):
    output = tmp_path / "out"
    evaluate(output, *arguments, "episodes=1")
    whole = (output / "world.json").read_text()
    for change, message in ((other_version, "mujoco 2.1.0"), (other_physics, "at step 3, position by 0.01")):
        changed(output / "world.json", change)
        assert message in refused(capsys, "evaluate", *arguments, f"output={output}")
        (output / "world.json").write_text(whole)
    (output / "world.json").unlink()  # an output of an earlier version, which kept none
    evaluate(output, *arguments)
    assert json.loads((output / "world.json").read_text()) == json.loads(whole)


@pytest.mark.parametrize(
    "setting, message",
    (
        ("shard=3", "such as 3/16"),
        ("shard=0/2", "1/2 to 2/2"),
        ("shard=3/2", "1/2 to 2/2"),
        ("shard=6/6", "5 episodes in blocks of 1 are work for 5 shards"),
        ("stop=0.05", "a shard has gaps"),
        ("logger=csv", "specpolicy merge"),
    ),
)
def test_settings_that_no_shard_can_have(arguments, tmp_path, capsys, setting, message):
    given = [setting] if setting.startswith("shard") else ["shard=1/2", setting]
    assert message in refused(capsys, "evaluate", *arguments, *given, f"output={tmp_path / 'out'}")
    assert not (tmp_path / "out").exists()


def test_a_place_of_other_results_is_refused(output, capsys):
    merge(output)
    whole = (output / "world.json").read_text(), (output / "settings.json").read_text()
    for file, change, message in (
        ("world.json", other_version, "mujoco 2.1.0"),
        ("settings.json", other_weights, "another policy"),
        ("settings.json", lambda found: found["conditions"]["ddpm"].update(delay=3), "ddpm="),
    ):
        changed(output / file, change)
        assert message in refused(capsys, "merge", f"out={output}")
        (output / "world.json").write_text(whole[0])
        (output / "settings.json").write_text(whole[1])
    changed(output / "settings.json", other_weights)
    (output / "notes.txt").write_text("mine")
    merge(output, "overwrite=true")
    assert len(rows(output)) == 4 and (output / "settings.json").read_text() == whole[1]
    assert (output / "notes.txt").exists() and (output / "shards" / "1-of-2" / "episodes.csv").exists()


def test_python_plays_no_shards(drift_task, drift_policy):
    with pytest.raises(SpecpolicyError, match="play it by specpolicy evaluate"):
        specpolicy.evaluate(drift_policy, drift_task, ["ddim-4"], 2, shard="1/2", engine="eager", quiet=True)


def test_merge_without_shards(tmp_path, capsys):
    assert "no shards in" in refused(capsys, "merge", f"out={tmp_path / 'out'}")
    assert "holds no shard" in refused(capsys, "merge", f"out={tmp_path / 'out'}", str(tmp_path))


def test_a_seed_is_in_one_shard():
    shards = [Shard(number, 5) for number in range(1, 6)]
    for block in range(20):
        assert sum(shard.has(block) for shard in shards) == 1
    assert str(read_shard("3/16")) == "3/16"
    with pytest.raises(SpecpolicyError, match=re.escape("shard=0/0")):
        read_shard("0/0")


def test_paths_need_no_key():
    assert with_paths("merge", ["a b", "out=x", "c,d"]) == ["out=x", "shards=['a b','c,d']"]
    assert with_paths("evaluate", ["a"]) == ["a"]
