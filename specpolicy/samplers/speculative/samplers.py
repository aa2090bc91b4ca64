"""The exact speculative samplers by name: each is a drafter, a verifier and the loop."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from specpolicy.diffusion import GaussianChain
from specpolicy.errors import SpecpolicyError
from specpolicy.samplers.base import Chunks, Denoiser, NoiseSource, Sample
from specpolicy.samplers.speculative.batch import Batch
from specpolicy.samplers.speculative.drafters import (
    Corrected,
    CorrectionHead,
    Drafter,
    Free,
    FrozenRoot,
    Independent,
)
from specpolicy.samplers.speculative.host_chain import HostChain
from specpolicy.samplers.speculative.loop import Lengths, check_exact, longest_windows, speculate
from specpolicy.samplers.speculative.single import Single
from specpolicy.samplers.speculative.verifiers import Block, Reflection, Residual, Verifier

DRAFTERS = ("frozen_root", "free", "independent", "corrected")


class Speculation:
    """A drafter, a verifier and a chain, put together once; then called for every chunk.

    `single`: what drafts one chunk on the CPU; by default the drafter itself, where it can.

    Raises:
        SpecpolicyError: a chain without noise, parts that are not exact together, a window that is none.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        chain: GaussianChain,
        drafter: Drafter,
        verifier: Verifier,
        window: Lengths = None,
        single: Drafter | None = None,
    ):
        check_exact(chain, drafter, verifier)
        self.denoiser, self.chain, self.drafter, self.verifier = denoiser, chain, drafter, verifier
        self.single = drafter if single is None and drafter.single else single
        self.window = window
        self.host_chain, self.limits = HostChain(chain), longest_windows(window, len(chain))

    def __call__(self, chunks: Chunks) -> Sample:
        """Draw the chunks: one on the CPU in numpy, others as a batch of tensors."""
        if len(chunks.state) == 1 and chunks.state.device.type == "cpu" and self.single is not None:
            problem = Single(self.denoiser, self.host_chain, chunks, self.limits)
            return speculate(problem, self.single, self.verifier)
        return speculate(Batch(self.denoiser, self.chain, chunks, self.limits), self.drafter, self.verifier)


@dataclass(frozen=True)
class Speculative:
    """What all exact samplers share.

    window: most drafts in a round; a number, one per step (noisiest first), or None: draft to the end.
    steps, eta: as in `ddpm` and `ddim`: another chain of the same policy, which is another distribution.
    """

    verifier: ClassVar[type[Verifier]]

    window: Lengths = None
    steps: int | None = None
    eta: float | None = None

    def make_drafter(self) -> Drafter:
        """The drafter of one run.

        Raises:
            SpecpolicyError: it lacks what it needs: a draft model.
        """
        raise NotImplementedError

    def target(self, chain: GaussianChain) -> GaussianChain:
        """The chain whose distribution is sampled."""
        if self.eta is not None:
            return chain.with_ddim(self.steps or len(chain), self.eta)
        return chain if self.steps is None else chain.strided(self.steps)

    def prepare(self, denoiser: Denoiser, chain: GaussianChain, shape: torch.Size, device: torch.device) -> Speculation:
        """What draws chunks of `shape` (H, D) on a device."""
        return Speculation(denoiser, self.target(chain), self.make_drafter(), self.verifier(), self.window)

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
        draw = self.prepare(denoiser, chain, state.shape[1:], state.device)
        return draw(Chunks(state, cond, noise, return_states))


@dataclass(frozen=True)
class ASD(Speculative):
    """Autospeculative decoding (Hu et al. 2025): the frozen root, verified by reflection.

    The paper in code: `specpolicy.samplers.reference.autospeculative_decoding`.
    """

    name: str = "asd"
    verifier = Reflection

    def make_drafter(self) -> Drafter:
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

    def make_drafter(self) -> Drafter:
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
