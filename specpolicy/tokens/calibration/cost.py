"""What a call of the network costs on this machine, by its number of rows."""

import time
from collections.abc import Callable, Mapping

import torch


def time_calls(calls: Mapping[int, Callable[[], object]], device: torch.device, repeats: int = 15) -> dict[int, float]:
    """Seconds of each call, by its number of rows: the least of `repeats`, since what else a machine does only adds,
    and no more than what a call of more rows took. They take turns; a first round warms up."""
    found = {rows: float("inf") for rows in calls}
    for repeat in range(repeats + 1):
        for rows, call in calls.items():
            start = _now(device)
            call()
            if repeat:
                found[rows] = min(found[rows], _now(device) - start)
    least = float("inf")
    for rows in sorted(found, reverse=True):
        least = found[rows] = min(found[rows], least)
    return found


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
