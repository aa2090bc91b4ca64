"""Chooses the surrogate, the number of sweeps and the draft lengths that are fastest on this machine."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from specpolicy.diffusion import GaussianChain
from specpolicy.model import Model
from specpolicy.samplers.base import Chunks, Denoiser, NoiseSource, Sample, Setting
from specpolicy.samplers.bound import BoundSampler
from specpolicy.samplers.recycled.calibration.calibration import Calibration, Plan
from specpolicy.samplers.recycled.drafter import RecycledDrafter
from specpolicy.samplers.recycled.sampler import Recycled
from specpolicy.samplers.recycled.surrogates import Surrogate
from specpolicy.samplers.rounds.batch import Batch
from specpolicy.samplers.speculative.loop import Lengths, longest_windows, speculate
from specpolicy.samplers.speculative.verifiers import Reflection
from specpolicy.tuning import LENGTHS, draft_lengths, interpolate_cost, measure_cost

SWEEPS = (1, 2, 3, 4, 5)


@dataclass
class Trial:
    """Chains drawn from the test conditions `cond` (N, ...), all with the same noises."""

    denoiser: Denoiser
    shape: torch.Size
    cond: Tensor | None
    device: torch.device
    seed: int
    count: int = 48
    cost: dict[int, float] = field(default_factory=dict)

    def draw(self, surrogate: Surrogate, sweeps: int, chain: GaussianChain, window: Lengths, count: int = 0) -> Sample:
        """Draw `count` chunks, or as many as a trial has."""
        rows = torch.arange(count or self.count)
        cond = self.cond
        if cond is not None:  # spread over all conditions: neighbours belong to one episode
            cond = cond[(rows * len(cond)) // len(rows)]
        source = NoiseSource(torch.Generator().manual_seed(self.seed), len(rows), self.device, torch.float32)
        state = source.normal(*self.shape)
        drafter = RecycledDrafter(surrogate, sweeps, rejoin=self.device.type == "cpu")
        problem = Batch(
            Model(self.denoiser, self.device), chain, Chunks(state, cond, source), longest_windows(window, len(chain))
        )
        return speculate(problem, drafter, Reflection())

    def beside(self, sampler: Recycled, chain: GaussianChain, chunks: int = 9) -> float:
        """Median seconds of a chunk outside the network, with the code that draws one chunk on this machine."""
        bound = BoundSampler(sampler, Setting(Model(self.denoiser, self.device), chain, self.shape))
        seconds = []
        for number in range(chunks + 1):
            cond = None if self.cond is None else self.cond[number * len(self.cond) // (chunks + 1)][None]
            stats = bound(1, cond, torch.Generator().manual_seed(self.seed + number)).stats
            seconds.append(stats.seconds - stats.network_seconds)
        return statistics.median(seconds[1:])  # the first one warms up


def tune(
    calibration: Calibration,
    trial: Trial,
    chains: Mapping[int, GaussianChain],
    progress: Callable[[str, int, int], object] = lambda what, done, total: None,
    choose_sweeps: bool = True,
) -> None:
    """Fill in this machine's plans for each chain, and report what was measured.

    `choose_sweeps`: also fill in `calibration.sweeps`, for drafting to the end, which does not depend on the machine.
    """
    longest = chains[max(chains)]
    model = Model(trial.denoiser, trial.device)
    trial.cost = measure_cost(model, longest.timesteps_on(trial.device), trial.shape, trial.cond)
    report: dict[str, Any] = {"seconds_by_rows": {str(rows): seconds for rows, seconds in trial.cost.items()}}
    if choose_sweeps:
        surrogate, calls = calibration.surrogate(), {}
        for number, sweeps in enumerate(SWEEPS):
            calls[sweeps] = float(trial.draw(surrogate, sweeps, longest, None).stats.calls.double().mean())
            progress("sweeps", number + 1, len(SWEEPS))
        # More sweeps only where they save a good part of a call.
        calibration.sweeps = min(calls, key=lambda sweeps: calls[sweeps] + 0.03 * sweeps)
        report["calls_by_sweeps"] = {str(sweeps): round(value, 3) for sweeps, value in calls.items()}
    plans = {}
    for steps, chain in chains.items():
        plans[steps], report[f"chain_{steps}"] = _plan(calibration, trial, chain)
        progress("plans", len(plans), len(chains))
    backend = model.backend
    calibration.plans[backend] = plans
    calibration.report |= {backend: report}


def _plan(calibration: Calibration, trial: Trial, chain: GaussianChain) -> tuple[Plan, dict[str, Any]]:
    """Return the fastest plan for a chain, and what the search measured.

    The network's time is computed from the rows of the drawn calls and the cost of rows, not read from a clock, so a
    busy moment of the machine does not decide.
    """
    count = len(chain)
    network = interpolate_cost(trial.cost, count + 1)
    has_student = calibration.student is not None
    tried: list[Plan] = []

    def attempt(windows: Sequence[int], sweeps: int, student: bool) -> Sample:
        found = trial.draw(calibration.surrogate(student), sweeps, chain, list(windows))
        rows = torch.cat([number[number > 0] for number in found.stats.evaluated])  # of each call
        sampler = Recycled(list(windows), calibration=calibration, student=student, sweeps=sweeps)
        seconds = float(network[rows].sum()) / trial.count + trial.beside(sampler, chain)
        tried.append(Plan(list(windows), sweeps, student, float(found.stats.calls.double().mean()), seconds))
        return found

    everything = [count] * count
    stats = attempt(everything, calibration.sweeps, has_student).stats
    acceptance = _acceptance(stats.accepted, stats.rejections, count)
    report = {"calls": tried[0].calls, "acceptance": [round(value, 4) for value in acceptance.tolist()]}
    attempt(draft_lengths(acceptance, network), 2, has_student)
    for size in LENGTHS:
        if size < count:
            attempt([size] * count, 2, has_student)
    windows = min(tried, key=lambda plan: plan.seconds).windows
    for sweeps in (1, 3):
        attempt(windows, sweeps, has_student)
    if has_student:
        for sweeps in (1, 2, 3):
            attempt(windows, sweeps, False)
    best = min(tried, key=lambda plan: plan.seconds)
    report["tried"] = [
        f"window {max(plan.windows)}, sweeps {plan.sweeps}, {'student' if plan.student else 'prior'}: "
        f"{plan.calls:.2f} calls, {1e3 * plan.seconds:.1f} ms"
        for plan in tried
    ]
    return best, report


def _acceptance(accepted: list[Tensor], rejections: Tensor | None, count: int) -> Tensor:
    """(K,) probability that a draft is accepted at each step, noisiest first, with half a rejection added
    everywhere."""
    tried = torch.zeros(count, dtype=torch.float64)
    position = torch.zeros_like(accepted[0])
    for round_ in accepted:
        working = round_ >= 0
        for start, number in zip(position[working].tolist(), round_[working].tolist(), strict=True):
            tried[start : start + number + 1] += 1
        position = position + torch.where(working, round_ + 1, torch.zeros_like(round_))
    assert rejections is not None
    return 1 - (rejections.double() + 0.5) / (tried + 1)
