"""What is tested for exactness: chains, and every verifier with every drafter and window; and what must fail.
`test_exactness.py` runs it with 10,000 chunks a case, `benchmarks/exactness.py` with many more."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from distribution_tests import ChainDistribution, Verdict
from many_rounds import ManyRounds
from mixtures import MixtureDenoiser, correction_head, mixture_denoiser
from scipy import stats

from specpolicy import GaussianChain, make_sampler, sample
from specpolicy.samplers import Sampler
from specpolicy.samplers.recycled.drafter import RecycledDrafter
from specpolicy.samplers.recycled.fixed import RecycledFixed
from specpolicy.samplers.recycled.rejoin import Rejoin, walk_together
from specpolicy.samplers.recycled.surrogates import GaussianSurrogate, StudentSurrogate
from specpolicy.samplers.speculative.drafters import Corrected, Drafter, Free, FrozenRoot, Independent
from specpolicy.samplers.speculative.loop import check_exact, longest_windows
from specpolicy.samplers.speculative.samplers import Speculation
from specpolicy.samplers.speculative.verifiers import VERIFIERS, Block, Reflection, Verifier
from specpolicy.samplers.speculative.verifiers import Verdict as Decided

SHAPE = (2, 2)
BATCH = 20_000  # chunks that are drawn together
WINDOWS = (1, 4, 16, None)
FALSE_ALARMS = 1e-3  # of all cases of a run together
CHAINS = {
    "ddpm": GaussianChain.ddpm(20),
    "strided": GaussianChain.ddpm(100, 10),
    "trailing": GaussianChain.ddpm(100, 12, spacing="trailing", beta_schedule="linear"),
    "sample prediction": GaussianChain.ddpm(100, 10, prediction="sample"),
    "v prediction": GaussianChain.ddpm(100, 10, prediction="v_prediction"),
    "unclipped": GaussianChain.ddpm(20, prediction="sample", clip=None),
    "fixed_large": GaussianChain.ddpm(16, variance="fixed_large"),
    # With an offset the last step of a fixed_large chain is noisy, too.
    "noisy last step": GaussianChain.ddpm(100, 8, variance="fixed_large", offset=5, prediction="sample"),
    "ddim": GaussianChain.ddpm(100).with_ddim(10, eta=1.0),
    "ddim, v prediction": GaussianChain.ddpm(100, prediction="v_prediction").with_ddim(8, eta=0.6),
    "ddim, epsilon of the clipped x0": GaussianChain.ddpm(100).with_ddim(10, eta=0.8, reuse_epsilon=False),
    "flow": GaussianChain.from_flow(12),
    "flow, ddim": GaussianChain.from_flow(100, noise_at=1, sigma_min=0.02, clip=1.0).with_ddim(10, eta=0.7),
}


def poor_denoiser(chain):
    """A draft model: a mixture with one kind of chunk too few and another spread."""
    full = MixtureDenoiser(chain.process)
    return MixtureDenoiser(chain.process, 0.3, full.centres[:2], torch.tensor([0.5, 0.5], dtype=torch.float64))


@lru_cache
def student(chain, shape):
    """A student with random weights, which guesses badly: exactness must not depend on what it has learnt."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        made = StudentSurrogate(chain.process.alpha_bar, shape, 0, width=8, context=2, hidden=16, blocks=0)
        torch.nn.init.normal_(made.out.weight, std=0.3)
        made.prior(0.3 * torch.eye(shape[0] * shape[1]), torch.zeros(shape[0] * shape[1], 0), torch.zeros(4))
    return made


def without_rejoining(chain, shape):
    """The recycled drafter as it is where each wait for a device is dear."""
    return RecycledDrafter(GaussianSurrogate.smooth(chain.process.alpha_bar, shape), rejoin=False)


def with_student(chain, shape):
    """The recycled drafter as calibrated: a student, three sweeps."""
    return RecycledDrafter(student(chain, tuple(shape)), 3)


# Every drafter: name -> function of the chain and the shape (H, D).
DRAFTERS: dict[str, Callable[[GaussianChain, tuple[int, int]], Drafter]] = {
    "frozen_root": lambda chain, shape: FrozenRoot(),
    "free": lambda chain, shape: Free(),
    "independent": lambda chain, shape: Independent(poor_denoiser(chain)),
    "corrected": lambda chain, shape: Corrected(correction_head),
    "recycled": lambda chain, shape: RecycledDrafter(GaussianSurrogate.smooth(chain.process.alpha_bar, shape)),
    "recycled, 1 sweep": lambda chain, shape: RecycledDrafter(
        GaussianSurrogate.smooth(chain.process.alpha_bar, shape), 1
    ),
    "recycled, no rejoining": without_rejoining,
    "recycled, student": with_student,
}
# The verifier that each drafter is mostly used with.
USUAL_VERIFIER = {name: "block" if name == "free" else "reflection" for name in DRAFTERS}


class Skewed(FrozenRoot):
    """A poor but honest drafter: each mean is off by one sigma in the same direction, so that rejections and gaps
    pile up. Under it, what is not exact is far off."""

    name = "skewed"

    single = False

    def draft(self, memory, problem, window):
        """See `Drafter.draft`."""
        honest = super().draft(memory, problem, window)
        off = honest.x0 + in_sigmas(honest.x0.new_tensor(problem.shape.numel() ** -0.5), problem, window)
        return problem.follow(window, problem.chain.clip(off), honest.known.x0[:, 0])


def in_sigmas(shift, problem, window):
    """The change of x0 at each draft that moves its mean by `shift`, in units of sigma."""
    steps = window.steps[:, : window.drafts]
    chain = problem.chain
    return shift * (chain.sigma / chain.x0_weight).to(shift)[steps][..., None, None]


@dataclass(frozen=True)
class Composed(Sampler):
    """Any drafter with any verifier, as a sampler."""

    name: ClassVar[str] = "composed"

    drafter: Callable[[GaussianChain, tuple[int, int]], Drafter]
    verifier: Verifier
    window: int | tuple[int, ...] | None = None

    def bind(self, setting):
        """See `Sampler.bind`."""
        drafter = self.drafter(setting.chain, setting.shape)
        return Speculation(setting.chain, drafter, self.verifier, self.window)


@dataclass(frozen=True)
class InFixedShapes(Composed):
    """A drafter for rounds of fixed shapes with any verifier, as a sampler."""

    name: ClassVar[str] = "fixed shapes"

    def bind(self, setting):
        """See `Sampler.bind`."""
        drafter = self.drafter(setting.chain, setting.shape)
        check_exact(setting.chain, drafter, self.verifier)
        return ManyRounds(setting.chain, drafter, self.verifier, longest_windows(self.window, len(setting.chain)))


def fixed_with_student(chain, shape):
    """What is captured on a GPU, as calibrated."""
    return RecycledFixed(student(chain, tuple(shape)), 3)


def fixed_without_student(chain, shape):
    """The same without a calibration."""
    return RecycledFixed(GaussianSurrogate.smooth(chain.process.alpha_bar, shape), 1)


# Drafters in rounds of fixed shapes.
FIXED: dict[str, Callable[[GaussianChain, tuple[int, int]], Drafter]] = {
    "frozen_root": DRAFTERS["frozen_root"],
    "free": DRAFTERS["free"],
    "recycled": fixed_without_student,
    "recycled, student": fixed_with_student,
}


# -- what is not exact, and must be found out -----------------------------------------------------------------------


class RedrawAfterRejection(Reflection):
    """Draws a rejected coordinate anew from the target, which counts the accepted part twice."""

    def target_coordinate(self, delta, coordinate, uniform):
        """See `TokenVerifier`."""
        return stats.norm.ppf(np.maximum(uniform, 1e-300))


class ReflectionInBlock(Block):
    """Mirrors the noise behind a block: right only where the prefix was accepted for sure."""

    def decide(self, delta, coordinate, uniform, second, width):
        """See `Verifier.decide`."""
        decision = super().decide(delta, coordinate, uniform, second, width)
        row = np.flatnonzero(decision.accepted < width)
        shift = np.zeros_like(decision.shift)
        shift[row] = -2 * coordinate[row, decision.accepted[row]]
        return Decided(decision.accepted, shift)


class BlockKeepsNoise(Block):
    """Uses the noises behind a block again, although the block's length depends on them."""

    keeps_noise = True


class Peeking(FrozenRoot):
    """Its guess at a step knows the noise that this step will add."""

    name = "peeking"

    single = False

    def draft(self, memory, problem, window):
        """See `Drafter.draft`."""
        honest = super().draft(memory, problem, window)
        wrong = honest.x0 + in_sigmas(0.5 * window.noise[:, : window.drafts], problem, window)
        return problem.follow(window, problem.chain.clip(wrong), honest.known.x0[:, 0])


class RejoinWithoutMirrors(Rejoin):
    """Rejoins old paths where it may, and keeps the noise as it was where it does not."""

    def walk(self, *parts):
        """See `Rejoin.walk`."""
        start, gaps, known, noise, weight, sigma, met, chance, moved, share, joined = parts
        for step in range(gaps.shape[1]):
            at = slice(step, step + 1)
            here = (part[:, at] for part in (gaps, known, noise, weight, sigma, met, chance, moved, share, joined))
            here = [np.ascontiguousarray(part) for part in here]
            if step:
                stays = joined[:, step - 1, None, None]
                # On the old path, where the walk has met it, its next mean is known: a walk of one step from there.
                here[0] = np.where(stays, here[1], here[0])
                start = np.where(joined[:, step - 1, None], 0.0, moved[:, step - 1])
            walk_together(start, *here)
            moved[:, at], share[:, at], joined[:, at] = here[-3], 1.0 - here[-1], here[-1]


class WithoutMirrors(RecycledDrafter):
    """See `RejoinWithoutMirrors`."""

    rejoining = RejoinWithoutMirrors


def without_mirrors(chain, shape):
    """See `WithoutMirrors`."""
    return WithoutMirrors(GaussianSurrogate.smooth(chain.process.alpha_bar, shape))


def skewed(chain, shape):
    """See `Skewed`."""
    return Skewed()


CONTROLS = {
    "redraw after a rejection": Composed(skewed, RedrawAfterRejection()),
    "reflection inside block verification": Composed(skewed, ReflectionInBlock()),
    "kept noises under block verification": Composed(skewed, BlockKeepsNoise()),
    "kept noises under block verification, recycled": Composed(without_rejoining, BlockKeepsNoise()),
    "kept noises under block verification, fixed shapes": InFixedShapes(fixed_without_student, BlockKeepsNoise()),
    "rejoining where it may, without mirrored noises": Composed(without_mirrors, Reflection()),
    "a draft that sees its own noise": Composed(lambda chain, shape: Peeking(), Reflection()),
}


# -- cases ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One sampler on one chain; `conditioned`: each chunk has a condition of its own."""

    sampler: object
    name: str
    chain: str = "ddpm"
    window: int | str | None = None
    conditioned: bool = False
    dtype: torch.dtype = torch.float32
    slow: bool = False  # not in the continuous run

    @property
    def id(self) -> str:
        """Its name among all cases."""
        extra = ", conditioned" * self.conditioned + ", float64" * (self.dtype == torch.float64)
        return f"{self.name}, window {self.window}, {self.chain}{extra}"

    @property
    def seed(self) -> int:
        """Of its random numbers: fixed, and its own."""
        return zlib.crc32(self.id.encode())


def every_combination():
    """Verifiers x drafters x windows; combinations that are refused are left out. And on the chain of the controls
    the drafter of the controls, to show that it is not to blame for their failure."""
    for verifier, kind in VERIFIERS.items():
        for drafter, make in DRAFTERS.items():
            if drafter.startswith("recycled") and not kind.keeps_noise:
                continue
            if drafter.startswith("recycled, ") and verifier != USUAL_VERIFIER[drafter]:
                continue  # variants of one drafter
            for window in WINDOWS:
                slow = window not in ((1, 4, None) if verifier == USUAL_VERIFIER[drafter] else (None,))
                yield Case(Composed(make, kind(), window), f"{verifier} + {drafter}", window=window, slow=slow)
        if kind.keeps_noise:  # as calibrated windows do
            sampler = Composed(DRAFTERS["recycled"], kind(), tuple(1 + step * 7 % 11 for step in range(20)))
            yield Case(sampler, f"{verifier} + recycled", window="by step")
        for window in WINDOWS:
            name, slow = f"{verifier} + skewed", window != 4
            yield Case(Composed(skewed, kind(), window), name, "unclipped", window, slow=slow)


def every_chain():
    """The samplers by name on every chain, and once in float64; each chunk has a condition of its own. The continuous
    run has the recycled sampler on each chain, and takes turns with the others."""
    samplers = {name: make_sampler(name, window=None) for name in ("asd", "reflection", "residual", "block")}
    samplers["recycled"] = make_sampler("recycled")
    samplers["reflection"] = replace(samplers["reflection"], drafter="corrected", head=correction_head)
    for place, chain in enumerate(CHAINS):
        for turn, (name, sampler) in enumerate(samplers.items()):
            slow = name != "recycled" and place % 4 != turn
            yield Case(sampler, name, chain, conditioned=True, slow=slow)
    for name, sampler in samplers.items():
        yield Case(sampler, name, "ddim", dtype=torch.float64, slow=name != "recycled")


def in_fixed_shapes():
    """Rounds of fixed shapes with every verifier they go with; the recycled one on every chain."""
    for verifier, kind in VERIFIERS.items():
        for drafter, make in FIXED.items():
            if drafter.startswith("recycled") and not kind.keeps_noise:
                continue
            for window in (5, None):
                name, slow = f"{verifier} + {drafter}, fixed shapes", window is None or drafter == "recycled"
                yield Case(InFixedShapes(make, kind(), window), name, window=window, slow=slow)
    for chain in list(CHAINS)[1:]:
        sampler = InFixedShapes(fixed_with_student, Reflection())
        yield Case(
            sampler, "reflection + recycled, student, fixed shapes", chain, slow=chain not in ("ddim", "unclipped")
        )


CASES = [*every_combination(), *every_chain(), *in_fixed_shapes()]
CONTROL_CASES = [Case(sampler, name, "unclipped") for name, sampler in CONTROLS.items()]
CONTROL_CASES += [
    Case(CONTROLS[name], f"{name}, flow", "flow")
    for name in ("redraw after a rejection", "a draft that sees its own noise")
]


def draw(case, sampler, n, seed):
    """States (K+1, n, H, D), their conditions and the statistics of each of several batches of `sampler`, in the
    setting of a case."""
    chain = CHAINS[case.chain]
    generator = torch.Generator().manual_seed(seed)
    cond = None
    if case.conditioned:
        cond = 0.3 * torch.randint(-1, 2, (n, *SHAPE), generator=generator).to(case.dtype)
    denoiser, states, statistics = mixture_denoiser(chain), [], []
    for start in range(0, n, BATCH):
        part = None if cond is None else cond[start : start + BATCH]
        shape = (min(BATCH, n - start), *SHAPE)
        out = sample(denoiser, chain, shape, part, sampler, generator, return_states=True, dtype=case.dtype)
        states.append(out.states)
        statistics.append(out.stats)
    return torch.cat(states, dim=1), cond, statistics


@lru_cache(maxsize=2)  # cases of one chain follow each other; a distribution holds all of its reference samples
def distribution_of(chain: str, conditioned: bool, dtype: torch.dtype, n: int) -> ChainDistribution:
    """The tests against n chunks of the sequential sampler."""
    case = Case(None, "", chain, None, conditioned, dtype)
    states, cond, _ = draw(case, "ddpm", n, seed=1)
    return ChainDistribution(mixture_denoiser(CHAINS[chain]), CHAINS[chain], states, cond)


def judge(case: Case, n: int) -> tuple[Verdict, list]:
    """The verdict on n chunks of a case, and the statistics of their batches."""
    distribution = distribution_of(case.chain, case.conditioned, case.dtype, 2 * n)
    states, cond, statistics = draw(case, case.sampler, n, case.seed)
    return distribution(states, cond), statistics
