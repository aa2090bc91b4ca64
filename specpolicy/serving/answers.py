"""Checks of a server's answers, so that a faulty server, or something that is not a policy server, moves no robot."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from specpolicy.control.checks import check_chunk
from specpolicy.control.chunk import Chunk
from specpolicy.errors import SpecpolicyError
from specpolicy.serving.frames import DTYPE
from specpolicy.serving.lines import one_line
from specpolicy.serving.scan import ProtocolError

MOST = 2**31  # of any figure of a server, including milliseconds


def check_actions(answer: Mapping[str, Any], action_dim: int | None, at_least: int = 1) -> np.ndarray:
    """Return the actions (T, D) of an answer.

    Args:
        answer: the server's message.
        action_dim: numbers of an action, if known.
        at_least: number of actions needed.

    Raises:
        ProtocolError: no such actions, or some that are not finite as float32.
    """
    actions = answer.get("actions")
    if not isinstance(actions, np.ndarray) or actions.ndim != 2 or actions.dtype.kind not in "iuf":
        sent = one_line(", ".join(str(key)[:40] for key in list(answer)[:20]))
        raise ProtocolError(f"the server answered without `actions` (T, D) of numbers: {sent}")
    if actions.shape[1] != (action_dim or actions.shape[1]):
        raise ProtocolError(f"the server answered with actions of {actions.shape[1]} numbers, not of {action_dim}")
    if len(actions) < at_least:
        raise ProtocolError(f"the server answered with {len(actions)} actions; {at_least} are to be executed")
    with np.errstate(over="ignore"):
        as_computed = actions.astype(DTYPE, copy=False)
    try:
        check_chunk(Chunk(as_computed))
    except SpecpolicyError as error:
        raise ProtocolError(f"the server answered with actions that cannot be executed: {error}") from None
    return actions


def check_timing(answer: Mapping[str, Any]) -> dict[str, float]:
    """Return the known figures of `policy_timing`, 0 for those that a server does not send.

    Raises:
        ProtocolError: a figure that is not a number from 0 on.
    """
    told = answer.get("policy_timing")
    known = told if isinstance(told, dict) else {}
    figures = {}
    for name in ("network_ms", "encode_ms", "infer_ms", "calls", "rows"):
        value = known.get(name, 0)
        number = not isinstance(value, bool) and isinstance(value, int | float | np.integer | np.floating)
        if not number or not math.isfinite(value) or not 0 <= value < MOST:
            raise ProtocolError(f"the server answered with a `{name}` that is no number from 0 on")
        figures[name] = float(value)
    if "network_ms" not in known:
        figures["network_ms"] = figures["infer_ms"]
    return figures
