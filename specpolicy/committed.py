"""Actions that are decided when a chunk is asked for, because they are executed before it comes."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from specpolicy.errors import SpecpolicyError

HELD = "inpaint"  # they are held in the chunk, see `specpolicy.conditioning`
GRADIENT = "gradient"  # by a derivative that only an engine with gradients knows, see `specpolicy.conditioning`
LINEAR = "linear"  # by the covariance of a calibration, see `specpolicy.conditioning`
TRAINED = "trained"  # by a network that has learnt it, see `specpolicy.denoisers.prefix`
PREDICTED = "predicted"  # from a predicted observation of the step after them, see `specpolicy.policy.prediction`
# How a policy can draw a chunk given committed actions.
WAYS = (HELD, "rtc", "guided", GRADIENT, LINEAR, TRAINED, PREDICTED)
NUMBERED = ("guided", GRADIENT, LINEAR)
DIFFERENTIATES = "eager"  # the engine that computes gradients
# What a policy lacks for a way.
REMEDIES = {
    GRADIENT: f"run it with engine={DIFFERENTIATES}, which computes gradients",
    LINEAR: "run `specpolicy calibrate` for it",
    TRAINED: "train it with policy.prefix=8",
    PREDICTED: "train it with predict=8",
}


@dataclass(frozen=True, eq=False)
class Committed:
    """What the previous plan says from the newest observation on (Black et al. 2025, arXiv 2506.07339, section 4).

    Attributes:
        actions: (n, D) in the environment's units, an array or a tensor on any device; the first belongs to the step of
            the newest observation.
        count: the first `count` of them will be executed, whatever the new chunk says.
        way: how the new chunk is drawn given them, one of `WAYS`, with its number where it has one, as in "linear-0.3".
    """

    actions: np.ndarray
    count: int
    way: str = HELD

    def __post_init__(self) -> None:
        given: Any = self.actions
        if callable(getattr(given, "detach", None)):  # a tensor, as `predict` returns, perhaps on a GPU
            given = given.detach().cpu()
        try:
            actions = np.ascontiguousarray(given)
        except ValueError:  # rows of different lengths
            raise SpecpolicyError("committed actions are an array (n, D) of finite numbers, got no array") from None
        if actions.ndim != 2 or actions.dtype.kind not in "iuf" or not np.isfinite(actions).all():
            raise SpecpolicyError(
                f"committed actions are an array (n, D) of finite numbers, got {actions.dtype} {actions.shape}"
            )
        if isinstance(self.count, bool) or not isinstance(self.count, int | np.integer):
            raise SpecpolicyError(f"the count of committed actions is a whole number, got {self.count!r}")
        if not 1 <= self.count <= len(actions):
            raise SpecpolicyError(f"{self.count} of {len(actions)} known actions cannot be committed: use 1 to all")
        check_way(self.way)
        object.__setattr__(self, "actions", actions)
        object.__setattr__(self, "count", int(self.count))


def check_way(way: str) -> tuple[str, float | None]:
    """Return the name of a way and its number, None where it has none.

    Raises:
        SpecpolicyError: no such way, one that takes no number, or no number that it takes.
    """
    name, dash, number = str(way).partition("-")
    if name not in WAYS:
        raise SpecpolicyError(f"unknown way '{way}' to continue committed actions: use one of {', '.join(WAYS)}")
    if not dash:
        return name, None
    if name not in NUMBERED:
        raise SpecpolicyError(f"way '{way}' to continue committed actions: {name} takes no number")
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    if not 0 <= value < float("inf"):
        raise SpecpolicyError(
            f"way '{way}' to continue committed actions: {name}- goes with a number, 0 or more, such as {name}-0.3"
        )
    return name, value


def require_way(way: str, ways: Sequence[str], remedies: Mapping[str, str] | None = None) -> None:
    """Raise a clear error unless a policy has a way, such as "linear-0.3".

    Args:
        way: the way, perhaps with a number.
        ways: those that the policy has.
        remedies: what the policy lacks for others, by name.
    """
    name, _ = check_way(way)
    if name not in ways:
        hint = f"{remedies[name]}, or " if remedies and name in remedies else ""
        known = f"{hint}use one of {', '.join(ways)}" if ways else "use continue_chunk"
        raise SpecpolicyError(f"stitching={way}: this policy cannot continue actions so: {known}")


def check_engine(way: str, engine: str) -> None:
    """Raise a clear error unless an engine computes what a way takes."""
    if check_way(way)[0] == GRADIENT and engine != DIFFERENTIATES:
        raise SpecpolicyError(
            f"stitching={way}: engine={engine} computes no gradients: use engine={DIFFERENTIATES}, or stitching=guided"
        )


def is_way(name: str) -> bool:
    """Whether a way of stitching is one of `WAYS`, perhaps with a number."""
    return name.partition("-")[0] in WAYS


def takes_committed(function: Any) -> bool:
    """Whether a function has an argument `committed`."""
    try:
        return "committed" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # some functions of C have no signature
        return False


def rows_of(committed: Any, batch: int, action_dim: int) -> list[Committed | None]:
    """Return what is committed for each of `batch` observations: one for all of them, or one (or None) for each.

    Raises:
        SpecpolicyError: it does not fit the batch or the actions, or the rows are continued in different ways.
    """
    rows = [committed] * batch if committed is None or isinstance(committed, Committed) else committed
    if not isinstance(rows, Sequence) or not all(one is None or isinstance(one, Committed) for one in rows):
        given = ", ".join(dict.fromkeys(type(one).__name__ for one in rows)) if isinstance(rows, list | tuple) else ""
        kind = f"{type(committed).__name__}{f' of {given}' if given else ''}"
        raise SpecpolicyError(f"committed is a {kind}: give a specpolicy.Committed, or one (or None) per observation")
    if len(rows) != batch:
        raise SpecpolicyError(f"committed has {len(rows)} entries, there are {batch} observations")
    known = [one for one in rows if one is not None]
    sizes = {one.actions.shape[1] for one in known} - {action_dim}
    if sizes:
        raise SpecpolicyError(f"committed actions have {sizes.pop()} numbers, those of this policy {action_dim}")
    ways = sorted({one.way for one in known})
    if len(ways) > 1:
        raise SpecpolicyError(f"a batch is continued in one way, here are {', '.join(ways)}: predict them apart")
    return list(rows)
