"""Tracks from the command line: the same to the bit, resumable, and with everything in the report and in W&B."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from wandb_run import read_run

from specpolicy.cli import main
from specpolicy.evaluation import results
from specpolicy.evaluation.power import episodes_for_equivalence
from specpolicy.evaluation.tables import timing_table

DOCUMENT = Path(__file__).parents[2] / "docs" / "evaluation.md"
MEASURED = {f"chunk_seconds_{name}" for name in ("mean", "p50", "p95", "max")} | {"network_share", "encode_share"}


@pytest.fixture
def arguments(drift_policy, drift_task, tmp_path):
    return [
        "task=gym",
        "task.name=drift",
        "task.id=drift_env:Drift-v0",
        "+task.kwargs.radius=2.6",
        f"policy={drift_policy}",
        f"output={tmp_path / 'out'}",
        "videos=0",
        "workers=0",
        "engine=eager",
    ]


DELAYS = ["track=delay", "track.delays=[0,2,5]", "samplers=[ddim-2,ddim-4]", "execute_steps=3"]


def evaluate(*arguments):
    assert main(["evaluate", *arguments]) == 0


def rows(directory):
    """The rows of episodes.csv without what is measured, in an order of their own."""
    with (directory / "episodes.csv").open() as file:
        found = [{name: cell for name, cell in row.items() if name not in MEASURED} for row in csv.DictReader(file)]
    return sorted(found, key=lambda row: (row["condition"], row["seed"]))


def summary(directory):
    return json.loads((directory / "summary.json").read_text())


@pytest.mark.usefixtures("without_plots")
def test_the_delay_track_is_the_same_to_the_bit_however_it_is_run(arguments, tmp_path, monkeypatch):
    """Again, in two processes, interrupted, extended, and on a machine that is much slower."""
    once = ["episodes=2", "stitching=[continue_chunk,temporal_ensembling]", "track.delays=[0,5]"]
    evaluate(*arguments, *DELAYS, *once)
    expected = rows(tmp_path / "out")
    assert len(expected) == 2 * 2 * 2 * 2 and len({row["return"] for row in expected}) > 12
    evaluate(*arguments, *DELAYS, *once, f"output={tmp_path / 'two'}", "workers=2")
    assert rows(tmp_path / "two") == expected
    evaluate(*arguments, *DELAYS, "episodes=1", "track.delays=[5]", f"output={tmp_path / 'grown'}")
    with (tmp_path / "grown" / "episodes.csv").open("a") as file:
        file.write("drift,ddim-4 d2")  # the torn line of a kill while writing
    evaluate(*arguments, *DELAYS, *once, f"output={tmp_path / 'grown'}")
    assert rows(tmp_path / "grown") == expected
    clock = iter(range(10**9))
    monkeypatch.setattr("specpolicy.control.planner.time.perf_counter", lambda: 7.0 * next(clock))
    evaluate(*arguments, *DELAYS, *once, f"output={tmp_path / 'slow'}")
    assert rows(tmp_path / "slow") == expected


@pytest.mark.usefixtures("without_plots")
def test_the_steps_that_no_chunk_covers_are_counted(arguments, tmp_path):
    """Chunks of 7 actions: at a delay of 5 and a horizon of 5, three steps of five have no action."""
    evaluate(*arguments, *DELAYS, "episodes=2", "hold=[0,0]", "+task.kwargs.max_steps=28", "task.kwargs.radius=99")
    timing = {condition["label"]: condition["timing"] for condition in summary(tmp_path / "out")["conditions"]}
    assert timing["ddim-4 d0 e3"]["starved_steps"] == timing["ddim-4 d2 e3"]["starved_steps"] == 0
    # Two chunks for step 0 cover steps 0 to 6; then, every five steps, two actions are left of each.
    assert timing["ddim-4 d5 e5"]["starved_steps"] == 2 * 13
    assert timing["ddim-4 d5 e5"]["starved_share"] == pytest.approx(13 / 28)
    assert timing["ddim-4 d5 e5"]["delay_steps"] == {"mean": 5.0, "max": 5}
    assert timing["ddim-4 d2 e3"]["observation_age"] == pytest.approx(0.29, abs=0.03)  # 0.2 to 0.4 s, less at first
    assert timing["ddim-4 d5 e5"]["expired_share"] == timing["ddim-4 d5 e5"]["late_share"] == 0
    assert timing["ddim-4 d0 e3"]["switch_jump"] > 0 < timing["ddim-4 d0 e3"]["inner_jump"]


@pytest.mark.usefixtures("without_plots")
def test_a_recorded_trace_is_charged_in_place_of_the_measured_times(arguments, tmp_path):
    trace = tmp_path / "calls.csv"
    trace.write_text("sampler,seconds\nddpm,0.31\nddim-4,0.02\n")
    settings = ["track=charged", f"track.trace={trace}", "samplers=[ddpm,ddim-4]", "episodes=3"]
    evaluate(*arguments, *settings, "task.kwargs.radius=99")
    found = summary(tmp_path / "out")
    delays = {condition["label"]: condition["timing"]["delay_steps"]["mean"] for condition in found["conditions"]}
    assert delays == {"ddpm": 0, "ddim-4": 0, "ddpm trace": 4, "ddim-4 trace": 1}
    times = {condition["label"]: condition["chunk_seconds"]["p95"] for condition in found["conditions"]}
    assert times == {"ddpm": 0.31, "ddim-4": 0.02, "ddpm trace": 0.31, "ddim-4 trace": 0.02}
    kinds = [(difference["condition"], difference["reference"]) for difference in found["differences"]]
    assert ("ddpm trace", "ddpm") in kinds and ("ddim-4 trace", "ddpm trace") in kinds
    before = rows(tmp_path / "out")
    moved = trace.rename(tmp_path / "elsewhere.csv")
    evaluate(*arguments, *settings, "task.kwargs.radius=99", f"track.trace={moved}")  # the same trace: nothing to do
    assert rows(tmp_path / "out") == before
    moved.write_text("sampler,seconds\nddpm,0.5\nddim-4,0.02\n")
    assert main(["evaluate", *arguments, *settings, "task.kwargs.radius=99", f"track.trace={moved}"]) == 2


@pytest.mark.usefixtures("without_plots")
def test_the_charged_clock_charges_what_each_call_took(arguments, tmp_path, monkeypatch):
    """A planner's stopwatch that says 0.1 s, then 0.3 s, and so on by turns."""
    durations = iter([0.1, 0.3] * 10_000)
    state = {"now": 0.0, "running": False}

    def perf_counter():
        state["now"] += next(durations) if state["running"] else 0.0
        state["running"] = not state["running"]
        return state["now"]

    monkeypatch.setattr("specpolicy.control.planner.time", type("Time", (), {"perf_counter": perf_counter}))
    evaluate(*arguments, "track=charged", "track.factors=[1]", "episodes=2", "task.kwargs.radius=99")
    with (tmp_path / "out" / "chunks.csv").open() as file:
        chunks = [row for row in csv.DictReader(file) if row["chunk"] != "0" and row["used_at"]]
    assert len(chunks) > 6
    for row in chunks:
        steps = int(np.ceil(float(row["seconds"]) * 10 - 1e-9))
        assert steps in (1, 3) and int(row["used_at"]) - int(row["step"]) == steps


def test_the_budget_track_reports_the_best_setting_of_each_method(arguments, tmp_path):
    samplers = "samplers=[ddpm,ddim-2,ddim-4,expert]"
    settings = ["track=budget", "track.budgets_ms=[0.001,10000]", "episodes=3"]
    assert main(["evaluate", *arguments, samplers, *settings]) == 2  # the task has no scripted expert
    evaluate(*arguments, samplers.replace(",expert", ""), *settings)
    found = summary(tmp_path / "out")["budgets"]
    assert [(entry["method"], entry["budget_ms"]) for entry in found] == [
        ("ddpm", 0.001),
        ("ddpm", 10000),
        ("ddim", 0.001),
        ("ddim", 10000),
    ]
    assert [bool(entry["settings"]) for entry in found] == [False, True, False, True]
    assert found[1]["settings"] == ["ddpm charged"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Within a latency budget" in page and "success against latency budget" not in page


def test_the_report_of_a_delay_track(arguments, tmp_path, capsys):
    evaluate(*arguments, *DELAYS, "track.swept_execute_steps=[1,3]", "track.delays=[0,1]", "episodes=2")
    page = (tmp_path / "out" / "report.html").read_text()
    captions = re.findall("<figcaption>([^<]+)</figcaption>", page)
    assert captions[0].startswith("Success against the delay of inference. A chunk is requested every 3 control steps")
    assert captions[1].startswith("Success against the number of actions of a chunk")
    assert "Timing of the chunks" in page and "reproducible" not in page and "to the bit" in page
    assert "A control step is 100 ms" in page and "within 5 points" in page
    printed = capsys.readouterr().out
    assert "6 conditions. 2 episodes of each condition" in printed and "delay" in printed.splitlines()[1]


@pytest.mark.usefixtures("without_plots")
def test_a_condition_that_starves_can_be_stopped(arguments, tmp_path):
    evaluate(*arguments, *DELAYS, "on_miss=stop", "episodes=1", "task.kwargs.radius=99")
    lengths = {row["condition"]: int(row["length"]) for row in rows(tmp_path / "out")}
    assert lengths["ddim-4 d0 e3 on_miss stop"] == 30 > lengths["ddim-4 d5 e5 on_miss stop"]


@pytest.mark.parametrize(
    "extra, message",
    (
        (["track=dealy"], "did you mean 'delay'"),
        (["track=delay", "track.delay=3"], "did you mean 'track.delays'"),
        (["track=delay", "track.delays=[0,x]"], "track.delays"),
        (["track=charged", "track.trace=nowhere.csv"], "nowhere.csv"),
        (["stitching=glue"], "unknown stitching 'glue'"),
        (["execute_steps=0"], "execute_steps=0"),
        (["hold=[0]"], "hold has 1 entries"),
        (["hold=still"], "hold=still"),
        (["margin=2.0"], "margin"),
        (["references=[ddim]"], "no sampler is called 'ddim'"),
        (["engine=steam"], "unknown engine 'steam'"),
    ),
)
def test_mistakes_are_refused_in_one_line(arguments, tmp_path, capsys, extra, message):
    assert main(["evaluate", *arguments, "episodes=1", *extra]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1, error
    assert not (tmp_path / "out").exists()


def test_everything_reaches_wandb(arguments, tmp_path, monkeypatch):
    """A real offline run, read back."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "staged"))
    evaluate(*arguments, *DELAYS, "episodes=2", "videos=1", "logger=wandb")
    output = tmp_path / "out"
    (directory,) = (output / "wandb").glob("offline-run-*")
    run, found = read_run(directory), summary(output)
    assert run.name == "out" and run.config["track"]["delays"] == [0, 2, 5] and run.config["episodes"] == 2
    assert run.config["task"]["id"] == "drift_env:Drift-v0"
    table = json.loads((directory / "files" / run.logged("results/path")).read_text())
    logged = [dict(zip(table["columns"], line, strict=True)) for line in table["data"]]
    assert len(logged) == len(found["conditions"]) == 6
    for line, condition in zip(logged, found["conditions"], strict=True):
        assert (line["label"], line["delay"], line["successes"]) == (
            condition["label"],
            condition["delay"],
            condition["successes"],
        )
        assert line["success_rate_low"] == pytest.approx(condition["success_rate"]["low"])
        assert line["chunk_seconds_p95"] == pytest.approx(condition["chunk_seconds"]["p95"])
        assert line["starved_share"] == pytest.approx(condition["timing"]["starved_share"])
        assert run.summary[f"{condition['label']}/calls"] == pytest.approx(condition["calls"])
        video = run.logged(f"videos/{condition['label']}-100000/path")
        assert (directory / "files" / video).read_bytes() == (output / condition["videos"][0]["path"]).read_bytes()
    differences = json.loads((directory / "files" / run.logged("differences/path")).read_text())
    assert len(differences["data"]) == len(found["differences"]) == 3 + 2 * 2
    plots = {key.split("/")[1] for row in run.rows for key in row if key.startswith("plots/") and key.endswith("/path")}
    assert {"Success against delay", "Success against latency", "Time per chunk", "Calls per chunk"} <= plots
    for plot in plots:
        file = output / f"plot_{plot.lower().replace(' ', '_')}.png"
        assert (directory / "files" / run.logged(f"plots/{plot}/path")).read_bytes() == file.read_bytes()
    assert {"report.html", "summary.json", "episodes.csv", "chunks.csv"} <= set(run.files)
    assert (directory / "files" / "report.html").read_text() == (output / "report.html").read_text()
    check_episodes(run, directory, found, output)
    rates = [row for row in run.rows if "ddim-4 d2 e3/success_rate" in row]
    assert rates and all("step" in row for row in rates)


def check_episodes(run, directory, found, output):
    """The table of episodes holds those of episodes.csv, and beside each that was filmed its video."""
    rows = list(csv.DictReader((output / "episodes.csv").open()))
    (table,) = (one for name, one in run.artifacts.items() if name.endswith("-episodes"))
    assert table.kind == "run_table"
    shown = json.loads(table.files["episodes.table.json"])
    assert shown["columns"] == [*rows[0], "video"] and len(shown["data"]) == len(rows) == 12
    videos = {
        (condition["label"], video["seed"]): video["path"]
        for condition in found["conditions"]
        for video in condition["videos"]
    }
    assert len(videos) == 6  # the first episode of each condition
    for line, row in zip((dict(zip(shown["columns"], line, strict=True)) for line in shown["data"]), rows, strict=True):
        assert line["condition"] == row["condition"] and line["success"] == float(row["success"])
        assert line["chunk_seconds_p50"] == float(row["chunk_seconds_p50"])
        path = videos.get((row["condition"], int(row["seed"])))
        assert (line["video"] is None) == (path is None)
        if path is not None:
            assert line["video"]["_type"] == "video-file"
            assert table.files[line["video"]["path"]] == (output / path).read_bytes()


def test_columns_are_those_of_the_document():
    """docs/evaluation.md names the columns of the report, and what a latency trace needs."""
    text = DOCUMENT.read_text()
    table = text.split("| column of the report | meaning |")[1].split("\n\n")[0]
    described = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")]
    head = timing_table({"conditions": []})[0]
    assert len(described) == 6
    for name in ", ".join(described).split(", "):
        assert any(column.startswith(name) for column in head), name
    sentence = re.search(r"`track.trace` is a CSV\s+file with the columns (.*?), such as the `chunks.csv`", text, re.S)
    assert set(re.findall("`([a-z]+)`", sentence[1])) == {"sampler", "seconds"} < set(results.CHUNK_COLUMNS)
    counts = re.search(r"\s+columns (`calls` and `rows`); without these columns", text, re.S)
    assert set(re.findall("`([a-z]+)`", counts[1])) == {"calls", "rows"} < set(results.CHUNK_COLUMNS)


def test_the_announced_numbers_of_episodes_are_those_of_the_document():
    text = " ".join(DOCUMENT.read_text().split())
    sentence = re.search(r"Showing equality within 5 points takes (\d+) episodes where 99 % .*?\.", text)
    found = [int(number) for number in re.findall(r"(\d+)(?! ?[%\d])(?! points)", sentence[0].split("takes")[1])]
    assert found == [episodes_for_equivalence(0.05, success) for success in (0.99, 0.95, 0.9)]
