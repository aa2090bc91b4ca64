"""One environment of each robosuite task for all tests of them."""

import gymnasium
import pytest


@pytest.fixture(scope="session")
def envs():
    """`envs(id)`: made when first asked for, and shared, for making one takes a second. A seed determines an episode
    whatever others were before (see `test_the_seed_determines_the_episode_to_the_bit`)."""
    made = {}

    def get(env_id: str) -> gymnasium.Env:
        if env_id not in made:
            made[env_id] = gymnasium.make(env_id).unwrapped
        return made[env_id]

    yield get
    for env in made.values():
        env.close()
