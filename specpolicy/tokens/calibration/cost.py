"""What a call of the network costs on this machine, by its number of rows."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def time_calls(calls: Mapping[int, Callable[[], object]], device: torch.device, repeats: int = 7) -> dict[int, float]:
    """Seconds of each call, the median of `repeats`. They take turns, so that a busy moment of the machine hits all
    alike; a first round warms up."""
    found: dict[int, list[float]] = {rows: [] for rows in calls}
    for repeat in range(repeats + 1):
        for rows, call in calls.items():
            start = _now(device)
            call()
            if repeat:
                found[rows].append(_now(device) - start)
    return {rows: statistics.median(times) for rows, times in found.items()}


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
