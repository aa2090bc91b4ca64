"""Actions as tokens: each dimension of an action falls into one of V bins, uniform ones or quantiles of the data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import check_ranges, parse

KINDS = ("uniform", "quantile")
FEWEST, MOST = 2, 4096
FURTHEST = 1e6  # of a bin, in units of normalised actions
ROUNDING = 1e-6  # of the range: the normaliser may move the extremes of the data by this much


@dataclass(frozen=True)
class TokenOptions:
    """Options of the bins that are fitted to the data when training starts."""

    kind: Literal["uniform", "quantile"] = "uniform"
    bins: int = 64

    def __post_init__(self) -> None:
        check_ranges(self, bins=(FEWEST, MOST))


@dataclass(frozen=True)
class UniformBins:
    """Bins as stored in a checkpoint: of equal width over [-1, 1]."""

    bins: int
    kind: Literal["uniform"] = "uniform"

    def __post_init__(self) -> None:
        check_ranges(self, bins=(FEWEST, MOST))


@dataclass(frozen=True)
class QuantileBins:
    """Bins as stored in a checkpoint: `centres` (D, V) within `low` and `high` (D,)."""

    bins: int
    centres: Sequence[Sequence[float]]
    low: Sequence[float]
    high: Sequence[float]
    kind: Literal["quantile"] = "quantile"

    def __post_init__(self) -> None:
        check_ranges(self, bins=(FEWEST, MOST), low=(-FURTHEST, FURTHEST), high=(-FURTHEST, FURTHEST))
        if any(len(row) != self.bins for row in self.centres):
            raise SpecpolicyError(f"centres must have bins={self.bins} numbers in each dimension")
        if any(not abs(value) <= FURTHEST for row in self.centres for value in row):
            raise SpecpolicyError(f"centres of normalised actions must not exceed {FURTHEST:g} in size")
        if not len(self.centres) == len(self.low) == len(self.high):
            raise SpecpolicyError("centres, low and high must be of as many dimensions")
        if any(low > high for low, high in zip(self.low, self.high, strict=True)):
            raise SpecpolicyError("low must not exceed high")


Bins = UniformBins | QuantileBins


@dataclass(frozen=True)
class Encoded:
    """`tokens` (..., D) int64, and the count of numbers outside the bins, which were clipped into the nearest one."""

    tokens: Tensor
    clipped: int


class Tokeniser(nn.Module):
    """Bins of normalised actions: `centres` (D, V), rising in each dimension, within `low` and `high` (D,).

    A number belongs to the bin with the nearest centre and is decoded to that centre, so the centres make an exact
    round trip.

    Raises:
        SpecpolicyError: an unknown kind, too few or too many bins, or centres that do not rise.
    """

    centres: Tensor
    edges: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, centres: Tensor, low: Tensor, high: Tensor, kind: str = "uniform"):
        super().__init__()
        if kind not in KINDS:
            raise SpecpolicyError(f"unknown kind of tokens '{kind}': use one of {', '.join(KINDS)}")
        centres = centres.float()
        if centres.dim() != 2 or not FEWEST <= centres.shape[1] <= MOST or not bool((centres.diff(dim=1) > 0).all()):
            raise SpecpolicyError(f"tokens need {FEWEST} to {MOST} bins, with centres that rise in each dimension")
        self.kind = kind
        self.register_buffer("centres", centres, persistent=False)
        self.register_buffer("edges", (centres[:, 1:] + centres[:, :-1]) / 2, persistent=False)
        self.register_buffer("low", low.float(), persistent=False)
        self.register_buffer("high", high.float(), persistent=False)

    @classmethod
    def uniform(cls, dimensions: int, bins: int) -> "Tokeniser":
        """Make bins of equal width over [-1, 1], the range of normalised actions."""
        _check_bins(bins)
        centres = (torch.arange(bins, dtype=torch.float64) * 2 + 1) / bins - 1
        ones = torch.ones(dimensions)
        return cls(centres.expand(dimensions, -1).clone(), -ones, ones, "uniform")

    @classmethod
    def quantile(cls, actions: Tensor, bins: int) -> "Tokeniser":
        """Make bins that hold equal numbers of the `actions` (..., D).

        Where one value would fill several bins, as the two positions of a gripper do, the spare bins go halfway into
        the widest gaps between the others.
        """
        _check_bins(bins)
        flat = actions.flatten(end_dim=-2).double()
        levels = (torch.arange(bins, dtype=torch.float64) + 0.5) / bins
        centres = [_spread(column.sort().values, levels) for column in flat.unbind(dim=1)]
        return cls(torch.stack(centres), flat.amin(dim=0), flat.amax(dim=0), "quantile")

    @property
    def bins(self) -> int:
        """V, the number of bins."""
        return self.centres.shape[1]

    def encode(self, actions: Tensor) -> Encoded:
        """Return the tokens of normalised actions (..., D).

        Raises:
            SpecpolicyError: actions of another number of dimensions, or numbers that are not finite.
        """
        if actions.dim() == 0 or actions.shape[-1] != len(self.centres):
            raise SpecpolicyError(
                f"actions of shape {tuple(actions.shape)}: these tokens are for {len(self.centres)} dimensions"
            )
        if not bool(torch.isfinite(actions).all()):
            raise SpecpolicyError("actions that are not finite have no tokens: check the demonstrations")
        columns = actions.float().unbind(dim=-1)
        tokens = [
            torch.bucketize(column.contiguous(), edges) for column, edges in zip(columns, self.edges, strict=True)
        ]
        slack = ROUNDING * (self.high - self.low)
        clipped = int(((actions < self.low - slack) | (actions > self.high + slack)).sum())
        return Encoded(torch.stack(tokens, dim=-1), clipped)

    def decode(self, tokens: Tensor) -> Tensor:
        """Return the normalised actions (..., D) of tokens."""
        return self.centres[torch.arange(len(self.centres), device=tokens.device), tokens]

    def to_config(self) -> Bins:
        """Return the bins for config.json; uniform bins follow from their number."""
        if self.kind == "uniform":
            return UniformBins(self.bins)
        return QuantileBins(self.bins, self.centres.tolist(), self.low.tolist(), self.high.tolist())

    @classmethod
    def from_config(cls, config: Bins, dimensions: int) -> "Tokeniser":
        """Make the tokeniser of a config, the inverse of `to_config`.

        Raises:
            SpecpolicyError: bins for another number of dimensions.
        """
        if isinstance(config, UniformBins):
            return cls.uniform(dimensions, config.bins)
        if len(config.centres) != dimensions:
            raise SpecpolicyError(f"tokens: bins for {len(config.centres)} dimensions, an action has {dimensions}")
        return cls(torch.tensor(config.centres), torch.tensor(config.low), torch.tensor(config.high), config.kind)


def make_tokeniser(kind: str, bins: int, actions: Tensor) -> Tokeniser:
    """Make a tokeniser by its kind. Quantile bins are fitted to normalised actions (..., D)."""
    options = parse(TokenOptions, {"kind": kind, "bins": bins}, "tokens")
    if options.kind == "uniform":
        return Tokeniser.uniform(actions.shape[-1], options.bins)
    return Tokeniser.quantile(actions, options.bins)


def _check_bins(bins: int) -> None:
    if not isinstance(bins, int) or not FEWEST <= bins <= MOST:
        raise SpecpolicyError(f"bins={bins}: expected {FEWEST} to {MOST} bins")


def _spread(ordered: Tensor, levels: Tensor) -> Tensor:
    """(V,) distinct quantiles of sorted values."""
    centres = ordered[(levels * len(ordered)).long().clamp(max=len(ordered) - 1)].float().unique().double()
    if len(centres) == 1:  # a dimension that never changes
        centres = torch.cat([centres, centres + 1.0])
    while len(centres) < len(levels):
        gaps = centres.diff()
        # Halve several gaps in one pass, but none twice, so the widest one is halved first.
        widest = gaps.argsort(descending=True, stable=True)[: len(levels) - len(centres)]
        widest = widest[gaps[widest] > gaps.max() / 2]
        centres = torch.cat([centres, centres[widest] + gaps[widest] / 2]).sort().values
    return centres
