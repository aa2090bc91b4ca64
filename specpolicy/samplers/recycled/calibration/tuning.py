"""Which surrogate, how many sweeps and what windows are fastest on the machine at hand."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from specpolicy.diffusion import GaussianChain
from specpolicy.model import Model
from specpolicy.samplers.base import Chunks, Denoiser, NoiseSource, Sample
from specpolicy.samplers.recycled.calibration.calibration import Calibration, Plan
from specpolicy.samplers.recycled.drafter import Recycled
from specpolicy.samplers.recycled.surrogates import Surrogate
from specpolicy.samplers.rounds.batch import Batch
from specpolicy.samplers.speculative.loop import Lengths, longest_windows, speculate
from specpolicy.samplers.speculative.verifiers import Reflection
from specpolicy.tuning import LENGTHS, draft_lengths, interpolate_cost, measure_cost, time_calls

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
        """`count` chunks, or as many as a trial has."""
        rows = torch.arange(count or self.count)
        cond = self.cond
        if cond is not None:  # spread over all of them: neighbours are of one episode
            cond = cond[(rows * len(cond)) // len(rows)]
        source = NoiseSource(torch.Generator().manual_seed(self.seed), len(rows), self.device, torch.float32)
        state = source.normal(*self.shape)
        drafter = Recycled(surrogate, sweeps, rejoin=self.device.type == "cpu")
        problem = Batch(self.denoiser, chain, Chunks(state, cond, source), longest_windows(window, len(chain)))
        return speculate(problem, drafter, Reflection())

    def outside(self, surrogate: Surrogate, chain: GaussianChain) -> float:
        """Seconds of a round that neither the network nor the surrogate takes."""
        rows, own = min(16, len(chain) - 1), self.cost_of(surrogate, chain)
        draw = functools.partial(self.draw, surrogate, 1, chain, rows, count=1)  # the same noises, so the same calls
        calls, seconds = draw().stats.calls.item(), time_calls({rows: draw}, self.device, turns=5)[rows]
        return max(seconds / calls - float(interpolate_cost(self.cost, rows + 1)[-1]) - 2 * float(own[rows]), 0.0)

    def cost_of(self, surrogate: Surrogate, chain: GaussianChain) -> Tensor:
        """(K + 1,) seconds of one evaluation of the surrogate by its rows."""
        surrogate = surrogate.placed(self.device, torch.float32)  # a calibration stays where it was read
        features = surrogate.prepare(None if self.cond is None else self.cond[:1])

        def call(x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
            return surrogate.at(surrogate.look_up(t), features)(x.flatten(1)[None])

        return interpolate_cost(measure_cost(call, chain.timesteps_on(self.device), self.shape, None), len(chain))


def tune(
    calibration: Calibration,
    trial: Trial,
    chains: Mapping[int, GaussianChain],
    progress: Callable[[str, int, int], object] = lambda what, done, total: None,
    choose_sweeps: bool = True,
) -> None:
    """Fill in the plans of this machine for each chain, and report what was measured. `choose_sweeps`: also fill in
    `calibration.sweeps`, of drafting to the end, which do not depend on the machine."""
    longest = chains[max(chains)]
    trial.cost = measure_cost(trial.denoiser, longest.timesteps_on(trial.device), trial.shape, trial.cond)
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
    backend = Model(trial.denoiser, trial.device).backend
    calibration.plans[backend] = plans
    calibration.report |= {backend: report}


def _plan(calibration: Calibration, trial: Trial, chain: GaussianChain) -> tuple[Plan, dict[str, Any]]:
    """The fastest plan for a chain, and what the search saw. Time follows from the rows of the calls drawn and from
    what rows cost, not from the clock, so that a busy moment does not decide."""
    count = len(chain)
    network = interpolate_cost(trial.cost, count + 1)
    outside = trial.outside(calibration.prior, chain)
    has_student = calibration.student is not None
    costs = {student: trial.cost_of(calibration.surrogate(student), chain) for student in {has_student, False}}
    tried: list[Plan] = []

    def attempt(windows: Sequence[int], sweeps: int, student: bool) -> Sample:
        found = trial.draw(calibration.surrogate(student), sweeps, chain, list(windows))
        rows = torch.cat([number[number > 0] for number in found.stats.evaluated])  # of each call
        # Drafts are guessed once a sweep and once more when they have been evaluated.
        guesses = (sweeps + 1) * costs[student][_drafts(found.stats.accepted, windows)]
        cost = network[rows] + guesses + outside
        seconds, calls = float(cost.sum()) / trial.count, float(found.stats.calls.double().mean())
        tried.append(Plan(list(windows), sweeps, student, calls, seconds))
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


def _drafts(accepted: list[Tensor], windows: Sequence[int]) -> Tensor:
    """How many drafts each round of each chunk made, one after the other."""
    limits, position, found = torch.tensor(windows), torch.zeros_like(accepted[0]), []
    for round_ in accepted:
        working = round_ >= 0
        at = position[working]
        found.append(torch.minimum(limits[at], len(limits) - 1 - at))
        position = position + torch.where(working, round_ + 1, torch.zeros_like(round_))
    return torch.cat(found)


def _acceptance(accepted: list[Tensor], rejections: Tensor | None, count: int) -> Tensor:
    """(K,) the chance that a draft is accepted at each step, noisiest first, one half a rejection added to all."""
    tried = torch.zeros(count, dtype=torch.float64)
    position = torch.zeros_like(accepted[0])
    for round_ in accepted:
        working = round_ >= 0
        for start, number in zip(position[working].tolist(), round_[working].tolist(), strict=True):
            tried[start : start + number + 1] += 1
        position = position + torch.where(working, round_ + 1, torch.zeros_like(round_))
    assert rejections is not None
    return 1 - (rejections.double() + 0.5) / (tried + 1)
