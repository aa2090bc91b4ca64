"""Measures the cost of a call by its rows on this machine, and finds the draft lengths that make a chunk cheapest."""

import functools
import math
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

ROWS = (1, 2, 4, 8, 12, 16, 20, 24, 32, 48, 64, 100)  # numbers of rows at which a call is timed
LENGTHS = (4, 6, 8, 12, 16, 20, 24, 32, 48)  # draft lengths to try, besides drafting to the end
FEWEST = 3  # turns, however long they take


def now(device: torch.device) -> float:
    """Return the time in seconds, after the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def time_calls(
    calls: Mapping[int, Callable[[], object]], device: torch.device, turns: int = 7, seconds: float = math.inf
) -> dict[int, float]:
    """Return the seconds of one call by its number of rows.

    A time is the least of all turns, because other load on the machine only adds, and at most that of a call with more
    rows. Calls take turns, so that a busy moment of the machine affects all alike. Each is made twice and the second
    one timed. After a call of many rows a small network's weights are no longer in the cache, and its next call of one
    row takes up to three times as long as in a sampler that makes one after the other.

    `turns`: the most turns; after `seconds`, at most three.
    """
    found = dict.fromkeys(calls, math.inf)
    begin = now(device)
    for turn in range(turns):
        if turn >= FEWEST and now(device) - begin > seconds:
            break
        for rows, call in calls.items():
            call()
            start = now(device)
            call()
            found[rows] = min(found[rows], now(device) - start)
    least = math.inf
    for rows in sorted(found, reverse=True):
        least = found[rows] = min(found[rows], least)
    return found


def measure_cost(
    denoiser: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    timesteps: Tensor,
    shape: tuple[int, ...],
    cond: Tensor | None,
    turns: int = 7,
) -> dict[int, float]:
    """Return the seconds of a denoiser's call by its number of rows, at most the number of `timesteps` (K,) of a chain.

    `shape`: of a row. `cond`: (1, ...) the condition of all rows. Runs on the device of `timesteps`.
    """
    device = timesteps.device
    calls = {}
    for rows in sorted({min(rows, len(timesteps)) for rows in ROWS}):
        condition = None if cond is None else cond[:1].expand(rows, *cond.shape[1:])
        calls[rows] = functools.partial(denoiser, torch.randn(rows, *shape, device=device), timesteps[:rows], condition)
    return time_calls(calls, device, turns)


def interpolate_cost(seconds_by_rows: Mapping[int, float], most: int) -> Tensor:
    """(most + 1,) seconds of a call of 0 to `most` rows, float64, piecewise linear, never falling."""
    sizes = torch.tensor(sorted(seconds_by_rows), dtype=torch.float64)
    seconds = torch.tensor([seconds_by_rows[rows] for rows in sorted(seconds_by_rows)], dtype=torch.float64)
    seconds = seconds.cummax(dim=0).values
    rows = torch.arange(most + 1, dtype=torch.float64).clamp(min=float(sizes[0]))
    if len(sizes) == 1:
        return seconds.expand(most + 1).clone()
    right = torch.searchsorted(sizes, rows).clamp(1, len(sizes) - 1)
    slope = (seconds[right] - seconds[right - 1]) / (sizes[right] - sizes[right - 1])
    return seconds[right - 1] + slope * (rows - sizes[right - 1])


def draft_lengths(acceptance: Tensor, cost: Tensor) -> list[int]:
    """Return the draft length at each step that makes a chunk cheapest on average.

    Dynamic programming from the last step. `acceptance` (K,): the probability that a draft at a step is accepted once
    the drafts before it are. `cost` (>= K + 1,): seconds by rows. A round at step n with w drafts evaluates w + 1
    states and leaves the chain at n + j + 1 with j drafts accepted.
    """
    count = len(acceptance)
    value = torch.zeros(count + 1, dtype=torch.float64)
    lengths = [1] * count
    for step in range(count - 1, -1, -1):
        longest = count - 1 - step
        # The probability to get past each of the next drafts, and the cost that remains if it fails there.
        passed = torch.cat([torch.ones(1, dtype=torch.float64), acceptance[step : step + longest].cumprod(dim=0)])
        failed = passed[:-1] * (1 - acceptance[step : step + longest])
        left = torch.cat([torch.zeros(1, dtype=torch.float64), (failed * value[step + 1 : count]).cumsum(dim=0)])
        widths = torch.arange(longest + 1)
        total = cost[widths + 1] + left + passed * value[step + 1 :]
        # Zero drafts are allowed only at the last step, where nothing is left to draft.
        best = int(total[min(1, longest) :].argmin()) + min(1, longest)
        value[step], lengths[step] = total[best], max(best, 1)
    return lengths
