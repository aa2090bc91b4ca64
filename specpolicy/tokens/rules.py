"""The target distribution of a token policy: which masked positions a decoder reveals at a step, and with which tokens.

A chunk is L = H * D tokens, each below the vocabulary size V; V itself stands for a masked position. A rule is a fixed
function of the network's logits and of noise that was drawn before the first call. So for the same noise the tokens do
not depend on how many states are evaluated at once, nor on the drafts.
"""

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from specpolicy.errors import SpecpolicyError

# From the logits alone; from the probability of the proposed token (MaskGIT); drawn before the first call; row by row.
ORDERS = ("max_probability", "entropy", "candidate", "random", "raster")
PRE_DRAWN = ("random", "raster")
KEYS = ("position", "step")
# Below this gap (`Decision.gap`) rounding may choose otherwise. It is twice the largest difference (9e-6) of the
# shipped policies' logits between a batch of one row and other batches.
NEAR = 2e-5


def fixed_counts(length: int, tokens_per_step: int) -> tuple[int, ...]:
    """Return the number of positions that each step reveals: `tokens_per_step`, and the rest in the last step."""
    full, rest = divmod(length, tokens_per_step)
    return (tokens_per_step,) * full + ((rest,) if rest else ())


def cosine_counts(length: int, steps: int) -> tuple[int, ...]:
    """Return the number of positions that each step of MaskGIT's cosine schedule reveals (Chang et al. 2022, arXiv
    2202.04200).

    After `i` of `steps` steps round(length * cos(pi/2 * i/steps)) positions are masked. Steps that would reveal none
    are left out.
    """
    masked = [round(length * math.cos(math.pi / 2 * i / steps)) for i in range(steps + 1)]
    return tuple(before - after for before, after in itertools.pairwise(masked) if before > after)


@dataclass(frozen=True)
class DecodingNoise:
    """All randomness of B chunks.

    `gumbel` (B, L, V), or (B, K, L, V) if keyed by step; None for greedy decoding. `priority` (B, L): the place of each
    position in an order drawn beforehand, None if the order is not.
    """

    gumbel: Tensor | None = None
    priority: Tensor | None = None


@dataclass(frozen=True)
class Decision:
    """Result of a `rule` for N states.

    Attributes:
        logits: (N, L, V).
        perturbed: (N, L, V) logits plus noise.
        proposal: (N, L) the best token of each position by `perturbed`.
        rank: (N, L) place of each position in the order, masked ones first.
        count: (N,) positions that are revealed.
        following: (N, L) the next states.
        ordered: (N, L) scores of the positions, highest first.
        remaining: (N,) masked positions.
    """

    rule: "Rule"
    logits: Tensor
    perturbed: Tensor
    proposal: Tensor
    rank: Tensor
    count: Tensor
    following: Tensor
    ordered: Tensor
    remaining: Tensor

    @property
    def gap(self) -> Tensor:
        """(N,) margin of the closest choice. Where it is tiny, rounding may choose otherwise. Infinite without a
        choice.

        It is the least of three margins: of the last revealed position over the first one that is not revealed, unless
        their order was drawn beforehand; of a position to the threshold; of a revealed token over the next best.
        """
        gap = self._token_gap()
        if not self.rule.pre_drawn:
            gap = torch.minimum(gap, self._cut())
        if self.rule.threshold is not None:  # the first position is revealed in any case
            distance = (self.ordered[:, 1:] - math.log(self.rule.threshold)).abs()
            gap = torch.cat([gap[:, None], distance], dim=1).amin(dim=1)
        return gap

    def _cut(self) -> Tensor:
        last = self.ordered.shape[1] - 1
        inside = self.ordered.gather(1, (self.count - 1).clamp(0, last)[:, None])[:, 0]
        outside = self.ordered.gather(1, self.count.clamp(max=last)[:, None])[:, 0]
        return torch.where((self.count > 0) & (self.count < self.remaining), inside - outside, torch.inf)

    def _token_gap(self) -> Tensor:
        # A candidate's token makes its score, so the tokens of all masked positions count there.
        matter = self.remaining if self.rule.order == "candidate" else self.count
        best = self.perturbed.topk(2, dim=-1).values
        ahead = best[..., 0] - best[..., 1]
        return ahead.masked_fill(self.rank >= matter[:, None], torch.inf).amin(dim=1)


@dataclass(frozen=True)
class Rule:
    """One decoder.

    Args:
        length: L.
        counts: positions revealed by each step. None if `threshold` decides: every masked position whose most probable
            token has at least that probability, but always one.
        order: one of `ORDERS`.
        sampled: draw tokens by the Gumbel-max trick; False: take the most probable ones.
        keyed: whether a position's noise is the same at all steps, or new at each.

    Raises:
        SpecpolicyError: an unknown order or key, counts that do not cover the chunk, or parts that exclude each other.
    """

    length: int
    counts: tuple[int, ...] | None
    threshold: float | None = None
    order: str = "max_probability"
    sampled: bool = True
    keyed: str = "position"

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise SpecpolicyError(f"unknown order '{self.order}': use one of {', '.join(ORDERS)}")
        if self.keyed not in KEYS:
            raise SpecpolicyError(f"noise is keyed by {' or by '.join(KEYS)}, not by '{self.keyed}'")
        if (self.counts is None) == (self.threshold is None):
            raise SpecpolicyError("a decoder has either counts of positions or a threshold")
        if self.counts is not None and (min(self.counts) < 1 or sum(self.counts) != self.length):
            raise SpecpolicyError(f"the steps {self.counts} do not reveal {self.length} positions")
        if self.threshold is not None and self.order != "max_probability":
            raise SpecpolicyError(f"a threshold on the probability leaves no room for the order '{self.order}'")
        if self.threshold is not None and self.keyed == "step" and self.sampled:
            raise SpecpolicyError("with a threshold the steps have no fixed sizes, so noise cannot be keyed by step")

    @property
    def pre_drawn(self) -> bool:
        """Whether the order of the positions is known before the first call."""
        return self.order in PRE_DRAWN

    def draw_noise(self, vocabulary: int, uniform: Callable[..., Tensor]) -> DecodingNoise:
        """Draw the noise of B chunks; `uniform(*shape)` returns (B, *shape) numbers in [0, 1)."""
        priority = gumbel = None
        if self.order == "random":
            priority = uniform(self.length).argsort(dim=1, stable=True).argsort(dim=1)
        if self.sampled:
            steps = () if self.keyed == "position" or self.counts is None else (len(self.counts),)
            exponential = -torch.log1p(-uniform(*steps, self.length, vocabulary).double())
            gumbel = -exponential.clamp(min=1e-300).log().float()
        return DecodingNoise(gumbel, priority)

    def perturb(self, logits: Tensor, step: Tensor, noise: DecodingNoise, owner: Tensor) -> Tensor:
        """Return logits (N, L, V) plus the noise of the chunks `owner` (N,) at `step` (N,)."""
        if noise.gumbel is None:
            return logits
        return logits + (noise.gumbel[owner] if self.keyed == "position" else noise.gumbel[owner, step])

    def score(self, logits: Tensor, proposal: Tensor, noise: DecodingNoise, owner: Tensor) -> Tensor:
        """(N, L) scores of positions. They are revealed from the highest score down; ties go to the first position."""
        if self.order == "raster":
            return -torch.arange(self.length, device=logits.device, dtype=logits.dtype).expand(len(logits), -1)
        if self.order == "random":
            assert noise.priority is not None
            return -noise.priority[owner].to(logits.dtype)
        log_probability = logits.log_softmax(dim=-1)
        if self.order == "candidate":
            return log_probability.gather(-1, proposal[..., None])[..., 0]
        if self.order == "entropy":
            return (log_probability.exp() * log_probability).sum(dim=-1)
        return log_probability.amax(dim=-1)

    def decide(self, logits: Tensor, states: Tensor, noise: DecodingNoise, owner: Tensor) -> Decision:
        """Apply the rule to logits (N, L, V) of states (N, L) of the chunks `owner` (N,)."""
        masked = states == logits.shape[-1]
        remaining = masked.sum(dim=1)
        perturbed = self.perturb(logits, self.step_of(remaining), noise, owner)
        proposal = perturbed.argmax(dim=-1)
        score = self.score(logits, proposal, noise, owner).masked_fill(~masked, -torch.inf)
        ordered, positions = score.sort(dim=1, descending=True, stable=True)
        rank = torch.empty_like(positions)
        rank.scatter_(1, positions, torch.arange(self.length, device=states.device).expand_as(positions))
        count = self.count(remaining, ordered)
        following = torch.where(rank < count[:, None], proposal, states)
        return Decision(self, logits, perturbed, proposal, rank, count, following, ordered, remaining)

    def count(self, remaining: Tensor, ordered: Tensor | None = None) -> Tensor:
        """(N,) positions that are revealed where `remaining` (N,) are masked. `ordered` (N, L): the scores of all
        positions, highest first, which only a threshold needs."""
        if self.threshold is None or ordered is None:
            assert self.counts is not None
            return _tables(self.counts, remaining.device)[0][remaining]
        above = (ordered >= math.log(self.threshold)).sum(dim=1)
        return torch.minimum(above.clamp(min=1), remaining)

    def step_of(self, remaining: Tensor) -> Tensor:
        """(N,) the step at which that many positions are masked; zero with a threshold, where steps are not counted."""
        if self.counts is None:
            return torch.zeros_like(remaining)
        return _tables(self.counts, remaining.device)[1][remaining]


@functools.lru_cache(maxsize=64)
def _tables(counts: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """By the number of masked positions: how many are revealed, and the number of the step."""
    masked = [sum(counts[step:]) for step in range(len(counts) + 1)]  # before each step, then 0
    step = len(counts) - 1
    reveal, steps = [0], [step]  # a state with nothing masked counts to the last step
    for remaining in range(1, masked[0] + 1):
        if remaining > masked[step]:
            step -= 1
        reveal.append(remaining - masked[step + 1])
        steps.append(step)
    return torch.tensor(reveal, device=device), torch.tensor(steps, device=device)
