"""What every verb does with its output: held while it works, opened before it works, whole after a kill or a full disk.

Other files that lie there: test_overwriting.py.
"""

import contextlib
import os
import resource
import shutil
import signal

import pytest
from looking_at_outputs import place, refused

from specpolicy.cli import VERBS
from specpolicy.cli.convert import PART
from specpolicy.outputs import LOCK, claim, claim_path
from specpolicy.policy import DiffusionPolicy


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


@pytest.mark.parametrize("verb", ["benchmark", "rollout", "control"])
def test_policies_of_one_name_have_other_outputs(verb, run, drifter, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["ema-0.950", "ema-0.969"] if verb == "benchmark" else ["a/pretrained_model", "b/pretrained_model"]
    for name in names:
        shutil.copytree(drifter, tmp_path / name)
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
