"""benchmarks/clusters.py: the simulated queue has the rates that can be told by hand."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from clusters import Costs, own_policies, shared_planner


@pytest.fixture
def costs():
    """Episodes of 40 steps and 10 chunks; writing them costs nothing."""
    return Costs(step=0.01, reset=0.1, record=0.0, first=0.05, more=0.0, every=4, lengths=(40,))


def test_processes_with_a_policy_each(costs):
    assert own_policies(costs, 1, 100) == pytest.approx(60 / (0.1 + 0.4 + 0.5))
    assert own_policies(costs, 4, 100) == pytest.approx(4 * 60)
    assert own_policies(replace(costs, record=0.5), 100, 1000) == pytest.approx(120, rel=0.01)


def test_a_planner_is_bound_by_its_device_or_by_the_processes(costs):
    idle = replace(costs, step=0.0, reset=0.0)
    assert shared_planner(idle, 4, 8, 2, 50) == pytest.approx(8 * 60 / 0.5)
    assert shared_planner(replace(idle, more=0.05), 4, 8, 2, 50) == pytest.approx(60 / 0.5)
    free = replace(costs, first=0.0)
    for processes in (1, 4):
        assert shared_planner(free, processes, 8, 2, 50) == pytest.approx(processes * 60 / 0.5, rel=0.01)
    # Both: while the device draws for one team, the processes move the other.
    assert 60 * 8 / (0.5 + 0.5) < shared_planner(costs, 8, 8, 2, 50) <= 60 * 8 / 0.5 + 1e-9
