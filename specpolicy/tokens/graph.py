"""Directed draft graphs (Spiffy): later states guessed from one evaluation, in ranks.

From the logits of the last reached state, the masked positions of the root have places 0, 1, ... in the decoder's
order. Each position's tokens have ranks 0, 1, ..., by logits plus the noise that the decoder will add. A node is a set
of (place, token rank) pairs: the root with these positions filled by these tokens. Because a node is a set, every order
of revealing its positions leads to it. So the drafts form a graph, not a tree. Edges need not be stored: verification
finds them by following the rule from state to state.
"""

import functools
import heapq
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from specpolicy.errors import SpecpolicyError
from specpolicy.tokens.lookahead import places, step_sizes
from specpolicy.tokens.rules import Rule
from specpolicy.tokens.speculative import Round

Pair = tuple[int, int]  # (place of the position, rank of the token)
Node = tuple[Pair, ...]  # sorted by place, each place once

MOST = 2**24  # places, ranks
DEPTH_COST = 0.45  # in places of excess rank, see `analytic_graph`


@dataclass(frozen=True)
class DraftGraph:
    """Nodes, the most useful first, and how often calibration has seen each of them continue a path.

    Raises:
        SpecpolicyError: an invalid node, or not as many weights as nodes.
    """

    nodes: tuple[Node, ...]
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.weights and len(self.weights) != len(self.nodes):
            raise SpecpolicyError("a draft graph has as many weights as nodes")
        for node in self.nodes:
            positions = [place for place, _ in node]
            if not node or positions != sorted(set(positions)) or min(min(pair) for pair in node) < 0:
                raise SpecpolicyError(f"{node} is no node of a draft graph: places must rise, ranks not be negative")

    @functools.cached_property
    def node_set(self) -> frozenset[Node]:
        """The nodes as a set, for look-ups."""
        return frozenset(self.nodes)

    def first(self, count: int) -> "DraftGraph":
        """Return the graph of the first `count` nodes. Nodes were chosen one after the other, so it is the smaller
        graph."""
        return DraftGraph(self.nodes[:count], self.weights[:count])


class _Tables:
    """Nodes of a graph that are useful for a root with `masked` masked positions, as tensors.

    Attributes:
        place, token: (D, M); a shorter node repeats its first pair, which changes nothing.
        padding: (D, M), where it does.
        weight: (D,) logarithms.
        places, tokens: how many of each occur.
    """

    def __init__(self, graph: DraftGraph, rule: Rule, masked: int, device: torch.device):
        weights = graph.weights or (1.0,) * len(graph.nodes)
        kept = [(node, weight) for node, weight in zip(graph.nodes, weights, strict=True) if fits(node, rule, masked)]
        widest = max((len(node) for node, _ in kept), default=1)
        pairs = torch.tensor(
            [list(node) + [node[0]] * (widest - len(node)) for node, _ in kept], dtype=torch.int64, device=device
        ).reshape(-1, widest, 2)
        lengths = torch.tensor([len(node) for node, _ in kept], dtype=torch.int64, device=device)
        self.place, self.token = pairs[..., 0], pairs[..., 1]
        self.padding = torch.arange(widest, device=device) >= lengths[:, None]
        self.weight = torch.tensor([max(weight, 1e-3) for _, weight in kept], device=device).log()
        self.places = max((node[-1][0] + 1 for node, _ in kept), default=1)
        self.tokens = max((rank + 1 for node, _ in kept for _, rank in node), default=1)


def fits(node: Node, rule: Rule, masked: int) -> bool:
    """Whether a root with `masked` masked positions can reach this node with something left masked."""
    return node[-1][0] < masked and len(node) in _sizes(rule, masked)


@functools.lru_cache(maxsize=4096)
def _sizes(rule: Rule, masked: int) -> frozenset[int]:
    """Return the numbers of positions that the next steps can have revealed together; all numbers, where a threshold
    decides."""
    if rule.counts is None:
        return frozenset(range(1, masked))
    return frozenset(step_sizes(rule, torch.tensor([masked]), masked)[0].tolist()) - {masked}


class GraphDrafter:
    """Drafts the states of a graph.

    Args:
        graphs: by the number of masked positions of a root; numbers in between use the graph of the next larger number.
        keep: of all nodes of a graph, draft the `keep` that look best by the current logits: the logarithm of the
            weight plus half the log probabilities of the tokens. None: all.

    Raises:
        SpecpolicyError: no graph at all; when drafting, noise that is not keyed by position.
    """

    def __init__(self, graphs: Mapping[int, DraftGraph], keep: int | None = None):
        if not graphs:
            raise SpecpolicyError("there is no draft graph: give at least one")
        self.graphs, self.keep = dict(sorted(graphs.items())), keep
        self._tables: dict[tuple[Rule, int, torch.device], _Tables] = {}

    def draft(self, round: Round) -> tuple[Tensor, Tensor]:
        """See `Drafter.draft`."""
        if round.rule.sampled and round.rule.keyed == "step":
            raise SpecpolicyError("a draft graph needs noise that is keyed by position: use the chain")
        remaining, found = round.remaining, []
        for masked in sorted(set(remaining.tolist())):
            found.append(self._expand(round, (remaining == masked).nonzero().flatten(), masked))
        states, owners = zip(*found, strict=True)
        return torch.cat(states), torch.cat(owners)

    def _expand(self, round: Round, rows: Tensor, masked: int) -> tuple[Tensor, Tensor]:
        """Drafts for the roots `rows` (R,), which all have `masked` masked positions."""
        tables = self._table(round.rule, masked, rows.device)
        ordered = places(round)[rows].argsort(dim=1, stable=True)[:, : tables.places]  # (R, places) positions
        scores = round.decision.perturbed[round.last[rows][:, None], ordered]  # (R, places, V)
        values, by_rank = scores.topk(min(tables.tokens, scores.shape[-1]), dim=-1)
        kinds = by_rank.shape[-1]
        pair = tables.place * kinds + tables.token.clamp(max=kinds - 1)  # (D, M)
        positions, tokens = ordered[:, tables.place], by_rank.flatten(1)[:, pair]  # (R, D, M)
        if self.keep is not None and self.keep < len(pair):
            log_probability = (values - scores.logsumexp(dim=-1, keepdim=True)).flatten(1)[:, pair]
            promise = tables.weight + 0.5 * log_probability.masked_fill(tables.padding, 0).sum(dim=2)
            best = promise.topk(self.keep, dim=1).indices[..., None].expand(-1, -1, pair.shape[1])
            positions, tokens = positions.gather(1, best), tokens.gather(1, best)
        drafts = positions.shape[1]
        states = round.roots[rows][:, None].repeat(1, drafts, 1).scatter(2, positions, tokens)
        return states.flatten(0, 1), round.chunks[rows].repeat_interleave(drafts)

    def _table(self, rule: Rule, masked: int, device: torch.device) -> _Tables:
        key = (rule, masked, device)
        if key not in self._tables:
            number = next((number for number in self.graphs if number >= masked), max(self.graphs))
            self._tables[key] = _Tables(self.graphs[number], rule, masked, device)
        return self._tables[key]


def analytic_graphs(rule: Rule, count: int) -> dict[int, DraftGraph]:
    """Graphs without calibration for all roots of a rule, as `GraphDrafter` takes them; none, if it has one step."""
    roots = [rule.length]
    if rule.counts is not None:  # after the last step but one nothing is left to draft
        roots = [sum(rule.counts[step:]) for step in range(len(rule.counts) - 1)]
        if len(set(rule.counts[:-1])) <= 1:  # all steps alike: one graph serves them all
            roots = roots[:1]
    return {masked: analytic_graph(rule, masked, count) for masked in roots}


def analytic_graph(rule: Rule, masked: int, count: int) -> DraftGraph:
    """Return a graph without calibration for roots with `masked` masked positions: sets of early places, their best
    tokens.

    A set of n places costs `DEPTH_COST` for each step it is away, plus the excess of its places over 0, ..., n - 1. The
    `count` cheapest sets are the nodes, or all there are.
    """
    ahead = step_sizes(rule, torch.tensor([masked]), min(count, masked))[0].tolist()
    sizes = [size for size in ahead if size < masked]  # a state with nothing masked needs no evaluation
    # There are exponentially many sets, so those of one cost and depth are made only when needed.
    turns = [(DEPTH_COST * depth, depth, 0) for depth in range(1, len(sizes) + 1)]
    nodes: list[Node] = []
    while turns and len(nodes) < count:
        _, depth, excess = heapq.heappop(turns)
        size, most = sizes[depth - 1], masked - sizes[depth - 1]
        moved = min(size, max(excess, 1))  # at most this many of the last places move; the others stay
        for shifts in itertools.islice(_shifts(excess, moved, 0, most), count - len(nodes)):
            nodes.append(tuple((place + shift, 0) for place, shift in enumerate((0,) * (size - moved) + shifts)))
        if excess < size * most:
            heapq.heappush(turns, (DEPTH_COST * depth + excess + 1, depth, excess + 1))
    return DraftGraph(tuple(nodes))


def _shifts(total: int, parts: int, least: int, most: int) -> Iterator[tuple[int, ...]]:
    """Yield the rising sequences of `parts` numbers from `least` to `most` with the sum `total`, in lexical order."""
    if parts == 1:
        yield (total,)
        return
    # The rest must be neither too small for the other parts, which are at least as large, nor too large.
    for first in range(max(least, total - most * (parts - 1)), total // parts + 1):
        for rest in _shifts(total - first, parts - 1, first, most):
            yield (first, *rest)


def parse_nodes(entries: Any) -> tuple[Node, ...]:
    """Read nodes from plain lists, as a file holds them.

    Raises:
        SpecpolicyError: not lists of pairs of whole numbers.
    """
    if not isinstance(entries, list | tuple):
        raise SpecpolicyError("the nodes of a draft graph are no list")
    nodes: list[Node] = []
    for entry in entries:
        pairs: Any = entry if isinstance(entry, list | tuple) else [None]
        if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
            raise SpecpolicyError("a node of a draft graph is no list of pairs [place, rank]")
        if not all(type(number) is int and number < MOST for pair in pairs for number in pair):
            raise SpecpolicyError(f"a node of a draft graph holds another thing than numbers below {MOST}")
        nodes.append(tuple((place, rank) for place, rank in pairs))
    return tuple(nodes)
