"""Stopping early: the sequence covers the difference at all times, and verdicts depend on outcomes alone."""

import itertools
import json
import math

import numpy as np
import pytest

from specpolicy.cli import main
from specpolicy.cluster import Processes
from specpolicy.evaluation import runner, settings, statistics
from specpolicy.evaluation.conditions import Condition
from specpolicy.evaluation.player import Setup
from specpolicy.evaluation.runner import Evaluation
from specpolicy.evaluation.sequential import PairCounts, compare, difference_sequence, log_capital
from specpolicy.evaluation.stopping import EarlyStop

ALPHA = 0.05
# Probabilities that only the first, and only the second, solves a seed.
WORLDS = [(0.1, 0.1), (0.2, 0.1), (0.4, 0.0)]


def simulated(only_first, only_second, evaluations, pairs, seed=0):
    """Counts (evaluations, pairs) of pairs that only the first or only the second has solved, after each pair."""
    drawn = np.random.default_rng(seed).random((evaluations, pairs))
    first = drawn < only_first
    return first.cumsum(axis=1), ((drawn < only_first + only_second) & ~first).cumsum(axis=1)


@pytest.mark.parametrize(("only_first", "only_second"), WORLDS)
def test_looking_after_every_pair_errs_no_more_often_than_promised(only_first, only_second):
    """2,000 evaluations of up to 100 pairs. False alarms of this test: under 1e-9, were the error rate 5 %."""
    evaluations, pairs = 2000, 100
    firsts, seconds = simulated(only_first, only_second, evaluations, pairs)
    numbers = np.arange(1, pairs + 1) * np.ones((evaluations, 1), int)
    seen, which = np.unique(
        np.stack([firsts, seconds, numbers - firsts - seconds], axis=-1).reshape(-1, 3), axis=0, return_inverse=True
    )
    difference = np.array([only_first - only_second])
    rich = np.array([log_capital(PairCounts(*map(int, counts)), difference)[0] >= -math.log(ALPHA) for counts in seen])
    missed = int(rich[which.reshape(evaluations, pairs)].any(axis=1).sum())
    assert missed <= ALPHA * evaluations + 6 * math.sqrt(ALPHA * (1 - ALPHA) * evaluations)
    assert missed > 0  # it says something


def test_an_interval_of_a_fixed_number_does_err_more_often():
    """The control: 95 % intervals of Newcombe, looked at after each pair, until one excludes what is true."""
    firsts, seconds = simulated(0.1, 0.1, 300, 200)
    intervals: dict[tuple[int, int, int], bool] = {}
    missed = 0
    for ones, twos in zip(firsts, seconds, strict=True):
        for number in range(10, 201):
            key = (int(ones[number - 1]), int(twos[number - 1]), number)
            if key not in intervals:
                first = np.repeat([True, False, False], [key[0], key[1], number - key[0] - key[1]])
                second = np.repeat([False, True, False], [key[0], key[1], number - key[0] - key[1]])
                found = statistics.paired_success_difference(first, second)
                intervals[key] = not found.low <= 0 <= found.high
            if intervals[key]:
                missed += 1
                break
    assert missed > 0.15 * 300


@pytest.mark.parametrize("difference", [-0.6, 0.0, 0.3])
def test_the_capital_is_a_fair_bet(difference):
    """Its expectation, over all outcomes of four pairs with that difference, is what the gambler began with."""
    only_first = 0.15 + max(0.0, difference)
    only_second = only_first - difference
    total = 0.0
    for outcomes in itertools.product((1, -1, 0), repeat=4):
        counts = PairCounts(outcomes.count(1), outcomes.count(-1), outcomes.count(0))
        chance = only_first**counts.first * only_second**counts.second * (1 - only_first - only_second) ** counts.same
        total += chance * math.exp(log_capital(counts, np.array([difference]))[0])
    assert total == pytest.approx(1.0)


def test_the_sequence_narrows_around_the_difference_and_mirrors_itself():
    widths = []
    for n in (10, 100, 1000):
        low, high = difference_sequence(PairCounts(3 * n // 10, n // 10, n - 4 * n // 10), ALPHA)
        assert -1 <= low < 0.2 < high <= 1
        widths.append(high - low)
        mirrored = difference_sequence(PairCounts(n // 10, 3 * n // 10, n - 4 * n // 10), ALPHA)
        assert mirrored == pytest.approx((-high, -low), abs=2e-3)
    assert widths[0] > 2 * widths[1] > 4 * widths[2]
    assert difference_sequence(PairCounts(0, 0, 0), ALPHA) == (-1, 1)


@pytest.mark.parametrize(
    ("ones", "twos", "same", "verdict"),
    [(30, 2, 20, "higher"), (2, 30, 20, "lower"), (0, 0, 400, "equivalent"), (3, 2, 10, "open")],
)
def test_verdicts(ones, twos, same, verdict):
    first, second = [True] * ones + [False] * (twos + same), [False] * ones + [True] * twos + [False] * same
    found = compare(first, second, ALPHA, 0.05)
    assert found.verdict == verdict and found.pairs == ones + twos + same
    assert found.low <= found.estimate <= found.high


def stop(seeds=range(60), labels=("a", "b"), references=()):
    return EarlyStop([Condition(label) for label in labels], references, seeds, ALPHA, 0.05)


def test_the_verdict_does_not_depend_on_the_order_in_which_episodes_end():
    rng = np.random.default_rng(3)
    outcomes = {("a", seed): bool(rng.random() < 0.3) for seed in range(60)}
    outcomes |= {("b", seed): bool(rng.random() < 0.8) for seed in range(60)}
    found = []
    for order in ("as they come", "shuffled", "solved ones first"):
        looked = stop()
        episodes = list(outcomes.items())
        if order == "shuffled":
            rng.shuffle(episodes)
        elif order == "solved ones first":
            episodes.sort(key=lambda one: not one[1])
        for (label, seed), success in episodes:
            looked.add(label, int(seed), bool(success))
        found.append(looked.summary())
    assert found[0] == found[1] == found[2]
    (one,) = found[0]["comparisons"]
    assert one["verdict"] == "higher" and 5 < one["pairs"] < 60


def test_a_decided_condition_is_played_no_more_and_its_reference_as_long_as_it_is_needed():
    looked = stop(labels=("a", "b", "c"))
    for seed in range(60):
        looked.add("a", seed, seed % 2 == 0)
        looked.add("b", seed, True)
        if seed < 5:
            looked.add("c", seed, seed % 2 == 0)
    assert looked.needs("a") and not looked.needs("b") and looked.needs("c")
    for seed in range(5, 60):
        looked.add("c", seed, seed % 2 == 1)
    # The same rate, and no pair of equal outcomes but five: 60 pairs do not tell.
    assert looked.needs("a") and looked.needs("c")


def test_a_condition_that_no_sampler_is_compared_in_is_played_too():
    """The expert has one condition on a track whose others have several."""
    conditions = [Condition("ddpm"), Condition("ddpm", clock="charged"), Condition("expert")]
    looked = EarlyStop(conditions, (), range(60), ALPHA, 0.05)
    assert all(looked.needs(condition.label) for condition in conditions)
    compared = {(one["condition"], one["reference"]) for one in looked.summary()["comparisons"]}
    assert compared == {("expert", "ddpm"), ("ddpm charged", "ddpm")}


def play(evaluation, output, workers=0):
    looked = EarlyStop(evaluation.conditions, [], evaluation.seeds, ALPHA, 0.4)
    results = settings.claim(evaluation, runner.check(evaluation), output)
    runner.play(evaluation, results, output, Processes(workers), stop=looked)
    return results, looked


def test_an_evaluation_stops_and_an_interrupted_one_stops_at_the_same_pair(drift_task, drift_policy, tmp_path):
    """In this little time the untrained policy never leaves the circle, however it is sampled."""
    task = {**drift_task, "kwargs": {"radius": 4.0, "max_steps": 4}}
    samplers = {"ddim-2": {"name": "ddim", "steps": 2}, "ddim-3": {"name": "ddim", "steps": 3}}
    conditions = tuple(map(Condition, samplers))
    evaluation = Evaluation(Setup(task, drift_policy, samplers), conditions, 40, seed=7)
    results, looked = play(evaluation, tmp_path / "one")
    (found,) = looked.summary()["comparisons"]
    assert found["verdict"] == "equivalent" and found["pairs"] < 40
    assert len(results.episodes.rows) == 2 * found["pairs"]
    # A prefix of the table, as after a kill, with a gap: the second condition lacks its third seed.
    (tmp_path / "two").mkdir()
    for name in ("settings.json", "chunks.csv"):
        (tmp_path / "two" / name).write_text((tmp_path / "one" / name).read_text())
    lines = (tmp_path / "one" / "episodes.csv").read_text().splitlines(keepends=True)
    (tmp_path / "two" / "episodes.csv").write_text("".join(lines[:6] + lines[7:9]))
    _, resumed = play(evaluation, tmp_path / "two")
    assert resumed.summary() == looked.summary()
    _, in_processes = play(evaluation, tmp_path / "three", workers=2)  # one may run ahead of the other
    assert in_processes.summary() == looked.summary()


@pytest.mark.usefixtures("without_plots")
def test_the_verb_reports_its_verdicts(drift_task, drift_policy, tmp_path, capsys):
    arguments = ["evaluate", "task=gym", f"task.id={drift_task['id']}", "+task.kwargs={radius: 4.0, max_steps: 4}"]
    common = [*arguments, f"policy={drift_policy}", "episodes=80", "workers=0", "videos=0", "engine=eager"]
    output = tmp_path / "out"
    assert main([*common, "samplers=[ddim-2,ddim-3]", "stop=0.05", "margin=0.2", f"output={output}"]) == 0
    printed = capsys.readouterr().out
    (found,) = json.loads((output / "summary.json").read_text())["stopping"]["comparisons"]
    assert f"equal within 0.2 after {found['pairs']} pairs" in printed and found["pairs"] < 40
    assert "Stopped when enough was known" in (output / "report.html").read_text()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["stop=0"], "stop=0: expected the probability of a wrong verdict"),
        (["stop=0.7"], "stop=0.7"),
        (["stop=0.05", "samplers=[ddpm]"], "stop compares conditions, and there is one"),
        (["stop=0.05", "track=budget", "track.budgets_ms=[10]"], "leave stop out"),
    ],
)
def test_a_wrong_stop_is_one_line(drift_task, drift_policy, tmp_path, capsys, changes, words):
    arguments = ["evaluate", "task=gym", f"task.id={drift_task['id']}", f"policy={drift_policy}"]
    given = [] if any(change.startswith("samplers") for change in changes) else ["samplers=[ddpm,ddim-2]"]
    assert main([*arguments, *given, f"output={tmp_path / 'out'}", *changes]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert words in line
