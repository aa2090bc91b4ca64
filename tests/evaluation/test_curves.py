"""What the plots show: the front, and every point where the summary says it is."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex

from specpolicy.evaluation import cost_plots, curves, plots
from specpolicy.evaluation.figures import MARKS, colours

points = st.lists(st.tuples(st.integers(1, 8), st.integers(0, 6)), min_size=1, max_size=12)


@given(points)
def test_the_front_is_what_no_other_point_beats(found):
    front = curves._front(found)
    assert front == sorted(set(front)) and set(front) <= set(found)
    assert [y for _, y in front] == sorted({y for _, y in front})  # each step to the right is a step up
    for point in found:  # every point is on it, or is beaten by one on it: as quick, and as good
        assert any(x <= point[0] and y >= point[1] for x, y in front)
    for one, other in itertools.permutations(front, 2):
        assert not (one[0] <= other[0] and one[1] >= other[1])


def condition(sampler, rate, p95=0.1, **others):
    """As in summary.json, as far as plots read it."""
    usual = {"clock": "charged", "delay": 0, "factor": 1.0, "stitching": "continue_chunk", "execute_steps": 4}
    return {
        "label": sampler,
        "sampler": sampler,
        "chunk_seconds": {"p95": p95},
        "success_rate": {"estimate": rate, "low": rate - 0.1, "high": rate + 0.05},
        "timing": {"starved_steps": 0, "starved_share": 0.0},
        **usual,
        **others,
    }


def summary(conditions, **others):
    return {"conditions": conditions, "hz": 10.0, "episodes": 50, "budgets": [], **others}


def marks(axes):
    """(x, y, colour, mark, hollow) of every single mark."""
    return [
        (line.get_xdata()[0], line.get_ydata()[0], to_hex(line.get_color()).upper(), line.get_marker(), hollow)
        for line in axes.lines
        if len(line.get_xdata()) == 1 and line.get_marker() != "None"
        for hollow in [to_hex(line.get_markerfacecolor()) == "#ffffff"]
    ]


def test_success_against_latency():
    conditions = [
        condition("ddpm", 0.9, 0.4),
        condition("ddim-10", 0.7, 0.05),
        condition("asd", 0.6, 0.1),
        condition("ddpm", 0.95, 0.4, clock="paused", label="ddpm waits"),
    ]
    axes = curves.against_latency(summary(conditions), conditions).axes[0]
    palette = colours(summary(conditions))
    found = marks(axes)
    places = [(1e3 * one["chunk_seconds"]["p95"], one["success_rate"]["estimate"]) for one in conditions]
    np.testing.assert_allclose([(x, y) for x, y, *_ in found], places)
    assert [(colour, mark) for _, _, colour, mark, _ in found] == [palette[one["sampler"]] for one in conditions]
    assert [hollow for *_, hollow in found] == [False, False, False, True]
    front = axes.lines[0]  # of the conditions whose world moves on: asd is slower and worse than DDIM
    np.testing.assert_allclose(np.transpose(front.get_data()), [[50, 0.7], [400, 0.9]])
    bars = [line.get_ydata() for line in axes.lines if len(line.get_xdata()) == 2 and line is not front]
    np.testing.assert_allclose(bars, [[rate - 0.1, rate + 0.05] for rate in (0.9, 0.7, 0.6, 0.95)])


def test_every_sampler_and_way_of_stitching_looks_different():
    """Also the ninth sampler, which has the colour of the first."""
    conditions = [
        condition(f"s{number}", 0.5, stitching=stitching)
        for number in range(16)
        for stitching in ("continue_chunk", "naive_switch", "sync_pause", "temporal_ensembling")
    ]
    palette = colours(summary(conditions))
    assert len({curves._style(one, conditions, palette) for one in conditions}) == len(conditions)
    alone = [one for one in conditions if one["stitching"] == "sync_pause"]
    assert all(curves._style(one, alone, palette) == palette[one["sampler"]] for one in alone)
    assert len(set(MARKS)) == len(MARKS)


def test_success_against_delay_and_the_steps_without_an_action():
    starved = {"starved_steps": 30, "starved_share": 0.25}
    conditions = [condition("ddpm", rate, clock="delay", delay=delay) for delay, rate in ((8, 0.3), (0, 0.9), (2, 0.8))]
    conditions[0]["timing"] = starved
    upper, lower = curves.against_delay(summary(conditions), conditions).axes
    (line,) = [line for line in upper.lines if len(line.get_xdata()) == 3]
    assert line.get_xdata() == pytest.approx([0, 2, 8]) and line.get_ydata() == pytest.approx([0.9, 0.8, 0.3])
    assert lower.lines[0].get_ydata() == pytest.approx([0, 0, 25])
    assert lower.get_xlabel() == "delay in control steps of 100 ms"
    conditions[0]["timing"] = conditions[1]["timing"]
    assert len(curves.against_delay(summary(conditions), conditions).axes) == 1


def test_success_against_machine_speed_puts_a_waiting_world_at_zero():
    conditions = [condition("asd", 0.9, clock="paused"), condition("asd", 0.7), condition("asd", 0.4, factor=2.0)]
    (axes,) = curves.against_factor(summary(conditions), conditions).axes
    (line,) = [line for line in axes.lines if len(line.get_xdata()) == 3]
    assert line.get_xdata() == pytest.approx([0, 1, 2]) and line.get_ydata() == pytest.approx([0.9, 0.7, 0.4])


def test_success_against_budget_names_methods_that_keep_none():
    rate = {"estimate": 0.8, "low": 0.7, "high": 0.9}
    budgets = [
        {"method": method, "budget_ms": budget, "settings": settings, "success_rate": rate if settings else None}
        for method, budget, settings in (
            ("ddpm", 20, []),
            ("ddpm", 100, []),
            ("ddim", 20, []),
            ("ddim", 100, ["ddim-4"]),
        )
    ]
    (axes,) = curves.against_budget(summary([], budgets=budgets)).axes
    lines = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert set(lines) == {"ddpm: no budget suffices", "ddim"}
    assert lines["ddim"].get_xdata() == pytest.approx([100], rel=0.02)
    assert lines["ddim"].get_ydata() == pytest.approx([0.8]) and not len(lines["ddpm: no budget suffices"].get_xdata())


def test_a_dot_with_its_interval_for_each_condition():
    conditions = [condition("ddpm", 0.9), condition("asd", 0.6)]
    (axes,) = curves.outcome(summary(conditions), "success_rate", "success rate").axes
    assert [(x, y) for x, y, *_ in marks(axes)] == [(0.9, 0), (0.6, 1)]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["ddpm", "asd"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1] and "50 episodes" in axes.get_xlabel()


@pytest.mark.parametrize("in_flight", (1, 2))
def test_every_delay_is_plotted_with_the_shortest_horizon_it_allows(in_flight):
    delays = {delay: max(-(-delay // in_flight), 4) for delay in (0, 2, 4, 8, 12)}
    played = [
        condition("ddpm", 0.5, clock="delay", delay=delay, execute_steps=steps, in_flight=in_flight)
        for delay, steps in (*delays.items(), (4, 16))
    ]
    for one in played:
        one |= {"method": "ddpm", "spec": {"name": "ddpm"}, "max_coverage": None}
    track = {"name": "delay", "execute_steps": 4, "swept_at": 4}
    upper = plots._success(summary(played, track=track))["Success against delay"].axes[0]
    assert max((list(line.get_xdata()) for line in upper.lines), key=len) == pytest.approx(list(delays))


def test_a_time_of_nothing_stands_at_the_left_end():
    seconds = {"ddpm": np.array([0.1, 0.2]), "ideal": np.zeros(3)}
    conditions = [condition(name, 0.5) for name in seconds]
    figure = cost_plots.latency_histograms(summary(conditions), seconds)
    for panel, values in zip(figure.axes, seconds.values(), strict=True):
        assert sum(bar.get_height() for bar in panel.patches) == len(values)
    cost_plots.latency_histograms(summary(conditions[1:]), {"ideal": np.zeros(3)})
