"""The decoders of token policies by name, with their options.

A name stands for a target distribution. `drafts` and `drafter` change the speed and no token.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from specpolicy.errors import SpecpolicyError
from specpolicy.tokens.calibration.calibration import DecoderCalibration, TokenCalibration
from specpolicy.tokens.graph import GraphDrafter, analytic_graphs
from specpolicy.tokens.lookahead import ChainDrafter, FixedPointDrafter
from specpolicy.tokens.rules import Rule, cosine_counts, fixed_counts
from specpolicy.tokens.speculative import Drafter

if TYPE_CHECKING:
    from specpolicy.tokens.bound import TokenSetting

DRAFTERS = ("graph", "chain", "fixed_point")
CONFIDENCES = ("max_probability", "entropy", "candidate")
WHOLE = 64  # most nodes that are drafted of a graph that was not calibrated


@dataclass(frozen=True)
class TokenSampler:
    """Options that all decoders share.

    Attributes:
        sampled: draw each token from its distribution; False: take the most probable one.
        noise: "position": a position has the same noise at all steps; "step": new noise at each (chain drafts only).
        drafts: most states drafted for each call. "calibrated": as many as calibration chose for this decoder and
            machine, which may be none; without a calibration, none. A number uses the graphs that were calibrated on
            any machine, or else analytic ones.
        drafter: "graph", "chain" or "fixed_point" (pre-drawn orders only); None: the best for the order.
        keep: of the drafts of a graph, keep that many, those that look best at run time; None: all. With drafts
            "calibrated" they are chosen from the whole graph.
        calibration: of a policy; None: the policy's own.

    Raises:
        SpecpolicyError: an option that is out of range, or options that exclude each other.
    """

    sampled: bool = True
    noise: str = "position"
    drafts: int | str = "calibrated"
    drafter: str | None = None
    keep: int | None = None
    calibration: TokenCalibration | None = field(default=None, repr=False)
    name: str = ""

    def __post_init__(self) -> None:
        if self.drafts != "calibrated" and not (isinstance(self.drafts, int) and self.drafts >= 0):
            raise SpecpolicyError(f"drafts={self.drafts}: expected a number, 0 for none, or calibrated")
        if self.drafter not in (None, *DRAFTERS):
            raise SpecpolicyError(f"unknown drafter '{self.drafter}': use one of {', '.join(DRAFTERS)}")
        if self.keep is not None and not (isinstance(self.keep, int) and self.keep > 0):
            raise SpecpolicyError(f"keep={self.keep}: expected a positive number of drafts, or null")
        rule = self.rule(4)
        if self.drafter == "fixed_point" and not rule.pre_drawn:
            raise SpecpolicyError("fixed-point drafts need an order that is drawn beforehand: random_order or raster")
        if self.drafter == "graph" and self.sampled and self.noise == "step":
            raise SpecpolicyError("a draft graph needs noise=position: several orders lead to one of its states")

    def rule(self, length: int) -> Rule:
        """Return the rule of the target distribution for chunks of `length` tokens."""
        raise NotImplementedError

    @property
    def distribution(self) -> str:
        """The target distribution in words. Samplers with the same words yield the same tokens from the same noise."""
        raise NotImplementedError

    def found_in(self, setting: TokenSetting) -> DecoderCalibration | None:
        """Return the calibration for this decoder: from its own calibration, else the setting's.

        Raises:
            SpecpolicyError: a calibration for other tokens.
        """
        calibration = setting.calibration if self.calibration is None else self.calibration
        if calibration is None:
            return None
        calibration.check(setting.length, setting.bins)
        return calibration.decoders.get(self.distribution)

    def learnt(self, setting: TokenSetting, backend: str) -> Iterator[Any]:
        """See `Sampler.learnt`: the drafter, as far as calibration chose it."""
        found = self.found_in(setting)
        drafter, drafts = self.resolved(found, backend)
        graphs = found.graphs if found is not None and drafter == "graph" else {}
        if found is None or not drafts or (self.drafts != "calibrated" and not graphs):
            return
        yield from (drafter, drafts)
        for masked, graph in sorted(graphs.items()):
            kept = graph.first(drafts)
            yield from (masked, kept.nodes, kept.weights)

    def resolved(self, found: DecoderCalibration | None = None, machine: str = "") -> tuple[str, int]:
        """Return (drafter, number of drafts); open options are taken from `found` for a `machine`."""
        drafts = self.drafts
        best = (
            "fixed_point" if self.rule(4).pre_drawn else "chain" if self.sampled and self.noise == "step" else "graph"
        )
        if found is not None and drafts == "calibrated":
            best = found.drafter
        kind = self.drafter or best
        whole = WHOLE if drafts == "calibrated" else int(drafts)
        if kind == "graph" and found is not None and found.graphs:
            whole = max(len(graph.nodes) for graph in found.graphs.values())
        if drafts != "calibrated":
            return kind, min(int(drafts), whole)
        if kind == "graph" and self.keep is not None:
            return kind, whole
        return kind, found.drafts.get(machine, 0) if found is not None and kind == found.drafter else 0

    def make_drafter(self, length: int, found: DecoderCalibration | None = None, machine: str = "") -> Drafter | None:
        """Return the drafter for this decoder; None: the ordinary decoder, without drafts."""
        kind, drafts = self.resolved(found, machine)
        if drafts == 0:
            return None
        if kind != "graph":
            return FixedPointDrafter(drafts) if kind == "fixed_point" else ChainDrafter(drafts)
        if found is not None and found.graphs:
            return GraphDrafter({masked: graph.first(drafts) for masked, graph in found.graphs.items()}, self.keep)
        graphs = analytic_graphs(self.rule(length), drafts)
        return GraphDrafter(graphs, self.keep) if graphs else None

    def describe_drafts(self, found: DecoderCalibration | None = None, machine: str = "") -> str | None:
        """ "graph, 16 drafts", or None if nothing is drafted."""
        kind, drafts = self.resolved(found, machine)
        kept = f", {self.keep} kept" if kind == "graph" and self.keep is not None and self.keep < drafts else ""
        return f"{kind.replace('_', ' ')}, {drafts} drafts{kept}" if drafts else None

    def _manner(self) -> str:
        by_step = ", noise by step" if self.noise == "step" else ""
        return f"sampled{by_step}" if self.sampled else "greedy"


@dataclass(frozen=True)
class ConfidenceDecoder(TokenSampler):
    """The most confident positions first, `tokens_per_step` at a time.

    `confidence` is that of the most probable token ("max_probability"), of the whole distribution ("entropy"), or of
    the drawn token ("candidate", as in MaskGIT, where the order then reads the noise).
    """

    tokens_per_step: int = 1
    confidence: str = "max_probability"
    name: str = "confidence"

    def __post_init__(self) -> None:
        _check_confidence(self.confidence)
        _check_count("tokens_per_step", self.tokens_per_step)
        super().__post_init__()

    def rule(self, length: int) -> Rule:
        """See `TokenSampler.rule`."""
        counts = fixed_counts(length, self.tokens_per_step)
        return Rule(length, counts, order=self.confidence, sampled=self.sampled, keyed=self.noise)

    @property
    def distribution(self) -> str:
        """See `TokenSampler.distribution`."""
        return f"{self.confidence}, {self.tokens_per_step} a step, {self._manner()}"


@dataclass(frozen=True)
class CosineDecoder(TokenSampler):
    """MaskGIT's schedule: few positions in the first steps, many in the last; steps that reveal none are left out."""

    steps: int = 12
    confidence: str = "max_probability"
    name: str = "cosine"

    def __post_init__(self) -> None:
        _check_confidence(self.confidence)
        _check_count("steps", self.steps)
        super().__post_init__()

    def rule(self, length: int) -> Rule:
        """See `TokenSampler.rule`."""
        counts = cosine_counts(length, self.steps)
        return Rule(length, counts, order=self.confidence, sampled=self.sampled, keyed=self.noise)

    @property
    def distribution(self) -> str:
        """See `TokenSampler.distribution`."""
        return f"{self.confidence}, cosine {self.steps}, {self._manner()}"


@dataclass(frozen=True)
class ThresholdDecoder(TokenSampler):
    """Every position whose most probable token has at least the probability `threshold`, and always one."""

    threshold: float = 0.7
    name: str = "threshold"

    def __post_init__(self) -> None:
        if not (isinstance(self.threshold, int | float) and 0 < self.threshold <= 1):
            raise SpecpolicyError(f"threshold={self.threshold}: expected a probability above 0")
        super().__post_init__()

    def rule(self, length: int) -> Rule:
        """See `TokenSampler.rule`."""
        return Rule(length, None, threshold=float(self.threshold), sampled=self.sampled, keyed=self.noise)

    @property
    def distribution(self) -> str:
        """See `TokenSampler.distribution`."""
        return f"threshold {self.threshold:g}, {self._manner()}"


@dataclass(frozen=True)
class RandomOrderDecoder(TokenSampler):
    """An order of the positions drawn beforehand; `tokens_per_step` at a time, or a cosine schedule of `steps`."""

    tokens_per_step: int = 1
    steps: int | None = None
    name: str = "random_order"

    order: ClassVar[str] = "random"

    def __post_init__(self) -> None:
        _check_count("tokens_per_step", self.tokens_per_step)
        if self.steps is not None:
            _check_count("steps", self.steps)
            if self.tokens_per_step != 1:
                raise SpecpolicyError(
                    f"tokens_per_step={self.tokens_per_step} and steps={self.steps} are two schedules: give one of them"
                )
        super().__post_init__()

    def rule(self, length: int) -> Rule:
        """See `TokenSampler.rule`."""
        counts = fixed_counts(length, self.tokens_per_step) if self.steps is None else cosine_counts(length, self.steps)
        return Rule(length, counts, order=self.order, sampled=self.sampled, keyed=self.noise)

    @property
    def distribution(self) -> str:
        """See `TokenSampler.distribution`. Where the order reads no noise, its keying changes only tokens."""
        schedule = f"{self.tokens_per_step} a step" if self.steps is None else f"cosine {self.steps}"
        order = "random order" if self.order == "random" else self.order
        return f"{order}, {schedule}, {self._manner()}"


@dataclass(frozen=True)
class RasterDecoder(RandomOrderDecoder):
    """Action by action, dimension by dimension."""

    name: str = "raster"

    order: ClassVar[str] = "raster"


DECODERS: dict[str, type[TokenSampler]] = {
    kind.name: kind for kind in (ConfidenceDecoder, CosineDecoder, ThresholdDecoder, RandomOrderDecoder, RasterDecoder)
}


def _check_confidence(confidence: str) -> None:
    if confidence not in CONFIDENCES:
        raise SpecpolicyError(f"unknown confidence '{confidence}': use one of {', '.join(CONFIDENCES)}")


def _check_count(option: str, value: Any) -> None:
    if not isinstance(value, int) or value < 1:
        raise SpecpolicyError(f"{option}={value}: expected a positive number")
