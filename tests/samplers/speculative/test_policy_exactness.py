"""Exactness on a trained network: the shipped lift policy, 16 steps, at recorded observations.

The continuous run recovers the noises of 100 chains from their states and the network: under the policy's law they are
independent standard normals, given what came before. The slow one compares thousands of chunks with the sequential
sampler's. The false-alarm rate of all cases of a run together is 1e-3 (Bonferroni); the seeds are fixed.
"""

from dataclasses import replace

import pytest
from exactness_cases import CONTROLS, FALSE_ALARMS
from policies import SAMPLERS, judge, noise_p

QUICK = ("asd", "residual", "block", "recycled", "recycled, window 4")
COARSE = ("redraw after a rejection", "a draft that sees its own noise")  # found in few chunks
# Its bias does not show in the chunks drawn here (p = 0.02); on mixtures, of known law, it does (test_exactness.py).
SUBTLE = "kept noises under block verification, recycled"


@pytest.mark.parametrize("name", QUICK)
def test_the_noises_are_those_of_the_chain(name):
    p, statistics = noise_p(SAMPLERS[name], n=100, seed=2)
    assert p > FALSE_ALARMS / len(QUICK)
    assert int(statistics.rejections.sum()) > 200  # without rejections the test means nothing


@pytest.mark.parametrize("name", COARSE)
def test_the_noises_of_what_is_not_exact_are_not(name):
    assert noise_p(replace(CONTROLS[name], window=8), n=100, seed=2)[0] < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_law_holds_for_many_chunks(name):
    noises, _ = noise_p(SAMPLERS[name], n=1000, seed=3)
    assert noises > FALSE_ALARMS / len(SAMPLERS) / 2
    verdict, _ = judge(SAMPLERS[name], n=2000, observations=(0, 1), seed=3)
    assert verdict.p > FALSE_ALARMS / len(SAMPLERS) / 2, str(verdict)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CONTROLS if name != SUBTLE])
def test_controls_fail_in_many_chunks(name):
    verdict, _ = judge(CONTROLS[name], n=2000, observations=(0, 1), seed=3)
    assert verdict.p < 1e-8, str(verdict)
