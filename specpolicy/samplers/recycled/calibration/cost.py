"""What a call costs against its rows, on this machine, and the window that follows from it."""

import statistics
import time

import torch
from torch import Tensor

from specpolicy.diffusion import GaussianChain
from specpolicy.samplers.base import Denoiser

ROWS = (1, 2, 4, 8, 12, 16, 20, 24, 32, 48, 64, 100)


def measure_cost(
    denoiser: Denoiser,
    chain: GaussianChain,
    shape: torch.Size,
    cond: Tensor | None,
    repeats: int = 7,
    device: torch.device | None = None,
) -> dict[int, float]:
    """Seconds of one call, the median of `repeats`, by its number of rows. Sizes take turns, so that a busy moment
    of the machine hits all alike."""
    device = device or (torch.device("cpu") if cond is None else cond.device)
    most = min(len(chain), max(ROWS))
    sizes = sorted({min(rows, most) for rows in ROWS})
    found: dict[int, list[float]] = {rows: [] for rows in sizes}
    for repeat in range(repeats + 1):
        for rows in sizes:
            state = torch.randn(rows, *shape, device=device)
            timesteps = chain.timesteps_on(device)[torch.arange(rows, device=device) % len(chain)]
            condition = None if cond is None else cond[:1].expand(rows, *cond.shape[1:])
            start = _now(device)
            denoiser(state, timesteps, condition)
            if repeat:  # the first round warms up
                found[rows].append(_now(device) - start)
    return {rows: statistics.median(times) for rows, times in found.items()}


def interpolate_cost(cost: dict[int, float], most: int) -> Tensor:
    """(most + 1,) seconds of a call of 0 to `most` rows, float64, piecewise linear, never falling."""
    sizes, seconds = torch.tensor(sorted(cost), dtype=torch.float64), torch.tensor([cost[n] for n in sorted(cost)])
    seconds = seconds.double().cummax(dim=0).values
    rows = torch.arange(most + 1, dtype=torch.float64).clamp(min=float(sizes[0]))
    if len(sizes) == 1:
        return seconds.expand(most + 1).clone()
    right = torch.searchsorted(sizes, rows).clamp(1, len(sizes) - 1)
    slope = (seconds[right] - seconds[right - 1]) / (sizes[right] - sizes[right - 1])
    return seconds[right - 1] + slope * (rows - sizes[right - 1])


def best_windows(acceptance: Tensor, cost: Tensor) -> list[int]:
    """The window at each step that makes a chunk cheapest on average, by dynamic programming from the last step.

    acceptance (K,): the chance that a draft at a step is accepted once the drafts before it are; cost (>= K+1,)
    seconds by rows. A round at step n with window w evaluates w + 1
    states and leaves the chain at n + j + 1 with j drafts accepted.
    """
    count = len(acceptance)
    value = torch.zeros(count + 1, dtype=torch.float64)
    windows = [1] * count
    for step in range(count - 1, -1, -1):
        longest = count - 1 - step
        # The chance to get past each of the next drafts, and what is left to pay if it fails there.
        passed = torch.cat([torch.ones(1, dtype=torch.float64), acceptance[step : step + longest].cumprod(dim=0)])
        failed = passed[:-1] * (1 - acceptance[step : step + longest])
        left = torch.cat([torch.zeros(1, dtype=torch.float64), (failed * value[step + 1 : count]).cumsum(dim=0)])
        widths = torch.arange(longest + 1)
        total = cost[widths + 1] + left + passed * value[step + 1 :]
        # A window of nothing is not offered, except at the last step, where nothing is left to draft.
        best = int(total[min(1, longest) :].argmin()) + min(1, longest)
        value[step], windows[step] = total[best], max(best, 1)
    return windows


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
