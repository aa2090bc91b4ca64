"""`calibrate`: all measurements and training that happen before sampling."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from specpolicy.denoisers.flow import check_flow_denoiser
from specpolicy.diffusion import GaussianChain
from specpolicy.errors import SpecpolicyError
from specpolicy.fingerprints import weights_fingerprint
from specpolicy.model import Model, device_of, network_of
from specpolicy.samplers.base import Denoiser, NoiseSource
from specpolicy.samplers.densities import check_shape
from specpolicy.samplers.recycled.calibration.calibration import Calibration
from specpolicy.samplers.recycled.calibration.distil import Distillation, distil, fit_prior
from specpolicy.samplers.recycled.calibration.recording import (
    Evaluated,
    Recording,
    invent,
    record_rounds,
    record_scattered,
    record_sequential,
)
from specpolicy.samplers.recycled.calibration.tuning import Trial, tune
from specpolicy.samplers.recycled.surrogates import GaussianSurrogate, StudentSurrogate, Surrogate
from specpolicy.samplers.speculative.loop import check_noise

Progress = Callable[[str, int, int], object]  # stage, amount done, total amount


@dataclass(frozen=True)
class Effort:
    """Amount of work in a calibration.

    Attributes:
        chains: sequential chains recorded, one for each of as many conditions.
        repeated: number of leading conditions with more chains, for the spread of their chunks.
        repeats: chains of each of these.
        invented: additional conditions, near the given ones.
        scattered: steps evaluated at each invented and each given condition.
        rounds: chains recorded in the sampler's own rounds, with the prior and again with the student.
        steps: lengths of shorter chains that are also learnt from and get draft lengths.
        passes: `Distillation` of the first and the second student; empty: no student.
        tests: chains behind each choice of sweeps and draft lengths.
        options: sizes of the student.
    """

    chains: int = 2000
    repeated: int = 60
    repeats: int = 8
    invented: int = 36000
    scattered: int = 8
    rounds: int = 1000
    steps: tuple[int, ...] = (16,)
    passes: tuple[Distillation, ...] = (
        Distillation(3000),
        Distillation(2000, learning_rate=3e-3, matrix_learning_rate=1e-2),
    )
    tests: int = 48
    options: dict[str, Any] = field(default_factory=dict)


def calibrate(
    denoiser: Denoiser,
    chain: GaussianChain,
    shape: tuple[int, int],
    cond: Tensor | None = None,
    generator: torch.Generator | None = None,
    effort: Effort = Effort(),
    progress: Progress = lambda what, done, total: None,
    known: Calibration | None = None,
) -> Calibration:
    """Calibrate `recycled` for a denoiser and its chain: speed only, never the distribution.

    Args:
        denoiser: see `specpolicy.sample`.
        chain: the chain of the denoiser.
        shape: (H, D) of a chunk.
        cond: (M, ...) conditions the policy meets in use, or None for an unconditional denoiser. More and more varied
            conditions give a better student. The last tenth is kept aside to choose sweeps and draft lengths, so keep
            the conditions of one episode together.
        generator: source of all draws.
        effort: by default that of `specpolicy calibrate`, half an hour to an hour on two cores. Fewer `chains`,
            `invented` and `rounds` take less; `Effort(passes=())` leaves the student out.
        progress: called with the stage, the amount done and the total amount.
        known: an earlier calibration. Nothing is learnt then; only plans for this machine are made, on all conditions,
            which should not be those it was learnt on.

    Raises:
        SpecpolicyError: fewer than 20 conditions; a chain that cannot be speculated on exactly; `known` belongs to
            another network.
    """
    check_shape(shape, "H, D")
    if cond is not None and len(cond) < 20:
        raise SpecpolicyError(f"{len(cond)} conditions are too few to calibrate on: give at least 20, better hundreds")
    check_flow_denoiser(denoiser, chain)
    check_noise(chain)  # before anything is evaluated
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    work = _Work(denoiser, chain, torch.Size(shape), cond, generator, effort, progress)
    start = time.perf_counter()
    if known is None:
        calibration = _learn(work, progress)
        network = network_of(denoiser)
        calibration.fingerprint = None if network is None else weights_fingerprint(network)
    else:
        known.check_network(denoiser)
        calibration, work.training = known, 0
    with torch.inference_mode():
        tune(calibration, work.trial(), work.chains(), progress, choose_sweeps=known is None)
    if known is None:
        calibration.report["seconds"] = round(time.perf_counter() - start, 1)
    return calibration


def _learn(work: "_Work", progress: Progress) -> Calibration:
    """Learn the prior and the student."""
    cond, chain, shape, effort = work.cond, work.chain, (work.shape[0], work.shape[1]), work.effort
    with torch.inference_mode():
        sequential, chunks, groups = work.sequential()
    # Tensors made in inference mode cannot be trained on.
    sequential, chunks = _clone(sequential), chunks.clone()
    flat = None if cond is None else cond.flatten(1)
    prior_values = fit_prior(chunks, None if flat is None else flat[groups], groups)
    size = 0 if flat is None else flat.shape[1]
    alpha_bar = chain.process.alpha_bar
    prior = GaussianSurrogate(alpha_bar, shape, size).to(chunks.device).set(*prior_values)
    student = None
    with torch.inference_mode():
        rounds = [work.rounds(prior, "rounds 1")]
    if effort.passes:
        if cond is not None:
            with torch.inference_mode():
                cond, found = work.broadly(cond)
            sequential, cond = Evaluated.join([sequential, _clone(found)]), cond.clone()
        student = StudentSurrogate(alpha_bar, shape, size, **effort.options).to(chunks.device)
        student.prior(*prior_values)
    for number, distillation in enumerate(effort.passes):
        assert student is not None
        if number:
            with torch.inference_mode():
                rounds.append(work.rounds(student, f"rounds {number + 1}"))
        bar = _Bar(progress, f"student {number + 1}", distillation.steps)
        recorded = _clone(Evaluated.join(rounds))
        distil(student, chain.clip, sequential, recorded, cond, distillation, work.generator, bar)
    return Calibration(prior, student)


class _Work:
    """The policy under calibration, with everything measured on it."""

    def __init__(
        self,
        denoiser: Denoiser,
        chain: GaussianChain,
        shape: torch.Size,
        cond: Tensor | None,
        generator: torch.Generator,
        effort: Effort,
        progress: Progress,
    ):
        self.denoiser, self.chain, self.shape, self.cond = denoiser, chain, shape, cond
        self.generator, self.effort, self.progress = generator, effort, progress
        self.device = device_of(denoiser, cond)
        self.model = Model(denoiser, self.device)
        # The last tenth is for tests.
        count = 1 if cond is None else len(cond)
        self.training = count if cond is None else count - max(count // 10, 1)
        self.count = count

    def sequential(self) -> tuple[Evaluated, Tensor, Tensor]:
        """Return evaluations of sequential chains, their final chunks (N, d), and each chunk's condition (N,)."""
        effort = self.effort
        single = self._choose(effort.chains)
        repeated = self._choose(effort.repeated).repeat_interleave(effort.repeats)
        chosen = torch.cat([single, repeated])
        bar = _Bar(self.progress, "sequential chains", len(chosen))
        record = record_sequential(self.model, self.chain, self.shape, self.cond, chosen, self._noise, bar.add)
        last = record.steps == len(self.chain) - 1
        return record, record.x0[last], record.condition[last]

    def broadly(self, cond: Tensor) -> tuple[Tensor, Evaluated]:
        """Return `cond` followed by invented conditions, and a few evaluations at each one that may be learnt from."""
        known = cond[: self.training]
        invented = invent(known, self.effort.invented, self.generator)
        bar = _Bar(self.progress, "single steps", len(known) + len(invented))
        place, parts = 0, []
        for part in (known, invented):
            found = record_scattered(
                self.model, self.chain, self.shape, part, self._noise, self.generator, self.effort.scattered, bar.add
            )
            parts.append(replace(found, condition=found.condition + place))
            place = len(cond)  # the conditions kept aside stand between
        return torch.cat([cond, invented]), Evaluated.join(parts)

    def rounds(self, surrogate: Surrogate, name: str) -> Evaluated:
        """Return evaluations in rounds of the recycled sampler."""
        chains = self.chains()
        lengths = {steps: self.effort.rounds // (1 if steps == len(self.chain) else 2) for steps in chains}
        bar, parts = _Bar(self.progress, name, sum(lengths.values())), []
        for steps, number in lengths.items():
            chosen, drafter = self._choose(number), Recording(surrogate, sweeps=3)
            parts.append(
                record_rounds(
                    self.model, chains[steps], self.shape, self.cond, chosen, self._noise, drafter, None, bar.add
                )
            )
        return Evaluated.join(parts)

    def chains(self) -> dict[int, GaussianChain]:
        """The chain and the shorter ones, by number of steps."""
        return {
            steps: self.chain if steps == len(self.chain) else self.chain.strided(steps)
            for steps in sorted({len(self.chain), *self.effort.steps}, reverse=True)
        }

    def trial(self) -> Trial:
        """Chains on conditions that nothing was trained on."""
        cond = None if self.cond is None else self.cond[min(self.training, self.count - 1) :]
        seed = int(torch.randint(2**62, (), generator=self.generator))
        return Trial(self.denoiser, self.shape, cond, self.device, seed, self.effort.tests)

    def _choose(self, number: int) -> Tensor:
        """(number,) indices of training conditions, each equally often."""
        order = torch.cat(
            [torch.randperm(self.training, generator=self.generator) for _ in range(-(-number // self.training))]
        )
        return order[:number].to(self.device)

    def _noise(self, batch: int) -> NoiseSource:
        return NoiseSource(self.generator, batch, self.device, torch.float32)


class _Bar:
    """Counts the progress of one stage."""

    def __init__(self, progress: Progress, name: str, total: int):
        self.progress, self.name, self.total, self.done = progress, name, total, 0

    def add(self, count: int) -> None:
        """Record `count` more units."""
        self.done += count
        self.progress(self.name, self.done, self.total)

    def __call__(self, loss: float) -> None:
        """Record one more training step."""
        self.add(1)


def _clone(record: Evaluated) -> Evaluated:
    return Evaluated(*(getattr(record, name).clone() for name in Evaluated.__dataclass_fields__))
