"""The exact speculative samplers by name: each is a drafter, a verifier and the loop."""

import functools
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from specpolicy.diffusion import GaussianChain
from specpolicy.errors import SpecpolicyError
from specpolicy.samplers.base import Denoiser, NoiseSource, Sample
from specpolicy.samplers.speculative.calibration import Calibration
from specpolicy.samplers.speculative.calibration.calibration import machine
from specpolicy.samplers.speculative.drafters import (
    Corrected,
    CorrectionHead,
    Drafter,
    Free,
    FrozenRoot,
    Independent,
    Recycled,
)
from specpolicy.samplers.speculative.loop import Windows, speculate
from specpolicy.samplers.speculative.surrogates import GaussianSurrogate
from specpolicy.samplers.speculative.verifiers import Block, Reflection, Residual, Verifier

DRAFTERS = ("frozen_root", "free", "independent", "corrected")


@dataclass(frozen=True)
class Speculative:
    """What all exact samplers share.

    window: most drafts in a round; a number, one per step (noisiest first), or None: draft to the end.
    steps, eta: as in `ddpm` and `ddim`: another chain of the same policy, which is another law.
    """

    verifier: ClassVar[type[Verifier]]

    window: Windows = None
    steps: int | None = None
    eta: float | None = None

    def make_drafter(self, chain: GaussianChain, shape: torch.Size) -> Drafter:
        """The drafter of one run, for chunks of `shape` (H, D).

        Raises:
            SpecpolicyError: it lacks what it needs: a draft model, a calibration for this policy.
        """
        raise NotImplementedError

    def parts(self, chain: GaussianChain, shape: torch.Size, machine: str) -> tuple[Drafter, Windows]:
        """The drafter of one run, for chunks of `shape` (H, D), and the longest window at each step."""
        return self.make_drafter(chain, shape), self.window

    def target(self, chain: GaussianChain) -> GaussianChain:
        """The chain whose law is sampled."""
        if self.eta is not None:
            return chain.with_ddim(self.steps or len(chain), self.eta)
        return chain if self.steps is None else chain.strided(self.steps)

    def run(
        self,
        denoiser: Denoiser,
        chain: GaussianChain,
        state: Tensor,
        cond: Tensor | None,
        noise: NoiseSource,
        return_states: bool = False,
    ) -> Sample:
        """See `Sampler.run`."""
        chain = self.target(chain)
        drafter, window = self.parts(chain, state.shape[1:], machine(state.device, denoiser))
        return speculate(denoiser, chain, state, cond, noise, drafter, self.verifier(), window, return_states)


@dataclass(frozen=True)
class ASD(Speculative):
    """Autospeculative decoding (Hu et al. 2025): the frozen root, verified by reflection.

    The paper in code: `specpolicy.samplers.reference.autospeculative_decoding`.
    """

    name: str = "asd"
    verifier = Reflection

    def make_drafter(self, chain: GaussianChain, shape: torch.Size) -> Drafter:
        """See `Speculative.make_drafter`."""
        return FrozenRoot()


@dataclass(frozen=True)
class WithDrafter(Speculative):
    """A sampler that takes any drafter: one of `DRAFTERS`.

    draft_denoiser: for "independent", any smaller denoiser. head: for "corrected", see `CorrectionHead`.
    """

    drafter: str = "free"
    draft_denoiser: Denoiser | None = None
    head: CorrectionHead | None = None

    def make_drafter(self, chain: GaussianChain, shape: torch.Size) -> Drafter:
        """See `Speculative.make_drafter`."""
        if self.drafter == "frozen_root":
            return FrozenRoot()
        if self.drafter == "free":
            return Free()
        if self.drafter == "independent":
            if self.draft_denoiser is None:
                raise SpecpolicyError(
                    "drafter 'independent' needs draft_denoiser=, a smaller denoiser (specpolicy train_drafter)"
                )
            return Independent(self.draft_denoiser)
        if self.drafter == "corrected":
            if self.head is None:
                raise SpecpolicyError(
                    "drafter 'corrected' needs head=, a trained correction head (specpolicy train_drafter)"
                )
            return Corrected(self.head)
        raise SpecpolicyError(f"unknown drafter '{self.drafter}': use one of {', '.join(DRAFTERS)}")


@dataclass(frozen=True)
class ReflectionSampler(WithDrafter):
    """Speculative sampling with the reflection coupling (De Bortoli et al. 2025).

    The paper in code: `specpolicy.samplers.reference.speculative_sampling`.
    """

    drafter: str = "frozen_root"
    name: str = "reflection"
    verifier = Reflection


@dataclass(frozen=True)
class ResidualSampler(WithDrafter):
    """Original speculative sampling with the one-dimensional residual (Soen et al. 2026).

    The paper in code: `specpolicy.samplers.reference.residual_speculative_sampling`.
    """

    name: str = "residual"
    verifier = Residual


@dataclass(frozen=True)
class BlockSampler(WithDrafter):
    """Block verification, by default with the Free Drafter (Soen et al. 2026).

    The paper in code: `specpolicy.samplers.reference.block_verification`.
    """

    name: str = "block"
    verifier = Block


@dataclass(frozen=True)
class RecycledSampler(Speculative):
    """This project's sampler: recycled evaluations, carried by a surrogate of the network, verified by reflection.

    calibration: see `specpolicy.calibrate`; without one, a prior that knows only that chunks are smooth serves.
    calibrated: False does without one also where a policy has it.
    student: False uses the calibration's linear surrogate; None: as calibrated. sweeps: of drafting, see `Recycled`.
    rejoin: lead drafted paths back onto earlier ones, see `Rejoin`: fewer calls of fewer rows. None: on a CPU only, for
    elsewhere each sweep then waits for the device.
    window: "calibrated", the default, is the fastest for the chain's length and this kind of machine, as calibrated.
    """

    window: Windows | Literal["calibrated"] = "calibrated"  # type: ignore[assignment]
    calibration: Calibration | None = None
    calibrated: bool = True
    student: bool | None = None
    sweeps: int | None = None
    rejoin: bool | None = None
    name: str = "recycled"
    verifier = Reflection

    @property
    def wants_calibration(self) -> bool:
        """Whether a policy's calibration is to be used."""
        return self.calibrated and self.calibration is None

    def make_drafter(self, chain: GaussianChain, shape: torch.Size) -> Drafter:
        """See `Speculative.make_drafter`."""
        if self.calibration is None:
            # One sweep: what knows only smoothness is best trusted for one small correction.
            prior = _smooth(tuple(chain.process.alpha_bar.tolist()), tuple(shape))
            return Recycled(prior, self.sweeps or 1, rejoin=self.rejoin)
        student = self.student is not False
        return self._drafter(chain, shape, student, self.sweeps or self.calibration.sweeps)

    def parts(self, chain: GaussianChain, shape: torch.Size, machine: str) -> tuple[Drafter, Windows]:
        """See `Speculative.parts`."""
        plan = None if self.calibration is None else self.calibration.plan(chain, machine)
        if self.window != "calibrated":
            return self.make_drafter(chain, shape), self.window
        if plan is None:
            return self.make_drafter(chain, shape), None
        student = plan.student if self.student is None else self.student
        return self._drafter(chain, shape, student, self.sweeps or plan.sweeps), plan.windows

    def _drafter(self, chain: GaussianChain, shape: torch.Size, student: bool, sweeps: int) -> Drafter:
        assert self.calibration is not None
        self.calibration.check(chain, shape)
        return Recycled(self.calibration.surrogate(student), sweeps, self.rejoin)


@functools.lru_cache(maxsize=8)
def _smooth(alpha_bar: tuple[float, ...], shape: tuple[int, int]) -> GaussianSurrogate:
    """The prior of one who knows nothing of a policy, made once and not for every chunk."""
    with torch.inference_mode(False):
        return GaussianSurrogate.smooth(torch.tensor(alpha_bar, dtype=torch.float64), torch.Size(shape))
