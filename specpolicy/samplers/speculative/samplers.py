"""The exact speculative samplers by name: each is a drafter, a verifier and the loop."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from specpolicy.diffusion import GaussianChain
from specpolicy.engines.capture import Capture
from specpolicy.errors import SpecpolicyError
from specpolicy.model import Model
from specpolicy.samplers.base import Chunks, Denoiser, Sample, Sampler, Setting
from specpolicy.samplers.options import check_amounts, check_counts, check_window
from specpolicy.samplers.rounds.batch import Batch
from specpolicy.samplers.rounds.captured import CapturedRounds
from specpolicy.samplers.rounds.host_chain import HostChain
from specpolicy.samplers.rounds.single import Single
from specpolicy.samplers.speculative import verifiers
from specpolicy.samplers.speculative.drafters import (
    Corrected,
    CorrectionHead,
    Drafter,
    Free,
    FrozenRoot,
    Independent,
)
from specpolicy.samplers.speculative.loop import Lengths, check_exact, longest_windows, speculate
from specpolicy.samplers.speculative.verifiers import Verifier

AUTO = "auto"
CPU_DRAFTS = 16  # what is fastest, or nearly so, of every policy and engine that docs/results/samplers.md measures
DRAFTERS = ("frozen_root", "free", "independent", "corrected")


class Speculation:
    """A drafter, a verifier and a chain, combined once and then called for every chunk.

    `single`, `fixed`: drafters for one chunk on the CPU and for rounds of fixed shapes; by default the drafter itself,
    where it can. `capture`: the capture function of the network's engine, which runs such rounds.

    Raises:
        SpecpolicyError: a chain without noise, parts that are not exact together, an invalid window.
    """

    def __init__(
        self,
        chain: GaussianChain,
        drafter: Drafter,
        verifier: Verifier,
        window: Lengths = None,
        single: Drafter | None = None,
        fixed: Drafter | None = None,
        capture: Capture | None = None,
    ):
        check_exact(chain, drafter, verifier)
        self.chain, self.drafter, self.verifier = chain, drafter, verifier
        self.single = drafter if single is None and drafter.single else single
        self.window = window
        self.host_chain, self.limits = HostChain(chain), longest_windows(window, len(chain))
        fixed = drafter if fixed is None and drafter.single else fixed
        self.captured: CapturedRounds | None = None
        if capture is not None and fixed is not None:
            self.captured = CapturedRounds(chain, fixed, verifier, self.limits, capture)

    def __call__(self, model: Model, chunks: Chunks) -> Sample:
        """Draw the chunks: one in captured rounds or else on the CPU in numpy, several as a batch of tensors."""
        if len(chunks.state) == 1 and self.captured is not None:
            return self.captured(model, chunks)
        if len(chunks.state) == 1 and chunks.state.device.type == "cpu" and self.single is not None:
            problem = Single(model, self.host_chain, chunks, self.limits)
            return speculate(problem, self.single, self.verifier)
        return speculate(Batch(model, self.chain, chunks, self.limits), self.drafter, self.verifier)


@dataclass(frozen=True)
class Speculative(Sampler):
    """Options that all exact samplers share.

    Attributes:
        window: most drafts in a round: a number, one per step (noisiest first), or None: draft to the end, for the
            fewest calls. "auto": 16 on a CPU, where each row takes its time; to the end elsewhere.
        steps: length of a shorter chain of the same policy, which has another distribution; None: the policy's own.
        eta: noise of a DDIM chain, which has another distribution, too; None: the policy's own chain.
    """

    verifier: ClassVar[type[Verifier]]

    window: Lengths | Literal["auto"] = "auto"
    steps: int | None = None
    eta: float | None = None

    def __post_init__(self) -> None:
        check_window(self, also=(AUTO,))
        check_counts(self, "steps")
        check_amounts(self, "eta", optional=True)

    def target(self, chain: GaussianChain) -> GaussianChain:
        """See `Sampler.target`."""
        if self.eta is not None:
            return chain.with_ddim(self.steps or len(chain), self.eta)
        return chain if self.steps is None else chain.strided(self.steps)

    def most_drafts(self, setting: Setting) -> Lengths:
        """Return the most drafts in a round, as `Speculation` takes them."""
        if not isinstance(self.window, str):
            return self.window
        return CPU_DRAFTS if setting.model.device.type == "cpu" else None

    @abstractmethod
    def bind(self, setting: Setting) -> Speculation:
        """See `Sampler.bind`."""


@dataclass(frozen=True)
class ASD(Speculative):
    """Autospeculative decoding (Hu et al. 2025): the frozen root, verified by reflection.

    The paper in code: `specpolicy.samplers.reference.autospeculative_decoding`.
    """

    name: ClassVar[str] = "asd"
    verifier = verifiers.Reflection

    def bind(self, setting: Setting) -> Speculation:
        """See `Sampler.bind`."""
        parts = FrozenRoot(), self.verifier(), self.most_drafts(setting)
        return Speculation(self.target(setting.chain), *parts, capture=setting.model.capture)


@dataclass(frozen=True)
class WithDrafter(Speculative):
    """A sampler with any drafter of `DRAFTERS`.

    Attributes:
        drafter: "frozen_root", "free", "independent" or "corrected".
        draft_denoiser: for "independent", any smaller denoiser; None: the policy's own draft model.
        head: for "corrected", see `CorrectionHead`; None: the policy's own.
    """

    drafter: str = "free"
    draft_denoiser: Denoiser | None = None
    head: CorrectionHead | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.drafter not in DRAFTERS:
            raise SpecpolicyError(f"unknown drafter {self.drafter!r}: use one of {', '.join(DRAFTERS)}")

    def bind(self, setting: Setting) -> Speculation:
        """See `Sampler.bind`."""
        parts = self._drafter(setting), self.verifier(), self.most_drafts(setting)
        return Speculation(self.target(setting.chain), *parts, capture=setting.model.capture)

    def learnt(self, setting: Setting, backend: str) -> Iterator[Any]:
        """See `Sampler.learnt`."""
        if self.drafter == "independent":
            yield from ("draft_denoiser", self.draft_denoiser or setting.draft_denoiser)
        if self.drafter == "corrected":
            yield from ("head", self.head or setting.draft_head)

    def _drafter(self, setting: Setting) -> Drafter:
        told = setting.continuation
        if self.drafter == "frozen_root":
            return FrozenRoot()
        if self.drafter == "free":
            return Free()
        if self.drafter == "independent":
            denoiser = self.draft_denoiser or setting.draft_denoiser
            if denoiser is None:
                raise SpecpolicyError(
                    "drafter 'independent' needs draft_denoiser=, a smaller denoiser (specpolicy train_drafter)"
                )
            return Independent(denoiser if told is None else told.denoiser(denoiser))
        head = self.head or setting.draft_head
        if head is None:
            raise SpecpolicyError(
                "drafter 'corrected' needs head=, a trained correction head (specpolicy train_drafter)"
            )
        return Corrected(head if told is None else told.head(head))


@dataclass(frozen=True)
class Reflection(WithDrafter):
    """Speculative sampling with the reflection coupling (De Bortoli et al. 2025).

    The paper in code: `specpolicy.samplers.reference.speculative_sampling`.
    """

    name: ClassVar[str] = "reflection"
    verifier = verifiers.Reflection

    drafter: str = "frozen_root"


@dataclass(frozen=True)
class Residual(WithDrafter):
    """Original speculative sampling with the one-dimensional residual (Soen et al. 2026).

    The paper in code: `specpolicy.samplers.reference.residual_speculative_sampling`.
    """

    name: ClassVar[str] = "residual"
    verifier = verifiers.Residual


@dataclass(frozen=True)
class Block(WithDrafter):
    """Block verification, by default with the Free Drafter (Soen et al. 2026).

    The paper in code: `specpolicy.samplers.reference.block_verification`.
    """

    name: ClassVar[str] = "block"
    verifier = verifiers.Block
