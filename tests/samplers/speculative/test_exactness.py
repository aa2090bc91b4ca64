"""Exactness of whole chains: every exact sampler passes tests of its distribution, what is not exact fails them.

The networks are exact denoisers of Gaussian mixtures. 10,000 chunks a case are compared with 20,000 of the sequential
sampler. The false-alarm rate of all cases of this file together is 1e-3 (Bonferroni); the seeds are fixed.
The continuous run leaves out cases that differ little from others; `benchmarks/exactness.py` runs all of them with
more chunks.
"""

import pytest
from exactness_cases import CASES, CHAINS, CONTROL_CASES, DRAFTERS, FALSE_ALARMS, FIXED, judge

from specpolicy.samplers.speculative.verifiers import VERIFIERS

CHUNKS = 10_000


def as_parameters(cases):
    """The cases, the long run's marked as slow."""
    return [pytest.param(case, id=case.id, marks=[pytest.mark.slow] if case.slow else []) for case in cases]


@pytest.mark.parametrize("case", as_parameters(CASES))
def test_the_distribution_is_that_of_the_sequential_sampler(case):
    verdict, statistics = judge(case, CHUNKS)
    assert verdict.p > FALSE_ALARMS / len(CASES), str(verdict)
    # The tests mean nothing where nothing was rejected; a window of one draft from an exact guess never is.
    if case.window != 1:
        assert sum(int(part.rejections.sum()) for part in statistics) > CHUNKS / 2


@pytest.mark.parametrize("case", CONTROL_CASES, ids=lambda case: case.name)
def test_what_is_not_exact_fails_by_a_wide_margin(case):
    verdict, _ = judge(case, CHUNKS)
    assert verdict.groups["noises"] < 1e-20, str(verdict)
    # Chunks and states alone tell it as well.
    assert min(p for group, p in verdict.groups.items() if group != "noises") < 1e-6, str(verdict)


def test_every_verifier_drafter_and_kind_of_chain_is_among_the_cases():
    names = {case.name for case in CASES}
    fixed = {name.removesuffix(", fixed shapes").split(" + ")[1] for name in names if name.endswith(", fixed shapes")}
    assert fixed == set(FIXED)
    assert len({case.id for case in CASES}) == len(CASES)
    assert {name.split(" + ")[0] for name in names if "+" in name} == set(VERIFIERS)
    whole = {name.split(" + ")[1] for name in names if "+" in name and not name.endswith(", fixed shapes")}
    assert whole == {*DRAFTERS, "skewed"}
    assert {"asd", "reflection", "residual", "block", "recycled"} < names
    assert {case.chain for case in CASES} == set(CHAINS)
    assert {case.window for case in CASES} == {1, 4, 5, 16, None, "by step"}
    quick = [case for case in CASES if not case.slow]
    assert names - {case.name for case in quick} == {
        "reflection + recycled, fixed shapes",
        "residual + recycled, fixed shapes",
    } and {case.chain for case in quick} == set(CHAINS)
    assert {case.window for case in quick} == {1, 4, 5, None, "by step"}
