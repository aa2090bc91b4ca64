"""Weights & Biases without a network: offline runs are written, and a resumed run keeps its id."""

import matplotlib
import pytest

from specpolicy.errors import SpecpolicyError
from specpolicy.logging import make_logger

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")


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
    assert all(run.name.endswith(run_id) for run in runs)
    assert all(list(run.rglob("curve*.png")) for run in runs)
    lines = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert lines == ["step,loss", "1,1.0", "2,1.0"]  # the CSV is written beside it


def test_wrong_options_are_named(tmp_path, monkeypatch):
    with pytest.raises(SpecpolicyError, match=r"logger wandb: .*projekt"):
        make_logger({"name": "wandb", "projekt": "x"}, tmp_path)
    monkeypatch.delenv("WANDB_MODE")
    with pytest.raises(SpecpolicyError, match="mode=of: expected online, offline or disabled"):
        make_logger({"name": "wandb", "mode": "of"}, tmp_path)
