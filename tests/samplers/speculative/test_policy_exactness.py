"""Exactness on a trained network: the shipped lift policy, 16 steps, at recorded observations.

The continuous run draws few chunks, enough to find the coarse controls; the slow one finds all of them. The
false-alarm rate of all cases of a run together is 1e-3 (Bonferroni); the seeds are fixed.
"""

import pytest
from exactness_cases import CONTROLS, FALSE_ALARMS
from policies import SAMPLERS, judge

COARSE = ("redraw after a rejection", "a draft that sees its own noise")


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_law_is_that_of_the_sequential_sampler(name):
    verdict, _ = judge(SAMPLERS[name], n=60, observations=(0, 1), seed=2)
    assert verdict.p > FALSE_ALARMS / len(SAMPLERS), str(verdict)


@pytest.mark.parametrize("name", COARSE)
def test_coarse_controls_fail(name):
    verdict, _ = judge(CONTROLS[name], n=60, observations=(0, 1), seed=2)
    assert verdict.p < 1e-10, str(verdict)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_law_holds_for_many_chunks(name):
    verdict, _ = judge(SAMPLERS[name], n=2000, observations=(0, 1), seed=3)
    assert verdict.p > FALSE_ALARMS / len(SAMPLERS), str(verdict)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTROLS)
def test_all_controls_fail(name):
    verdict, _ = judge(CONTROLS[name], n=2000, observations=(0, 1), seed=3)
    assert verdict.p < 1e-8, str(verdict)
