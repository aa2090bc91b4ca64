"""The timing report against figures worked out by hand."""

import gc
import itertools
import json
import threading

import numpy as np
import pytest

from specpolicy.control.chunk_times import ChunkTimes
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


def random_log(ticks=400, chunks=60, seed=0):
    """A log in which everything happens that can: holes, held actions, late, expired and missing chunks."""
    random = np.random.default_rng(seed)
    steps = np.cumsum(random.integers(1, 3, ticks)) - 1
    behind = np.sort(random.integers(-1, chunks, ticks))
    behind[random.random(ticks) < 0.1] = -1
    log = TimingLog(50, "wall", "process", warm_up=3, lead=2)
    for number in range(chunks):
        timing = ChunkTiming(7 * number, 7 * number + 2, missed=bool(random.random() < 0.4))
        log.chunks.append(timing)
        if number < chunks - 2:
            timing.seconds, timing.network_seconds, timing.encode_seconds = random.random(3)
            timing.calls, timing.rows = (int(count) for count in random.integers(1, 100, 2))
            timing.late_steps = int(random.integers(0, 9)) if timing.missed else None
            timing.expired = bool(random.random() < 0.2)
            log.chunks.finish(number)
    for step, chunk in zip(steps.tolist(), behind.tolist(), strict=True):
        age = None if chunk < 0 else random.random()
        jump = None if random.random() < 0.1 else random.random()
        limited = bool(random.random() < 0.3)
        log.ticks.append(Tick(step, step / 50 + random.random() / 99, age, None if chunk < 0 else chunk, limited, jump))
    return log


def plain_figures(log):
    """The figures of the summary from one object after the other."""
    ticks, chunks, period = list(log.ticks), list(log.chunks), 1 / log.hz
    computed = [chunk for chunk in chunks if chunk.seconds is not None]
    total = sum(chunk.seconds for chunk in computed)
    times, steps = np.array([tick.seconds for tick in ticks]), np.array([tick.step for tick in ticks])
    planned = [tick for tick in ticks if tick.chunk is not None]
    pairs = [(before, tick) for before, tick in itertools.pairwise(planned) if tick.jump is not None]
    jumps = [tick.jump for before, tick in pairs if before.chunk != tick.chunk]
    late = [chunk.late_steps * period for chunk in chunks if chunk.missed and chunk.late_steps is not None]
    misses = sum(chunk.missed for chunk in chunks)
    return {
        "chunks": len(computed),
        "latency": quantiles([chunk.seconds for chunk in computed]),
        "calls": np.mean([chunk.calls for chunk in computed]),
        "rows": np.mean([chunk.rows for chunk in computed]),
        "network_share": sum(chunk.network_seconds for chunk in computed) / total,
        "encode_share": sum(chunk.encode_seconds for chunk in computed) / total,
        "misses": misses,
        "miss_rate": misses / len(chunks),
        "longest_run_of_misses": longest_run([chunk.missed for chunk in chunks]),
        "lateness": quantiles(late),
        "expired_chunks": sum(chunk.expired for chunk in chunks),
        "ticks": len(ticks),
        "seconds": ticks[-1].seconds - ticks[0].seconds,
        "achieved_hz": (len(ticks) - 1) / (ticks[-1].seconds - ticks[0].seconds),
        "jitter": spread(np.diff(times) - np.diff(steps) * period),
        "tick_lateness": quantiles(times - steps * period),
        "missed_periods": len({*range(ticks[-1].step)} - {tick.step for tick in ticks}),
        "observation_age": quantiles([tick.age for tick in ticks if tick.age is not None]),
        "starved_ticks": sum(tick.chunk is None for tick in ticks),
        "limited_actions": sum(tick.limited for tick in ticks),
        "boundary_jump": quantiles(jumps),
    }


@pytest.mark.parametrize("seed", range(5))
def test_the_summary_is_that_of_the_records_without_making_them(seed, monkeypatch):
    log, made = random_log(seed=seed), []
    wanted = plain_figures(log)
    for kind in (Tick, ChunkTiming):

        def count(self, *values, begin=kind.__init__, **named):
            made.append(self)
            begin(self, *values, **named)

        monkeypatch.setattr(kind, "__init__", count)
    found = log.summary()
    assert not made and len(list(log.ticks)) == len(made)  # those who are made are counted
    assert json.loads(json.dumps(found)) == found
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=1e-12, abs=1e-15), name
    assert found.keys() - wanted.keys() == {"clock", "worker", "hz", "lead", "warm_up", "end"}


def test_a_request_changes_until_it_is_finished():
    chunks = ChunkTimes()
    first, second = ChunkTiming(0, 2), ChunkTiming(4, 6)
    chunks.append(first)
    chunks.append(second)
    first.seconds, first.calls, first.missed, first.late_steps, first.expired = 0.25, 3, True, 0, True
    second.missed = True
    assert chunks[0] is first and list(chunks) == [first, second]
    wanted = {"seconds": [0.25, np.nan], "calls": [3, 0], "missed": [1, 1], "late_steps": [0, -1], "expired": [1, 0]}
    for finished in (None, 0, 1):
        if finished is not None:
            chunks.finish(finished)
        columns = chunks.columns()
        assert all(np.array_equal(columns[name], values, equal_nan=True) for name, values in wanted.items())
    assert list(chunks) == [first, second] and chunks[0] is not first and chunks[-1] == second


def test_finished_requests_give_the_collector_nothing_to_do():
    chunks = ChunkTimes()
    gc.collect()
    followed = len(gc.get_objects())
    for number in range(2000):
        chunks.append(ChunkTiming(number, number + 2))
        chunks.finish(number)
    assert len(chunks) == 2000 and len(gc.get_objects()) < followed + 100


def test_a_log_may_be_read_while_the_loop_writes_it():
    """An array that numpy looks into cannot grow: a report in the middle of a run would end it."""
    log, errors = TimingLog(50), []

    def write():
        try:
            for step in range(20_000):
                log.ticks.append(Tick(step, step / 50, 0.1, step // 8))
                if step % 8 == 0:
                    log.chunks.append(ChunkTiming(step, step + 2))
                if step % 8 == 4:
                    log.chunks.finish(step // 8)
        except BaseException as error:
            errors.append(error)

    writing = threading.Thread(target=write)
    writing.start()
    kept = []
    while writing.is_alive():
        kept.append((log.ticks.columns(), log.chunks.columns()))
        assert log.summary()["missed_periods"] == 0
    writing.join()
    assert not errors and len(log.ticks) == 20_000
    for ticks, chunks in kept:
        assert np.array_equal(ticks["step"], np.arange(len(ticks["step"])))
        assert np.array_equal(ticks["chunk"], ticks["step"] // 8)
        assert np.array_equal(chunks["due"], 8 * np.arange(len(chunks["due"])) + 2)
