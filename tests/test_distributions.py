"""Checks of distributions: they alarm as seldom as they say, and find what is another distribution."""

import pytest
import torch
from scipy import stats

from specpolicy.distributions import kolmogorov, same_as_normal, same_distribution

BOUND = 10 + 4 * (200 * 0.05 * 0.95) ** 0.5  # alarms of 200 at 5 %: four standard deviations, false alarm 3e-5


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_equal_samples_alarm_at_their_rate_and_a_small_shift_is_found():
    samples = [normal(seed, 300, 5) for seed in range(400)]
    assert sum(same_distribution(*samples[place : place + 2]) < 0.05 for place in range(0, 400, 2)) <= BOUND
    assert all(same_distribution(one + 0.5, samples[0]) < 1e-6 for one in samples[1:10])


def test_normal_noises_alarm_at_their_rate():
    assert sum(same_as_normal(normal(seed, 60, 20)) < 0.05 for seed in range(200)) <= BOUND


@pytest.mark.parametrize(
    "change",
    (
        lambda z: 1.1 * z,
        lambda z: z + 0.1,
        lambda z: z.abs() * torch.where(normal(9, *z.shape) > 0.1, 1, -1),
        lambda z: torch.cat([z[:1], 0.995 * z[1:] + 0.1 * z[:-1]]),
        lambda z: z.clamp(-1.5, 1.5),
    ),
)
def test_other_noises_are_found(change):
    assert same_as_normal(change(normal(3, 600, 50))) < 1e-6


def test_kolmogorov_s_distribution():
    for x in (0.2, 0.31, 0.5, 1.0, 1.7, 3.0):
        assert kolmogorov(x) == pytest.approx(stats.kstwobign.sf(x), abs=2e-5)
