"""Selects the nodes of a draft graph: those that continue most recorded paths."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TypeVar

from specpolicy.errors import SpecpolicyError
from specpolicy.tokens.calibration.traces import Path, Trace
from specpolicy.tokens.graph import DraftGraph, Node, fits
from specpolicy.tokens.rules import Rule

OBJECTIVES = ("accepted", "own_and_parents")
DEEPEST = 16  # largest number of steps ahead

Key = TypeVar("Key", bound=Hashable)


def select_graph(paths: Iterable[Path], count: int, objective: str = "accepted") -> DraftGraph:
    """Return a graph of at most `count` nodes, the most useful first, so its beginnings are the smaller graphs.

    Args:
        paths: recorded paths; they are used up.
        count: most nodes.
        objective: "accepted": each node is the one that lets most paths accept one more level than the nodes before it.
            "own_and_parents", the paper's: how often a node lies on a path, plus the same of its parents, where a
            parent is in the graph.
    """
    if objective == "accepted":
        nodes, weights = _extend(paths, count, lambda path, upcoming: upcoming)
        return DraftGraph(tuple(nodes), tuple(map(float, weights)))
    if objective == "own_and_parents":
        return _own_and_parents(paths, count)
    raise SpecpolicyError(f"unknown objective '{objective}': use one of {', '.join(OBJECTIVES)}")


def select_tree(paths: Iterable[Path], count: int) -> set[tuple[Node, ...]]:
    """Select a tree for comparison: nodes are told apart by the way that leads to them. Return sequences of nodes."""
    return set(_extend(paths, count, lambda path, upcoming: (*path.sequence, upcoming))[0])


def _extend(paths: Iterable[Path], count: int, key: Callable[[Path, Node], Key]) -> tuple[list[Key], list[int]]:
    """Return, chosen greedily, the keys that most paths wait for, and the number of these paths. `key` is of a path and
    its upcoming node."""
    waiting: dict[Key, list[Path]] = defaultdict(list)
    for path in paths:
        if path.upcoming is not None:
            waiting[key(path, path.upcoming)].append(path)
    nodes: list[Key] = []
    weights: list[int] = []
    chosen: set[Key] = set()
    while waiting and len(nodes) < count:
        best = max(waiting, key=lambda node: len(waiting[node]))
        released = waiting.pop(best)
        nodes.append(best)
        weights.append(len(released))
        chosen.add(best)
        for path in released:
            path.advance()
            while path.upcoming is not None and key(path, path.upcoming) in chosen:  # reached another way before
                path.advance()
            if path.upcoming is not None and path.reached < DEEPEST:
                waiting[key(path, path.upcoming)].append(path)
    return nodes, weights


def _own_and_parents(paths: Iterable[Path], count: int) -> DraftGraph:
    seen: Counter[Node] = Counter()
    parents: dict[Node, set[Node]] = defaultdict(set)
    first: set[Node] = set()
    for path in paths:
        before: Node | None = None
        while path.upcoming is not None and path.reached < DEEPEST:
            node = path.upcoming
            seen[node] += 1
            if before is None:
                first.add(node)
            else:
                parents[node].add(before)
            before = node
            path.advance()
    chosen: list[Node] = []
    open_ = {node: float(seen[node]) for node in first}
    while open_ and len(chosen) < count:
        best = max(open_, key=lambda node: open_[node])
        del open_[best]
        chosen.append(best)
        for node, above in parents.items():
            if best in above and node not in chosen:
                open_[node] = seen[node] + sum(seen[parent] for parent in above)
    return DraftGraph(tuple(chosen), tuple(float(seen[node]) for node in chosen))


@dataclass(frozen=True)
class Replay:
    """Cost of a replayed chunk: calls, rows, and the accepted levels of each call but the first."""

    calls: int
    rows: int
    accepted: tuple[int, ...]


def replay(
    trace: Trace, rule: Rule, graphs: Mapping[int, DraftGraph] | None, tree: Set[tuple[Node, ...]] | None = None
) -> Replay:
    """Follow a trace with the drafts of `graphs`, by masked positions as in `GraphDrafter`; or of a tree, or without
    drafts."""
    calls, rows, accepted, at = 1, 1, list[int](), 0
    while at + 1 < len(trace):  # the call for the state after step `at`
        path, drafts = Path(trace, at), 0
        if tree is not None:
            drafts = sum(fits(node[-1], rule, path.masked) for node in tree)
            while path.upcoming is not None and (*path.sequence, path.upcoming) in tree:
                path.advance()
        elif graphs:
            nodes = _nodes(graphs, path.masked)
            drafts = sum(fits(node, rule, path.masked) for node in nodes)
            while path.upcoming is not None and path.upcoming in nodes:
                path.advance()
        calls, rows, at = calls + 1, rows + 1 + drafts, at + 1 + path.reached
        accepted.append(path.reached)
    return Replay(calls, rows, tuple(accepted))


def mean_calls(traces: Sequence[Trace], rule: Rule, graphs: Mapping[int, DraftGraph] | None) -> tuple[float, float]:
    """Mean calls and rows of a chunk."""
    found = [replay(trace, rule, graphs) for trace in traces]
    return sum(one.calls for one in found) / len(found), sum(one.rows for one in found) / len(found)


def _nodes(graphs: Mapping[int, DraftGraph], masked: int) -> frozenset[Node]:
    number = min((number for number in graphs if number >= masked), default=max(graphs))
    return graphs[number].node_set
