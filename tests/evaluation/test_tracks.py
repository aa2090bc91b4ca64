"""Tracks as lists of conditions: which, in which order, with which clocks; and what is compared with what."""

import pytest

from specpolicy import SpecpolicyError
from specpolicy.control.clock import ChargedClock, DelayClock, PausedClock
from specpolicy.evaluation.comparisons import pairs
from specpolicy.evaluation.conditions import Condition, method
from specpolicy.evaluation.tracks import Joining, budgets, make_conditions, times_are_measured

DELAY = {"name": "delay", "delays": [0, 1, 8], "swept_execute_steps": [2, 4], "swept_at": 1}
CHARGED = {"name": "charged", "factors": [0, 1, 0.5], "trace": None}
BUDGET = {"name": "budget", "budgets_ms": [50, 10], "factor": 2.0, "trace": None}


def labels(conditions):
    return [condition.label for condition in conditions]


def test_classic_evaluation_is_a_condition_for_each_sampler():
    conditions = make_conditions({"name": "paused"}, ["ddpm", "ddim-4"], Joining())
    assert labels(conditions) == ["ddpm", "ddim-4"]
    assert all(isinstance(condition.make_clock(20), PausedClock) and condition.waits for condition in conditions)


def test_each_delay_has_the_shortest_horizon_it_allows_and_then_the_horizons_vary():
    conditions = make_conditions(DELAY, ["ddpm"], Joining(), n_action_steps=4)
    assert labels(conditions) == ["ddpm d0 e4", "ddpm d1 e4", "ddpm d8 e8", "ddpm d1 e2"]  # d1 e4 is there already
    assert [condition.execution.execute_steps for condition in conditions] == [4, 4, 8, 2]
    clock = conditions[2].make_clock(20)
    assert isinstance(clock, DelayClock) and clock.usable_step(3, 99.0) == 11
    assert labels(make_conditions(DELAY, ["ddpm"], Joining(execute_steps=1), 4))[:2] == ["ddpm d0 e1", "ddpm d1 e1"]


def test_samplers_and_ways_of_stitching_are_crossed():
    joining = Joining(stitching=("continue_chunk", "sync_pause"), hold=(0.0, None))
    conditions = make_conditions(CHARGED, ["ddpm", "asd"], joining)
    assert labels(conditions) == [
        "ddpm",
        "asd",
        "ddpm sync_pause",
        "asd sync_pause",
        "ddpm charged x0.5",
        "asd charged x0.5",
        "ddpm charged x0.5 sync_pause",
        "asd charged x0.5 sync_pause",
        "ddpm charged",
        "asd charged",
        "ddpm charged sync_pause",
        "asd charged sync_pause",
    ]
    assert all(condition.execution.hold == (0.0, None) for condition in conditions)
    clock = conditions[4].make_clock(10)
    assert isinstance(clock, ChargedClock) and clock.usable_step(0, 0.5) == 3


@pytest.mark.parametrize("track, name", ((DELAY, "delays"), (CHARGED, "factors")))
def test_conditions_rise_in_whatever_order_they_are_given(track, name):
    """The cheapest one comes first, for it is the one that the others are compared with."""
    rising = make_conditions({**track, name: sorted(track[name])}, ["ddpm", "asd"], Joining(), 4)
    falling = make_conditions({**track, name: sorted(track[name], reverse=True)}, ["ddpm", "asd"], Joining(), 4)
    assert falling == rising and rising[0].waits
    references = {reference.label for _, reference, kind in pairs(falling) if kind == "circumstances"}
    assert references == {condition.label for condition in rising if condition.waits}


def test_a_trace_takes_the_place_of_the_measured_times(tmp_path):
    trace = tmp_path / "calls.csv"
    trace.write_text("sampler,seconds\nddpm,0.25\nasd,0.05\n")
    conditions = make_conditions({**CHARGED, "factors": [1, 2], "trace": str(trace)}, ["ddpm", "asd"], Joining())
    assert labels(conditions) == ["ddpm trace", "asd trace", "ddpm trace x2", "asd trace x2"]
    assert [condition.make_clock(10).usable_step(0, 99.0) for condition in conditions] == [3, 1, 5, 1]
    assert not times_are_measured({**CHARGED, "trace": str(trace)}) and times_are_measured(CHARGED)
    digest = conditions[0].trace_digest
    trace.write_text("sampler,seconds\nddpm,0.26\nasd,0.05\n")
    assert make_conditions({**CHARGED, "trace": str(trace)}, ["ddpm"], Joining())[1].trace_digest != digest
    with pytest.raises(SpecpolicyError, match="no calls of 'block'"):
        make_conditions({**CHARGED, "trace": str(trace)}, ["block"], Joining())


def test_budgets_are_played_on_the_charged_clock():
    assert labels(make_conditions(BUDGET, ["ddpm"], Joining())) == ["ddpm charged x2"]
    assert budgets(BUDGET) == [10, 50] and budgets(DELAY) == []


@pytest.mark.parametrize(
    "track, joining, message",
    (
        ({"name": "maze"}, {}, "unknown track 'maze'"),
        ({**DELAY, "delays": []}, {}, "track.delays"),
        ({**DELAY, "delays": [1.5]}, {}, "track.delays"),
        ({**DELAY, "delays": [-1]}, {}, "track.delays"),
        ({**DELAY, "delays": [1, 1]}, {}, "given twice"),
        ({**DELAY, "swept_execute_steps": [0]}, {}, "track.swept_execute_steps"),
        ({**DELAY, "swept_execute_steps": [2], "swept_at": 3}, {}, "less than the delay of 3"),
        ({**CHARGED, "factors": [-1]}, {}, "below zero"),
        ({**CHARGED, "factors": ["fast"]}, {}, "track.factors"),
        ({**BUDGET, "factor": 0}, {}, "track.factor"),
        ({**BUDGET, "budgets_ms": [0]}, {}, "track.budgets_ms"),
        ({"name": "paused"}, {"stitching": ()}, "stitching is empty"),
        ({"name": "paused"}, {"stitching": ("glue",)}, "unknown stitching 'glue'"),
        ({"name": "paused"}, {"on_miss": "panic"}, "unknown on_miss 'panic'"),
        ({"name": "paused"}, {"in_flight": 2}, "in_flight=2: the world waits for each chunk"),
        (CHARGED, {"in_flight": 2}, "in_flight=2: times are measured one chunk after the other"),
    ),
)
def test_what_makes_no_experiment_is_refused(track, joining, message):
    with pytest.raises(SpecpolicyError, match=message):
        make_conditions(track, ["ddpm"], Joining(**joining), 4)


def test_conditions_are_compared_across_samplers_and_with_their_own_first_condition():
    conditions = [*make_conditions({**CHARGED, "factors": [0, 1]}, ["ddpm", "asd"], Joining()), Condition("expert")]
    found = {(condition.label, reference.label, kind) for condition, reference, kind in pairs(conditions)}
    assert found == {
        ("asd", "ddpm", "sampler"),
        ("asd charged", "ddpm charged", "sampler"),
        ("expert", "ddpm", "sampler"),
        ("ddpm charged", "ddpm", "circumstances"),
        ("asd charged", "asd", "circumstances"),
    }


def test_several_references_are_each_compared_once():
    conditions = make_conditions({"name": "paused"}, ["ddpm", "ddim-10", "asd"], Joining())
    found = [(condition.label, reference.label) for condition, reference, _ in pairs(conditions, ["ddpm", "ddim-10"])]
    assert found == [("ddim-10", "ddpm"), ("asd", "ddpm"), ("asd", "ddim-10")]


def test_settings_belong_to_methods():
    specs = {
        "ddim": {"name": "ddim", "steps": 4},
        "dpm_solver": {"name": "dpm_solver", "steps": 10},
        "asd": {"name": "asd", "window": 8, "steps": None},
        "recycled-16": {"name": "recycled", "steps": 16},
        "ddpm": {"name": "ddpm"},
    }
    assert {name: method(spec) for name, spec in specs.items()} == {name: name for name in specs}


def test_another_distribution_is_another_method():
    usual = {"name": "ddim", "steps": 10, "eta": 0}
    assert method(usual) == method({**usual, "eta": 0.0}) == "ddim"
    assert method({**usual, "eta": 1}) == method({**usual, "eta": 1.0, "steps": 4}) == "ddim-eta1.0"
    assert method({"name": "asd", "steps": 16, "eta": 0.5}) == "asd-16-eta0.5"
    assert method({"name": "picard", "tolerance": 0.1, "window": 8}) == "picard"
    assert method({"name": "picard", "tolerance": 0.01, "window": None}) == "picard-tolerance0.01"
