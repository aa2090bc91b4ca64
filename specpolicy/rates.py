"""Control steps per second: of data, of a policy, of the loop that runs it. None means unknown."""

import math
from typing import Any

from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import shown

TOLERANCE = 0.005  # 29.97 frames per second are 30


def parse_hz(value: Any, what: str) -> float | None:
    """Parse a rate from outside.

    Raises:
        SpecpolicyError: not a positive, finite number. `what` names it.
    """
    if value is None:
        return None
    try:
        if isinstance(value, bool | str | bytes):
            raise TypeError
        hz = float(value)
    except (TypeError, ValueError, OverflowError):
        hz = math.nan
    if not (math.isfinite(hz) and hz > 0):
        raise SpecpolicyError(f"{what} is {shown(value)}: expected control steps per second, a positive number")
    return hz


def same_rate(one: float | None, other: float | None) -> bool:
    """Whether two rates agree; an unknown rate agrees with any."""
    return one is None or other is None or math.isclose(one, other, rel_tol=TOLERANCE)


def one_rate(one: float | None, other: float | None, what: str) -> float | None:
    """Return the rate that two sources agree on.

    Raises:
        SpecpolicyError: they do not. `what` names them.
    """
    if not same_rate(one, other):
        raise SpecpolicyError(f"{what} say {one:g} and {other:g} control steps per second: correct one of them")
    return other if one is None else one


def check_rate(policy_hz: float | None, hz: float | None, where: str, remedy: str, any_rate: bool = False) -> None:
    """Compare the rate that a policy was trained at with that of the loop that is to run it.

    Args:
        policy_hz, hz: control steps per second; None if unknown.
        where: subject of the message's sentence, which has `hz` control steps per second.
        remedy: advice for the message.
        any_rate: accept the difference.

    Raises:
        SpecpolicyError: both are known and differ.
    """
    if any_rate or policy_hz is None or hz is None or same_rate(policy_hz, hz):
        return
    raise SpecpolicyError(
        f"the policy was trained at {policy_hz:g} control steps per second and {where} has {hz:g}: "
        f"its actions would come {hz / policy_hz:.3g} times as fast; {remedy}, or any_rate=true if it is meant"
    )
