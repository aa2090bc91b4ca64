"""Tracks: the conditions of an experiment about time.

| track | cost of inference to the world | what varies |
|---|---|---|
| `paused` | none | the samplers |
| `delay` | a fixed number of control steps; reproducible to the bit on any hardware | delay, execution horizon |
| `charged` | the measured time of every call, or that of a recorded trace, times a factor | the factor |
| `budget` | as `charged` | the latency budget that each method's best setting must keep |
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from specpolicy.control.trace import read_counts, read_trace, trace_digest
from specpolicy.errors import SpecpolicyError
from specpolicy.evaluation.conditions import Condition
from specpolicy.tasks import has_absolute_actions

TRACKS = ("paused", "delay", "charged", "budget")
# In these tasks an action is a change of the gripper's pose: zeros hold still; None keeps the gripper as it is.
AT_REST = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, None)
HOLD: dict[str, tuple[float | None, ...]] = {
    f"specpolicy/{name}-v0": AT_REST for name in ("Lift", "LiftConveyor", "PickPlaceCan", "NutAssemblySquare")
}


def held_action(hold: Any, task: Mapping[str, Any]) -> tuple[float | None, ...] | None:
    """Return the action for steps that no chunk covers, from a configured value.

    Args:
        hold: "last" repeats the last action (returned as None); a list is the action, with null for entries that keep
            the last value; None holds the robot of a shipped task still.
        task: the task configuration.

    Raises:
        SpecpolicyError: another value.
    """
    if hold is None:
        return None if has_absolute_actions(task) else HOLD.get(str(task["id"]))  # a pose is held by repeating it
    if hold != "last" and not isinstance(hold, list):
        raise SpecpolicyError(f"hold={hold}: expected last, an action such as [0,0,null], or null")
    return tuple(hold) if isinstance(hold, list) else None


@dataclass(frozen=True)
class Joining:
    """How chunks become actions, in all conditions of an evaluation.

    Attributes:
        stitching: ways to join chunks; each makes its own conditions.
        execute_steps: control steps from one request for a chunk to the next; None: the policy's own number.
        on_miss, ensemble_decay, hold, in_flight: see `specpolicy.control.Execution`.
    """

    stitching: tuple[str, ...] = ("continue_chunk",)
    execute_steps: int | None = None
    on_miss: str = "continue_chunk"
    ensemble_decay: float = 0.01
    hold: tuple[float | None, ...] | None = None
    in_flight: int = 1


def make_conditions(
    track: Mapping[str, Any], samplers: Iterable[str], joining: Joining, n_action_steps: int = 1
) -> tuple[Condition, ...]:
    """Return the conditions of a track: samplers side by side, beginning where inference costs the least time.

    Args:
        track: `name` and the options of configs/track/<name>.yaml.
        samplers: labels of the samplers.
        joining: how chunks become actions.
        n_action_steps: execution horizon of the policy.

    Raises:
        SpecpolicyError: the track is unknown, or its options do not make an experiment.
    """
    name = str(track["name"])
    if name not in TRACKS:
        raise SpecpolicyError(f"unknown track '{name}': use one of {', '.join(TRACKS)}")
    if not joining.stitching:
        raise SpecpolicyError("stitching is empty: name at least one, such as stitching=[continue_chunk]")
    common = Condition(
        "",
        execute_steps=joining.execute_steps,
        on_miss=joining.on_miss,
        ensemble_decay=joining.ensemble_decay,
        hold=joining.hold,
        in_flight=joining.in_flight,
    )
    if joining.in_flight > 1 and (name == "paused" or times_are_measured(track)):
        why = "the world waits for each chunk" if name == "paused" else "times are measured one chunk after the other"
        raise SpecpolicyError(
            f"in_flight={joining.in_flight}: {why}: use track=delay, or charge the times of a track.trace"
        )
    conditions: Sequence[Condition] = [common]
    if name == "delay":
        conditions = _delays(track, common, n_action_steps)
    elif name == "charged":
        conditions = _charged(track, common, _numbers(track["factors"], "track.factors"))
    elif name == "budget":
        budgets(track)
        conditions = _charged(track, common, [_positive(track["factor"], "track.factor")])
    labels = list(samplers)
    conditions = [
        replace(condition, sampler=label, stitching=stitching)
        for condition in conditions
        for stitching in joining.stitching
        for label in labels
    ]
    for condition in conditions:
        _ = condition.execution  # checks the options
        if condition.trace is not None:  # checks the columns
            read_trace(condition.trace, condition.sampler)
            read_counts(condition.trace, condition.sampler)
    if len({condition.label for condition in conditions}) < len(conditions):
        raise SpecpolicyError("track and stitching: a value is given twice")
    return tuple(conditions)


def shortest_horizon(delay: int, in_flight: int, usual: int) -> int:
    """Return the execution horizon nearest to the `usual` one at which requests never wait for a free place."""
    return max(math.ceil(delay / in_flight), usual)


def budgets(track: Mapping[str, Any]) -> list[float]:
    """Return the track's latency budgets in ms, rising; empty for all tracks but `budget`."""
    if track["name"] != "budget":
        return []
    return sorted(_positive(value, "track.budgets_ms") for value in _numbers(track["budgets_ms"], "track.budgets_ms"))


def times_are_measured(track: Mapping[str, Any]) -> bool:
    """Whether outcomes depend on the speed of this machine."""
    return track["name"] in ("charged", "budget") and track.get("trace") is None


def _delays(track: Mapping[str, Any], common: Condition, n_action_steps: int) -> list[Condition]:
    """Return the delays, rising, each with the shortest execution horizon it allows; then the horizons at one delay."""
    shortest = common.execute_steps or n_action_steps
    pairs = [
        (delay, shortest_horizon(delay, common.in_flight, shortest))
        for delay in sorted(_steps(track["delays"], "track.delays", 0))
    ]
    at = _steps([track["swept_at"]], "track.swept_at", 0)[0]
    for horizon in _steps(track["swept_execute_steps"] or [], "track.swept_execute_steps", 1, empty=True):
        if horizon * common.in_flight < at:
            raise SpecpolicyError(
                f"track.swept_execute_steps: {horizon} is less than the delay of {at} control steps (track.swept_at)"
            )
        if (at, horizon) not in pairs:
            pairs.append((at, horizon))
    return [replace(common, clock="delay", delay=delay, execute_steps=horizon) for delay, horizon in pairs]


def _charged(track: Mapping[str, Any], common: Condition, factors: Sequence[float]) -> list[Condition]:
    trace = track.get("trace")
    digest = None if trace is None else trace_digest(trace)
    clock = "charged" if trace is None else "trace"
    source: dict[str, Any] = {"trace": None if trace is None else str(trace), "trace_digest": digest}
    if min(factors) < 0:
        raise SpecpolicyError(f"track.factors: {min(factors):g} is below zero")
    # Rising: the others are compared with the condition in which inference costs the least time.
    return [replace(common, clock=clock, factor=factor, **source) if factor else common for factor in sorted(factors)]


def _numbers(values: Any, name: str) -> list[float]:
    numbers = [value for value in values if isinstance(value, int | float) and math.isfinite(value)]
    if not numbers or len(numbers) < len(values):
        raise SpecpolicyError(f"{name}={list(values)}: expected a list of numbers")
    return [float(value) for value in numbers]


def _positive(value: float, name: str) -> float:
    if not value > 0:
        raise SpecpolicyError(f"{name}: expected a positive number, got {value:g}")
    return float(value)


def _steps(values: Any, name: str, least: int, empty: bool = False) -> list[int]:
    if not (values or empty) or not all(isinstance(value, int) and value >= least for value in values):
        raise SpecpolicyError(f"{name}={list(values)}: expected whole numbers of control steps, {least} or more")
    return list(values)
