"""The figures of the summary, from episodes made by hand: which times, which calls, which weights."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from specpolicy.control.chunk import Chunk
from specpolicy.control.ticks import Tick, Ticks
from specpolicy.control.timing import ChunkTiming, TimingLog
from specpolicy.control.trace import trace_digest
from specpolicy.evaluation.conditions import Condition
from specpolicy.evaluation.costs import chunk_figures
from specpolicy.evaluation.episode import Episode
from specpolicy.evaluation.player import Setup
from specpolicy.evaluation.plots import write_plots
from specpolicy.evaluation.results import Results
from specpolicy.evaluation.runner import Evaluation
from specpolicy.evaluation.summary import summarise
from specpolicy.evaluation.tables import results_table

SAMPLERS = {
    "asd": {"name": "asd", "window": 4},
    "ddim-10": {"name": "ddim", "steps": 10, "eta": 0.0},
    "ddim-10-eta1.0": {"name": "ddim", "steps": 10, "eta": 1.0},
    "expert": {"name": "expert"},
}
SECONDS = (0.010, 0.020, 0.030)  # of the chunks of every episode
TRACK = {"name": "charged", "execute_steps": 4, "swept_at": 1}


def episode(seed, success=True, length=10, timing=None, calls=7):
    chunks = [Chunk(np.zeros((1, 2)), each, each / 2, calls, 3 * calls, each / 4) for each in SECONDS] if length else []
    return Episode(seed, success, 1.0, length, length / 10, None, tuple(chunks), timing)


def summary(tmp_path, conditions, episodes, track=TRACK):
    """The summary of {condition: its episodes}, and the figures of all chunks."""
    setup = Setup(
        {"name": "drift"}, "unused", {condition.sampler: SAMPLERS[condition.sampler] for condition in conditions}
    )
    results = Results(tmp_path)
    for condition in conditions:
        for one in episodes:
            results.add("drift", condition, one, 4)
    evaluation = Evaluation(setup, tuple(conditions), len(episodes), seed=0)
    found = summarise(evaluation, results, tmp_path, {}, track, 0.05)
    json.dumps(found, allow_nan=False)
    return found, chunk_figures(evaluation, results)


def conditions_of(found):
    return {condition["label"]: condition for condition in found["conditions"]}


def test_times_are_those_that_the_world_was_charged(tmp_path):
    """A machine half as fast: twice the times, also against a budget; as measured where the world waits."""
    waits, moves = Condition("asd"), Condition("asd", clock="charged", factor=2.0)
    track = {**TRACK, "name": "budget", "budgets_ms": [40, 70]}
    found, figures = summary(tmp_path, [waits, moves], [episode(0), episode(1)], track)
    times = {label: condition["chunk_seconds"] for label, condition in conditions_of(found).items()}
    assert times["asd"]["p50"] == pytest.approx(0.020) and times["asd"]["max"] == pytest.approx(0.030)
    assert times["asd charged x2"] == {name: pytest.approx(2 * value) for name, value in times["asd"].items()}
    shares = [condition["network_share"] for condition in found["conditions"]]
    assert shares == pytest.approx([0.5, 0.5])
    assert [condition["encode_share"] for condition in found["conditions"]] == pytest.approx([0.25, 0.25])
    p95 = {label: 1e3 * time["p95"] for label, time in times.items()}
    assert p95["asd"] < 40 < p95["asd charged x2"] < 70
    settings = {entry["budget_ms"]: entry["settings"] for entry in found["budgets"]}
    assert settings[40] == ["asd"]  # the condition whose p95 is shown as 58 ms keeps no budget of 40
    rows = [row for row in Results(tmp_path).chunks.rows if row["condition"] == moves.label]
    assert [float(row["seconds"]) for row in rows[:3]] == list(SECONDS)  # the table keeps what was measured
    assert max(figures["asd"]["seconds"]) == 0.030


def test_an_condition_out_of_the_budget_keeps_none(tmp_path):
    track = {**TRACK, "name": "budget", "budgets_ms": [40]}
    found, _ = summary(tmp_path, [Condition("asd", clock="charged", factor=2.0)], [episode(0)], track)
    assert [entry["settings"] for entry in found["budgets"]] == [[]]


def test_with_a_trace_calls_and_rows_are_those_of_the_trace(tmp_path):
    trace = tmp_path / "recorded.csv"
    trace.write_text("sampler,seconds,calls,rows\nasd,0.1,4,50\nasd,0.3,6,70\nddim-10,0.2,10,10\n")
    charged = {"clock": "trace", "trace": str(trace), "trace_digest": trace_digest(trace)}
    conditions = [Condition("asd", **charged, factor=2.0), Condition("asd"), Condition("ddim-10")]
    found, figures = summary(tmp_path, conditions, [episode(0)])
    shown = conditions_of(found)
    assert (shown["asd trace x2"]["calls"], shown["asd trace x2"]["rows"]) == (5, 60)
    assert (shown["asd"]["calls"], shown["asd"]["rows"]) == (5, 60)  # of the same sampler the same figures
    assert (shown["ddim-10"]["calls"], shown["ddim-10"]["rows"]) == (7, 21)  # no trace is charged
    assert shown["asd trace x2"]["chunk_seconds"]["mean"] == pytest.approx(0.4)
    assert shown["asd"]["chunk_seconds"]["mean"] == pytest.approx(0.2)
    assert shown["asd"]["network_share"] is shown["asd"]["encode_share"] is None
    assert figures["asd"]["calls"].tolist() == [4, 6] and figures["asd"]["seconds"].tolist() == [0.1, 0.3]


def test_a_trace_that_does_not_tell_calls_shows_none(tmp_path):
    trace = tmp_path / "recorded.csv"
    trace.write_text("sampler,seconds\nasd,0.1\nddim-10,0.2\n")
    charged = {"clock": "trace", "trace": str(trace), "trace_digest": trace_digest(trace)}
    conditions = [*(Condition(name, **charged) for name in ("asd", "ddim-10")), Condition("expert")]
    found, figures = summary(tmp_path, conditions, [episode(0), episode(1, False)])
    assert [condition["calls"] for condition in found["conditions"]] == [None, None, 7] and found["conditions"][0][
        "rows"
    ] is None
    head, *lines = results_table(found)
    cells = [dict(zip(head, line, strict=True)) for line in lines]
    assert [cell["p95"] for cell in cells] == ["100", "200", "–"]  # times are known; the expert's would mean nothing
    assert [cell["calls"] for cell in cells] == ["–"] * 3
    assert set(figures) == {"asd", "ddim-10"} and set(figures["asd"]) == {"seconds"}
    plots = write_plots(found, figures, tmp_path)
    assert {"Success against latency", "Time per chunk"} < set(plots) and "Calls per chunk" not in plots


def test_another_distribution_has_its_own_line_in_a_budget(tmp_path):
    track = {**TRACK, "name": "budget", "budgets_ms": [100]}
    conditions = [Condition("ddim-10", clock="charged"), Condition("ddim-10-eta1.0", clock="charged")]
    found, _ = summary(tmp_path, conditions, [episode(0)], track)
    assert [(entry["method"], entry["settings"]) for entry in found["budgets"]] == [
        ("ddim", ["ddim-10 charged"]),
        ("ddim-eta1.0", ["ddim-10-eta1.0 charged"]),
    ]


def test_an_episode_that_the_reset_solves_is_in_no_rate(tmp_path):
    episodes = [episode(0, length=0), episode(1, length=20), episode(2, False, length=40)]
    found, _ = summary(tmp_path, [Condition("asd")], episodes)
    (condition,) = found["conditions"]
    assert condition["successes"] == 2 and condition["successes_per_minute"]["estimate"] == pytest.approx(60 / 6)
    assert all(math.isfinite(value) for value in condition["successes_per_minute"].values())
    found, figures = summary(tmp_path / "all", [Condition("asd")], [episode(0, length=0)])
    assert found["conditions"][0]["successes_per_minute"] is None and figures == {}
    assert "Success rate" in write_plots(found, figures, tmp_path)


def played(chunks, jumps):
    """The timing of an episode by the chunk behind each step, None where an action was held."""
    log = TimingLog(10, chunks=[ChunkTiming(0, 0) for _ in {*chunks} - {None}])
    log.ticks = Ticks(
        Tick(step, step / 10, None if chunk is None else 0.1, chunk, jump=jump)
        for step, (chunk, jump) in enumerate(zip(chunks, jumps, strict=True))
    )
    return log


def test_jumps_are_means_over_all_of_them(tmp_path):
    """A long episode counts more than a short one, by its jumps, and a switch across a held action is one."""
    short = played([0, 0, None, 1, 1], [None, 1.0, 9.0, 5.0, 2.0])
    long = played([0] * 8 + [1], [None, *[4.0] * 7, 3.0])
    episodes = [episode(0, length=5, timing=short), episode(1, length=9, timing=long)]
    found, _ = summary(tmp_path, [Condition("asd")], episodes)
    (condition,) = found["conditions"]
    assert condition["timing"]["switch_jump"] == pytest.approx(np.mean([5.0, 3.0]))
    assert condition["timing"]["inner_jump"] == pytest.approx(np.mean([1.0, 2.0, *[4.0] * 7]))
    only = replace(episodes[0], timing=played([0, None, 1], [None, 2.0, 6.0]), length=3)
    found, _ = summary(tmp_path / "held", [Condition("asd")], [only])
    timing = found["conditions"][0]["timing"]
    assert (timing["switch_jump"], timing["inner_jump"]) == (6.0, None)
