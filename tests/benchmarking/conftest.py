"""A small policy with recorded observations beside its checkpoint."""

import numpy as np
import pytest

from specpolicy.policy.histories import FILE, write_histories

OBSERVATIONS = 5


@pytest.fixture(scope="session")
def histories():
    """Histories that fit the small policy, not to be changed."""
    source = np.random.default_rng(0)
    sizes = {"position": 2, "object": 3}
    return {key: source.normal(size=(OBSERVATIONS, 2, size)).astype(np.float32) for key, size in sizes.items()}


@pytest.fixture
def checkpoint(small_policy, histories, tmp_path):
    """The directory of the small policy, recorded observations beside it."""
    directory = small_policy.save(tmp_path / "tiny")
    write_histories(directory / FILE, histories)
    return directory
