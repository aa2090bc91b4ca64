"""Draft graphs that need no calibration: the cheapest sets of places, with little work."""

import itertools

import pytest

from specpolicy.tokens import graph
from specpolicy.tokens.graph import DEPTH_COST, analytic_graph, analytic_graphs
from specpolicy.tokens.rules import Rule, cosine_counts, fixed_counts


def cheapest(rule, masked, sizes):
    """The costs of all sets of places of these sizes, rising: from the definition."""
    found = []
    for depth, size in enumerate(sizes, start=1):
        for chosen in itertools.combinations(range(masked), size):
            found.append(DEPTH_COST * depth + sum(chosen) - size * (size - 1) // 2)
    return sorted(found)


def costs(nodes, sizes):
    return [
        DEPTH_COST * (sizes.index(len(node)) + 1) + sum(place for place, _ in node) - len(node) * (len(node) - 1) // 2
        for node in nodes
    ]


@pytest.mark.parametrize("count", (1, 7, 30, 500))
@pytest.mark.parametrize(("counts", "sizes"), [((1,) * 7, [1, 2, 3, 4, 5, 6]), ((2, 2, 2, 1), [2, 4, 6])])
def test_its_nodes_are_the_cheapest_sets_or_all_there_are(counts, sizes, count):
    rule = Rule(7, counts)
    nodes, expected = analytic_graph(rule, 7, count).nodes, cheapest(rule, 7, sizes)
    assert len(set(nodes)) == len(nodes) == min(count, len(expected))
    assert costs(nodes, sizes) == pytest.approx(expected[:count])


@pytest.mark.parametrize("counts", [fixed_counts(56, 1), fixed_counts(56, 8), cosine_counts(56, 12)])
def test_its_work_grows_with_its_nodes_not_with_the_number_of_sets(counts, monkeypatch):
    visited, shifts = [], graph._shifts

    def counting(*arguments):
        visited.append(arguments)
        assert len(visited) <= 96 * 56
        return shifts(*arguments)

    monkeypatch.setattr(graph, "_shifts", counting)
    rule = Rule(56, counts)
    for step in range(len(counts)):
        visited.clear()
        nodes = analytic_graph(rule, sum(counts[step:]), 96).nodes
        assert (len(nodes) > 0) == (step < len(counts) - 1)  # after the last step nothing is masked


def test_a_rule_has_a_graph_for_each_of_its_roots_or_one_for_all():
    assert list(analytic_graphs(Rule(7, (2, 2, 2, 1)), 4)) == [7]
    assert list(analytic_graphs(Rule(7, (1, 2, 4)), 4)) == [7, 6]  # the last step leaves nothing to draft
    assert list(analytic_graphs(Rule(7, None, threshold=0.7), 4)) == [7]
    assert analytic_graphs(Rule(7, (7,)), 4) == {}


def test_with_a_threshold_sets_of_all_sizes_are_drafted():
    assert {len(node) for node in analytic_graph(Rule(6, None, threshold=0.7), 6, 20).nodes} >= {1, 2, 3}
