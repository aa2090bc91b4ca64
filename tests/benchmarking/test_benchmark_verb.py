"""`specpolicy benchmark`: what it prints and writes, and what it refuses."""

import json
from pathlib import Path

import pytest

from specpolicy.benchmarking import measure as measuring
from specpolicy.benchmarking import report
from specpolicy.cli import main
from specpolicy.cli.benchmark import read_samplers
from specpolicy.cli.configuration import compose_verb
from specpolicy.control.trace import read_trace

FILES = {"table.md", "summary.json", "chunks.csv", "config.yaml"}
EVALUATION_TESTS = str(Path(__file__).parents[1] / "evaluation")


def benchmark(checkpoint, output, *more):
    common = [f"policy={checkpoint}", f"output={output}", "threads=1", "count=3", "engine=eager"]
    return main(["benchmark", *common, *more])


def files(output):
    """The names of what was written, beside what Hydra keeps."""
    return {path.name for path in output.iterdir() if path.name != ".hydra"} if output.exists() else set()


def test_the_table_names_the_engine_that_auto_is(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("SPECPOLICY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("specpolicy.engines.auto.time_engine", lambda engine, sizes: {1: float(engine.name != "eager")})
    assert benchmark(checkpoint, tmp_path / "out", "samplers=[ddim-4]", "engine=auto") == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["engine"] == "eager"
    assert "engine eager" in (tmp_path / "out" / "table.md").read_text()


def test_it_writes_and_prints_the_table(checkpoint, tmp_path, capsys):
    output = tmp_path / "out"
    arguments = ["samplers=[ddpm,ddim-4,asd,recycled]", "steps=[20,8]"]
    assert benchmark(checkpoint, output, *arguments) == 0
    assert files(output) == FILES
    labels = ["ddpm-20", "ddim-4", "asd-20", "recycled-20", "ddpm-8", "asd-8", "recycled-8"]
    summary = json.loads((output / "summary.json").read_text())
    assert [entry["label"] for entry in summary["samplers"]] == labels
    assert summary["reference"] == "ddpm-20" and summary["chunks"] == 3 and summary["steps"] == 20
    assert summary["network"]["trained"] and summary["engine"] == "eager" and summary["threads"] == 1
    drawn = {entry["label"]: entry["distribution"] for entry in summary["samplers"]}
    assert drawn["asd-20"] == drawn["ddpm-20"] == "own" and drawn["recycled-8"] == "own, 8 steps"
    shown, table = capsys.readouterr().out, (output / "table.md").read_text()
    for text in (shown, table):
        assert all(label in text for label in labels)
        assert f"time / {labels[0]}" in text and "3 chunks of each sampler" in text
    assert "launches outside (a call)" in table and "calls alone / ddpm-20" in table
    assert "One call of the network" in table
    assert "encoding, ms" in table and "encoding" not in shown  # by an encoder without weights
    assert max(map(len, shown.partition("chunks of each")[0].splitlines())) < 100  # fits into a terminal


def test_its_chunks_are_a_latency_trace(checkpoint, tmp_path):
    output = tmp_path / "out"
    assert benchmark(checkpoint, output, "samplers=[ddpm,asd]") == 0
    summary = json.loads((output / "summary.json").read_text())
    for entry in summary["samplers"]:
        seconds = read_trace(output / "chunks.csv", entry["label"])
        assert len(seconds) == 3 and seconds.max() == entry["seconds"]["max"]


def test_a_larger_network_is_timed_in_place_of_the_policys(checkpoint, tmp_path, capsys):
    own, other = tmp_path / "own", tmp_path / "other"
    assert benchmark(checkpoint, own, "samplers=[ddpm,asd]", "window=end") == 0
    capsys.readouterr()
    assert benchmark(checkpoint, other, "samplers=[ddpm,asd]", "window=end", "network={down_dims: [48, 96]}") == 0
    assert "Its weights are random" in capsys.readouterr().out
    small, large = (json.loads((output / "summary.json").read_text()) for output in (own, other))
    assert large["network"]["parameters"] > 2 * small["network"]["parameters"]
    assert not large["network"]["trained"] and "random" in (other / "table.md").read_text()
    for first, second in zip(small["samplers"], large["samplers"], strict=True):
        assert first["calls"] == second["calls"] and first["rows"] == second["rows"]


def test_the_fastest_windows_are_found(checkpoint, tmp_path):
    output = tmp_path / "out"
    assert benchmark(checkpoint, output, "samplers=[ddpm,asd,{name: block, window: 5}]", "window=tuned") == 0
    windows = {
        entry["label"]: entry["window"] for entry in json.loads((output / "summary.json").read_text())["samplers"]
    }
    assert windows["ddpm"] is None and windows["block-window5"] == "5"
    assert windows["asd"] in {"4", "6", "8", "12", "16", "to the end"}


def test_a_run_in_the_working_directory_has_its_name(checkpoint, tmp_path, monkeypatch, capsys):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    assert benchmark(checkpoint, ".", "samplers=[ddim-4]", "count=1") == 0
    assert "benchmark mine: 1/1" in capsys.readouterr().err


def test_another_run_replaces_the_results(checkpoint, tmp_path):
    output = tmp_path / "out"
    assert benchmark(checkpoint, output, "samplers=[ddpm]") == 0
    assert benchmark(checkpoint, output, "samplers=[ddim-4]") == 0
    assert files(output) == FILES
    assert "ddpm" not in (output / "chunks.csv").read_text() + (output / "table.md").read_text().partition("```")[0]


def test_an_interruption_leaves_earlier_results_and_no_half_ones(checkpoint, tmp_path, monkeypatch):
    output, draw, count = tmp_path / "out", measuring.Subject.draw, 0
    assert benchmark(checkpoint, output, "samplers=[ddpm]") == 0
    before = {name: (output / name).read_bytes() for name in FILES}

    def interrupted(*arguments):
        nonlocal count
        count += 1
        if count == 5:
            raise KeyboardInterrupt
        return draw(*arguments)

    monkeypatch.setattr(measuring.Subject, "draw", interrupted)
    assert benchmark(checkpoint, output, "samplers=[ddim-4]") == 130
    assert {name: (output / name).read_bytes() for name in files(output)} == before
    count = 0
    assert benchmark(checkpoint, tmp_path / "new", "samplers=[ddim-4]") == 130
    assert files(tmp_path / "new") <= {"config.yaml"}


def test_a_failure_to_write_leaves_no_summary_beside_tables_of_another_run(checkpoint, tmp_path, monkeypatch):
    output = tmp_path / "out"
    assert benchmark(checkpoint, output, "samplers=[ddpm]") == 0

    def full(summary):
        raise OSError(28, "No space left on device", "table.md")

    monkeypatch.setattr(report, "page", full)
    assert benchmark(checkpoint, output, "samplers=[ddim-4]") == 2
    assert files(output) == FILES - {"summary.json"}


def test_observations_can_be_recorded_first(checkpoint, policy_config, tmp_path, monkeypatch):
    from specpolicy.policy import load_policy
    from specpolicy.policy.histories import FILE, read_histories

    monkeypatch.syspath_prepend(EVALUATION_TESTS)
    (checkpoint / FILE).unlink()
    task = "task={name: drift, id: 'drift_env:Drift-v0', kwargs: {coverage: true}, observation_keys: null}"
    output = tmp_path / "out"
    assert benchmark(checkpoint, output, "samplers=[ddim-2]", "count=1", task) == 0
    assert files(output) == FILES | {FILE}
    histories = read_histories(output / FILE, load_policy(checkpoint))
    assert {len(values) for values in histories.values()} == {1}


def specs(*overrides):
    return read_samplers(compose_verb("benchmark", ["policy=none", *overrides]))


def test_windows_and_lengths_hold_for_the_samplers_that_set_none():
    found, tuned = specs("samplers=[ddpm,ddim,asd,{name: block, window: 4},{name: recycled, label: mine}]", "window=9")
    assert list(found) == ["ddpm", "ddim-10", "asd", "block-window4", "mine"] and not tuned
    assert [spec.get("window") for spec in found.values()] == [None, None, 9, 4, 9]
    found, tuned = specs("samplers=[ddim-4,asd-5,{name: recycled, label: mine}]", "steps=[100,16]", "window=tuned")
    assert list(found) == ["ddim-4", "asd-5", "mine-100", "mine-16"]
    assert tuned == ["asd-5", "mine-100", "mine-16"]
    found, tuned = specs("samplers=[asd,recycled]")
    assert [spec["window"] for spec in found.values()] == ["auto", "calibrated"]
    found, tuned = specs("samplers=[asd,recycled]", "window=end")
    assert [spec["window"] for spec in found.values()] == [None, None]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["samplers=[recycld]"], "unknown sampler 'recycld'; did you mean 'recycled'?"),
        (["samplers=[asd,asd]"], "two are called 'asd'"),
        (["samplers=[]"], "there is no sampler to measure"),
        (["samplers=[{name: asd, wndow: 3}]"], "has no option 'wndow'"),
        (["samplers=[{name: asd, eta: 0.0}]"], "adds no noise"),
        (["samplers=[{name: reflection, drafter: independent}]"], "needs draft_denoiser="),
        (["count=0"], "count=0: expected at least one chunk"),
        (["window=0"], "window=0: expected calibrated, tuned, end, or a number"),
        (["window=widest"], "window=widest: expected calibrated, tuned, end, or"),
        (["steps=[16,0]"], "expected numbers of steps"),
        (["steps=30", "samplers=[ddpm]"], "30"),
        (["steps=true"], "steps=True: expected numbers of steps"),
        (["device=meta"], "device=meta cannot be used here"),
        (["engine=egaer"], "unknown engine 'egaer': did you mean 'eager'?"),
        (["precision=float8"], "unknown precision 'float8'"),
        (["network=large"], "network=large: expected its options"),
        (["network={depth: 3}"], "network: unknown key 'depth'; known: kind,"),
        (["reference=asdf"], "reference=asdf: expected one of ddpm"),
        (["threads=0"], "threads=0: expected at least one"),
        (["device=abacus"], "device=abacus cannot be used here"),
        (["observations=nowhere.safetensors"], "no recorded observations at nowhere.safetensors"),
        (["smaplers=[ddpm]"], "unknown key 'smaplers'; did you mean 'samplers'?"),
    ],
)
def test_a_mistake_is_one_line(checkpoint, tmp_path, capsys, arguments, words):
    assert benchmark(checkpoint, tmp_path / "out", *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and words in captured.err.splitlines()[-1]
    assert "Traceback" not in captured.err
    assert not files(tmp_path / "out")


def test_without_observations_it_says_how_to_get_some(small_policy, tmp_path, capsys):
    bare = small_policy.save(tmp_path / "bare")
    assert benchmark(bare, tmp_path / "out") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert f"run `specpolicy calibrate policy={bare}`, or give task=" in line
    assert benchmark(bare, tmp_path / "out", "task=lft") == 2
    assert "unknown task 'lft'; did you mean 'lift'?" in capsys.readouterr().err
    assert benchmark(tmp_path / "nowhere", tmp_path / "out") == 2
    assert "no policy at" in capsys.readouterr().err
