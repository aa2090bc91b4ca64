"""Weights & Biases without a network: offline runs are written, and a resumed run keeps its id."""

import os
import signal
import subprocess
import sys

import matplotlib
import pytest
import wandb
from wandb_run import read_run

from specpolicy.errors import SpecpolicyError
from specpolicy.logging import make_logger
from specpolicy.logging.wandb_logger import chosen_mode

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staged"))


def test_offline_run_is_written_and_resumed_under_its_id(tmp_path):
    import matplotlib.pyplot as plt

    figure = tmp_path / "curve.png"
    plt.figure(figsize=(1, 1)).savefig(figure)
    options = {"name": "wandb", "project": "test", "tags": ["a"]}
    for resume_step in (None, 1):
        with make_logger(options, tmp_path / "run", {"seed": 0}, "lift", resume_step) as logger:
            logger.log({"loss": 1.0}, 1 if resume_step is None else 2)
            logger.log_file("curve", figure, 1)
            logger.summary({"success": 0.5})
            with pytest.raises(SpecpolicyError, match="no such file"):
                logger.log_file("film", tmp_path / "missing.mp4")
    runs = list((tmp_path / "run" / "wandb").glob("offline-run-*"))
    run_id = (tmp_path / "run" / "wandb_run_id.txt").read_text().strip()
    assert len(runs) == 2
    assert all(run_id in run.name for run in runs)
    assert all(list(run.rglob("curve*.png")) for run in runs)
    lines = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert lines == ["step,loss", "1,1.0", "2,1.0"]  # the CSV is written beside it


def test_wrong_options_are_named(tmp_path, monkeypatch):
    with pytest.raises(SpecpolicyError, match=r"logger wandb: .*projekt"):
        make_logger({"name": "wandb", "projekt": "x"}, tmp_path)
    monkeypatch.delenv("WANDB_MODE")
    with pytest.raises(SpecpolicyError, match="mode=of: expected online, offline or disabled"):
        make_logger({"name": "wandb", "mode": "of"}, tmp_path)


@pytest.mark.parametrize(
    ("own", "given", "mode"),
    [
        ("", "offline", "offline"),
        ("dryrun", "online", "offline"),
        ("run", "offline", "online"),
        ("disabled", 3, "disabled"),
    ],
)
def test_the_variable_wins_if_it_says_something(own, given, mode, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", own)
    assert chosen_mode(given) == mode


def test_an_empty_variable_begins_a_run(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "")
    with make_logger({"name": "wandb", "mode": "offline"}, tmp_path / "run") as logger:
        logger.log({"loss": 1.0}, 1)
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*"))


def test_what_is_wrong_is_named_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(SpecpolicyError, match=r"^WANDB_MODE=sometimes: expected online, offline or disabled"):
        make_logger({"name": "wandb", "mode": "offline"}, tmp_path / "run")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ModuleNotFoundError):
        make_logger({"name": "wandb"}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_cannot_begin_is_one_line(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE")
    for error, words in (
        (wandb.errors.UsageError("No API key configured.\nUse `wandb login` to log in."), "run `wandb login`, or set"),
        (wandb.errors.CommError("Run initialization has timed out after 90.0 sec."), "cannot be asked .Run init"),
        (wandb.errors.CommError("404: entity robots not found"), "has no such project, or none that this user may use"),
    ):

        def refuse(error=error, **options):
            raise error

        monkeypatch.setattr(wandb, "init", refuse)
        with pytest.raises(SpecpolicyError, match=f"{words}.*; or choose logger.mode=offline") as caught:
            make_logger({"name": "wandb"}, tmp_path)
        assert "\n" not in str(caught.value)


def records(directory, killed=0):
    """The rows of each segment of a run, in the order in which they were begun, as their files hold them.

    killed: so many of the first were, and may have no end, depending on how far the service of W&B had come.
    """
    segments = sorted((directory / "wandb").glob("offline-run-*"), key=lambda path: path.name)
    return [read_run(segment).rows for segment in segments[killed:]]


KILLED = """
import os, signal, sys
from specpolicy.logging import make_logger
logger = make_logger({"name": "wandb"}, sys.argv[1])
for step in (10, 20, 25):
    logger.log({"loss": step / 10}, step)
logger.log_table("seen", ["a"], [[1]])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_steps_of_a_killed_run_go_on_where_it_resumes(tmp_path):
    """Training is saved at step 20, killed behind step 25, and resumed."""
    output = tmp_path / "run"
    # Not with a service of this process, in which the run would live on.
    wandb.teardown()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_SERVICE")}
    done = subprocess.run([sys.executable, "-c", KILLED, output], check=False, env=environment)
    assert done.returncode == -signal.SIGKILL
    with make_logger({"name": "wandb"}, output, resume_step=20) as logger:
        for step in (25, 30, 40):
            logger.log({"loss": step / 10}, step)
        logger.log_table("results", ["a"], [[1]])
    with make_logger({"name": "wandb"}, output, resume_step=40) as logger:
        logger.log_table("results", ["a"], [[2]])  # nothing was left to do but to report
    second, third = records(output, killed=1)
    assert [(row["_step"], row["step"]) for row in second if "loss" in row] == [(27, 25), (30, 30), (40, 40)]
    numbers = [row["_step"] for row in second + third]
    assert numbers == sorted(set(numbers)) and numbers[0] > 26  # behind the last row of the first
    assert third[0]["_step"] == 42


def test_rows_bear_the_step_that_they_are_of(tmp_path):
    with make_logger({"name": "wandb"}, tmp_path) as logger:
        for step in (1, 2, 10, 10, 11, 50):
            logger.log({"loss": 1.0}, step)
    (rows,) = records(tmp_path)
    assert [row["step"] for row in rows] == [1, 2, 10, 10, 11, 50]  # none is dropped
    assert [row["_step"] for row in rows] == [1, 2, 10, 11, 12, 50]
