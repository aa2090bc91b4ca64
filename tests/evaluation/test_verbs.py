"""The verbs evaluate and rollout, as a user types them."""

import base64
import contextlib
import csv
import io
import json
import re
import shutil

import pytest
from omegaconf import OmegaConf

from specpolicy import SpecpolicyError
from specpolicy.cli import main
from specpolicy.cli.samplers import sampler_specs
from specpolicy.evaluation.tables import results_table, text_table

TASK = ["task=gym", "task.name=drift", "task.id=drift_env:Drift-v0", "+task.kwargs.coverage=true"]
EVALUATE = ["samplers=[ddpm,{name: ddim, steps: 4}]", "episodes=4", "workers=0", "videos=1", "engine=eager"]


@pytest.fixture(scope="module")
def played(kept_drift_policy, tmp_path_factory):
    """An evaluation's directory, not to be changed, and what was printed."""
    output, printed = tmp_path_factory.mktemp("played") / "out", io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["evaluate", *TASK, f"policy={kept_drift_policy}", f"output={output}", *EVALUATE]) == 0
    return output, printed.getvalue()


@pytest.fixture
def copied(played, tmp_path):
    """A copy of that directory where the verbs of a test write to."""
    return shutil.copytree(played[0], tmp_path / "out")


@pytest.fixture
def arguments(kept_drift_policy, tmp_path, monkeypatch, without_plots):
    """The task and the policy as both verbs take them."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    return [*TASK, f"policy={kept_drift_policy}", f"output={tmp_path / 'out'}"]


def test_evaluate_writes_everything_and_the_figures_agree(played):
    output, printed = played
    summary = json.loads((output / "summary.json").read_text())
    rows = list(csv.DictReader((output / "episodes.csv").open()))
    chunks = list(csv.DictReader((output / "chunks.csv").open()))
    assert [condition["label"] for condition in summary["conditions"]] == ["ddpm", "ddim-4"] and len(rows) == 8
    for sampler, calls in zip(summary["conditions"], (12, 4), strict=True):
        own = [row for row in rows if row["sampler"] == sampler["label"]]
        assert {row["seed"] for row in own} == {"100000", "100001", "100002", "100003"}
        assert sampler["successes"] == sum(int(row["success"]) for row in own)
        assert sampler["length"]["estimate"] == sum(int(row["length"]) for row in own) / 4
        coverage = sampler["max_coverage"]
        assert coverage["low"] <= coverage["estimate"] <= coverage["high"] <= 1
        assert sampler["calls"] == calls and 0 < sampler["network_share"] < 1
        seconds = sorted(float(row["seconds"]) for row in chunks if row["sampler"] == sampler["label"])
        assert len(seconds) == sampler["chunks"] == sum(int(row["chunks"]) for row in own)
        assert sampler["chunk_seconds"]["max"] == seconds[-1] >= sampler["chunk_seconds"]["p95"]
        assert (output / sampler["videos"][0]["path"]).stat().st_size > 0
    (difference,) = summary["differences"]
    assert (difference["condition"], difference["reference"], difference["episodes"]) == ("ddim-4", "ddpm", 4)
    first, second = (sampler["success_rate"]["estimate"] for sampler in summary["conditions"])
    assert difference["success_rate"]["estimate"] == pytest.approx(second - first)
    assert summary["machines"][0]["cores"] >= 1 and "torch" in summary["versions"]
    assert summary["config"]["episodes"] == 4
    assert OmegaConf.load(output / "config.yaml").seed == 100000
    assert (
        text_table(results_table(summary, brief=True)) in printed
        and "2 conditions. 4 episodes of each condition" in printed
        and "report.html" in printed
    )


def test_the_report_is_one_file_that_holds_what_it_shows(played):
    output, _ = played
    page = (output / "report.html").read_text()
    shown = re.findall(r'src="data:([a-z0-9/]+);base64,([^"]+)"', page)
    kinds = [kind for kind, _ in shown]
    assert len(re.findall("src=", page)) == len(shown) == 7  # nothing is fetched from elsewhere
    assert kinds.count("image/png") == 5 and kinds.count("video/mp4") == 2
    files = {path.read_bytes() for pattern in ("*.png", "videos/*.mp4") for path in output.glob(pattern)}
    assert {base64.b64decode(content) for _, content in shown} == files
    assert "http" not in page and "Newcombe" in page and "ddim-4" in page


def test_videos_beyond_the_limit_are_linked(arguments, copied, monkeypatch):
    monkeypatch.setattr("specpolicy.evaluation.report.EMBEDDED_VIDEOS", 10)
    assert main(["evaluate", *arguments, *EVALUATE]) == 0  # all is played: the report is written anew
    links = re.findall(r'src="([^"]+mp4)"', (copied / "report.html").read_text())
    assert len(links) == 2 and all((copied / link).stat().st_size > 100 for link in links)


def test_the_same_command_continues_and_another_is_refused(arguments, tmp_path, capsys):
    assert main(["evaluate", *arguments, *EVALUATE, "episodes=2", "videos=0"]) == 0
    before = (tmp_path / "out" / "episodes.csv").read_text()
    assert main(["evaluate", *arguments, *EVALUATE, "videos=0"]) == 0
    assert (tmp_path / "out" / "episodes.csv").read_text().startswith(before)
    capsys.readouterr()
    assert main(["evaluate", *arguments, *EVALUATE, "seed=5"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "seed=100000, not 5" in error and "overwrite=true" in error
    assert main(["evaluate", *arguments, *EVALUATE, "seed=5", "episodes=1", "overwrite=true"]) == 0


def test_a_worker_that_dies_gives_one_line_and_loses_nothing(arguments, tmp_path, capfd):
    settings = ["samplers=[ddpm]", "videos=0", "workers=1", "engine=eager", "+task.kwargs.dies_at=100002"]
    assert main(["evaluate", *arguments, *settings, "episodes=4"]) == 2
    error = capfd.readouterr().err
    complaint = [line for line in error.splitlines() if "died" in line]
    assert len(complaint) == 1 and "what is finished is kept" in complaint[0] and "Traceback" not in error
    kept = (tmp_path / "out" / "episodes.csv").read_text()
    assert [row["seed"] for row in csv.DictReader(kept.splitlines())] == ["100000", "100001"]
    assert main(["evaluate", *arguments, *settings, "episodes=2"]) == 0  # the same, up to there: nothing to play
    assert (tmp_path / "out" / "episodes.csv").read_text() == kept
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["conditions"][0]["episodes"] == 2


def test_videos_of_episodes_that_are_there_are_not_played_for(played, arguments, copied, tmp_path, capsys):
    before = (copied / "episodes.csv").read_text()
    assert "have no video" not in played[1]
    assert main(["evaluate", *arguments, *EVALUATE, "videos=3", "episodes=2"]) == 0
    assert capsys.readouterr().out.count("2 of the episodes to be filmed are done and have no video") == 1
    assert (tmp_path / "out" / "episodes.csv").read_text() == before
    assert len([*(tmp_path / "out" / "videos").iterdir()]) == 2


def test_one_warning_for_all_missing_videos(arguments, tmp_path, capsys):
    assert main(["evaluate", *arguments, *EVALUATE, "+task.kwargs.blind=true"]) == 0
    assert capsys.readouterr().err.count("no OpenGL library works here") == 1
    assert "<video" not in (tmp_path / "out" / "report.html").read_text()


def test_labels_tell_samplers_apart():
    entries = [
        "expert",
        "ddpm",
        "ddim",
        {"name": "ddim", "steps": 4},
        {"name": "ddim", "eta": 1.0},
        {"name": "ddpm", "label": "x"},
    ]
    specs = sampler_specs(entries)
    assert list(specs) == ["expert", "ddpm", "ddim-10", "ddim-4", "ddim-10-eta1.0", "x"]
    assert specs["ddim-4"] == {"name": "ddim", "steps": 4, "eta": 0.0}
    assert specs["x"] == {"name": "ddpm", "steps": None}


@pytest.mark.parametrize(
    "entries, message",
    ((["ddpm", "ddpm"], "two are called 'ddpm'"), (["dpm_solvr"], "dpm_solver"), ([{"steps": 3}], "no name")),
)
def test_samplers_that_cannot_be_meant(entries, message):
    with pytest.raises(SpecpolicyError, match=message):
        sampler_specs(entries)


def test_rollout_plays_the_episode_that_evaluate_plays(played, arguments, tmp_path, capsys):
    row, *_ = csv.DictReader((played[0] / "episodes.csv").open())
    assert (row["condition"], row["seed"]) == ("ddpm", "100000")
    assert main(["rollout", *arguments, "sampler=ddpm", "engine=eager", f"output={tmp_path / 'roll'}"]) == 0
    printed = capsys.readouterr().out
    outcome = "solved" if row["success"] == "1" else "not solved"
    assert f"ddpm, seed 100000: {outcome} in {row['length']} steps" in printed and "12 network calls" in printed
    assert (tmp_path / "roll" / "videos" / "ddpm-100000.mp4").exists()
    assert (tmp_path / "roll" / "config.yaml").exists()


@pytest.mark.parametrize(
    "extra, message",
    (
        (["viewer=true"], "no screen"),
        (["viewer=perhaps"], "viewer=perhaps"),
        (["sampler=ddim", "sampler.steps=0"], "steps"),
        (["video_size=[1]"], "video_size"),
        (["video_size=[1,64]"], "each at least 2"),
    ),
)
def test_rollout_refuses_in_one_line(arguments, capsys, extra, message):
    assert main(["rollout", *arguments, "engine=eager", *extra]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_window_of_the_environments_own(arguments, tmp_path, monkeypatch, capsys):
    """With a screen, an environment that is not MuJoCo's shows itself; then there is no video."""
    import drift_env

    shown = []
    monkeypatch.setenv("DISPLAY", ":99")
    monkeypatch.setattr(drift_env.Drift, "render", lambda env: shown.append(env.render_mode))
    assert main(["rollout", *arguments, "engine=eager", "max_seconds=0.2"]) == 0
    assert shown == ["human"] * 3  # the reset and two steps
    assert "video" not in capsys.readouterr().out
