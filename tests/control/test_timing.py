"""The timing report against figures worked out by hand."""

import gc
import json

import numpy as np
import pytest

from specpolicy.control.report import timing_report
from specpolicy.control.ticks import Tick, Ticks
from specpolicy.control.timing import ChunkTiming, RunEnd, TimingLog, longest_run, quantiles, spread


@pytest.fixture
def log() -> TimingLog:
    """Six ticks at 10 Hz, period 3 missed, step 5 starved; five chunks, three of them late, the last never there."""
    steps, times, ages = (0, 1, 2, 4, 5, 6), (0.0, 0.101, 0.2, 0.41, 0.5, 0.6), (0.0, 0.1, 0.2, 0.1, None, 0.3)
    chunks = (0, 0, 0, 1, None, 2)
    jumps = (None, 0.1, 0.1, 0.7, 0.0, 0.5)
    return TimingLog(
        10,
        "wall",
        "thread",
        warm_up=3,
        lead=1,
        chunks=[
            ChunkTiming(0, 0, 0.10, 0.05, 10, 20, encode_seconds=0.02),
            ChunkTiming(2, 3, 0.20, 0.10, 10, 20, missed=True, late_steps=1),
            ChunkTiming(4, 5, 0.30, 0.15, 20, 40, missed=True, late_steps=2, expired=True),
            ChunkTiming(5, 6, 0.40, 0.20, 20, 40, encode_seconds=0.08),
            ChunkTiming(6, 7, missed=True),
        ],
        ticks=Ticks(
            Tick(step, time, age, chunk, limited=step == 2, jump=jump)
            for step, time, age, chunk, jump in zip(steps, times, ages, chunks, jumps, strict=True)
        ),
    )


def test_the_summary_by_hand(log):
    summary = log.summary()
    assert summary["chunks"] == 4 and summary["warm_up"] == 3
    assert summary["latency"]["p50"] == pytest.approx(0.25) and summary["latency"]["max"] == 0.4
    assert (summary["calls"], summary["rows"], summary["network_share"]) == (15, 30, pytest.approx(0.5))
    assert summary["encode_share"] == pytest.approx(0.1)
    assert (summary["misses"], summary["miss_rate"], summary["longest_run_of_misses"]) == (3, 0.6, 2)
    assert summary["lateness"]["max"] == pytest.approx(0.2) and summary["expired_chunks"] == 1
    assert (summary["ticks"], summary["missed_periods"], summary["starved_ticks"]) == (6, 1, 1)
    assert summary["achieved_hz"] == pytest.approx(5 / 0.6)
    # Intervals: 0.101, 0.099, 0.21 of two periods, 0.09, 0.1.
    assert summary["jitter"]["max"] == pytest.approx(0.01)
    assert summary["jitter"]["std"] == pytest.approx(np.std([0.001, -0.001, 0.01, -0.01, 0.0]))
    assert summary["tick_lateness"]["max"] == pytest.approx(0.01)
    assert summary["observation_age"]["max"] == 0.3 and summary["observation_age"]["mean"] == pytest.approx(0.14)
    assert summary["limited_actions"] == 1
    # Two switches, the second one across a held action: from that to the new chunk.
    assert log.boundary_jumps == pytest.approx([0.7, 0.5]) and summary["boundary_jump"]["max"] == 0.7


def test_the_summary_is_json_and_the_report_names_its_figures(log):
    summary = json.loads(json.dumps(log.summary()))
    report = timing_report(summary)
    for words in (
        "10 Hz, wall clock, inference in a thread",
        "6 in 0.6 s, 8.333 Hz achieved, 1 periods missed",
        "p50 250.0, p95 385.0, p99 397.0, max 400.0 ms, 3 of warm-up left out",
        "15 network calls and 30 rows each, 50% of the time in the network and 10% in encoding",
        "3 (60.0%), longest run 2, late by p50 150",
        "1 too late to be of use",
        "starved ticks    1 ",
        "changed 1 actions",
    ):
        assert words in report, report


@pytest.mark.parametrize(
    "end, words",
    (
        (RunEnd("SIGTERM", 0.0004, 0.02), "SIGTERM; robot.stop() was called 0.4 ms after that and took 20.0 ms"),
        (RunEnd("until()", 0.0, None), "until(); robot.stop() was called 0.0 ms after that and has not come back"),
    ),
)
def test_the_report_says_how_the_run_ended(log, end, words):
    assert log.summary()["end"] is None and "robot.stop()" not in timing_report(log.summary())
    log.end = end
    summary = json.loads(json.dumps(log.summary()))
    assert summary["end"]["stop_after"] == end.stop_after and words in timing_report(summary)


def test_a_run_that_never_began_has_a_report_too():
    summary = json.loads(json.dumps(TimingLog(20, "wall", "process").summary()))
    assert summary["latency"] is summary["jitter"] is summary["achieved_hz"] is None
    assert "none measured" in timing_report(summary)


def test_small_parts():
    assert [longest_run(flags) for flags in ([], [False], [True], [True, False, True, True])] == [0, 0, 1, 2]
    assert quantiles([]) is None and quantiles([2.0])["p99"] == 2.0
    assert spread(np.array([])) is None and spread(np.array([-1.0, 1.0]))["mean"] == 1.0


def test_ticks_come_back_as_they_were_and_give_the_collector_nothing_to_do():
    kept = [Tick(0, 0.0, None, None), Tick(3, 0.31, 0.2, 0, limited=True, jump=0.5), Tick(4, 0.4, 0.0, 1)]
    ticks = Ticks(kept)
    assert list(ticks) == kept and ticks[-1] == kept[-1] and ticks[:2] == kept[:2] and len(ticks) == 3
    many = Ticks(Tick(step, 0.1 * step, 0.1, step) for step in range(1000))
    gc.collect()
    followed = len(gc.get_objects())
    for step in range(1000):
        many.append(Tick(step, 0.1 * step, 0.1, step))
    assert len(many) == 2000 and len(gc.get_objects()) < followed + 100
