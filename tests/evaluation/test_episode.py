"""One episode: what the planner sees, what is executed, when it ends."""

import numpy as np
import pytest
import torch

from specpolicy import SpecpolicyError, load_policy, make_sampler
from specpolicy.control.chunk import Chunk
from specpolicy.control.clock import ChargedClock, DelayClock, PausedClock, WallClock
from specpolicy.control.execution import Execution
from specpolicy.evaluation.episode import run_episode
from specpolicy.evaluation.planners import PolicyPlanner, check_policy_fits
from specpolicy.policy import DiffusionPolicy
from specpolicy.tasks import make_task_env


class Counting:
    """Plans the numbers 0.01, 0.02, ... and keeps the histories it was shown."""

    def __init__(self, n_obs_steps=2, n_action_steps=3, length=5, dimensions=2):
        self.n_obs_steps, self.n_action_steps = n_obs_steps, n_action_steps
        self.length, self.dimensions = length, dimensions

    def reset(self, seed):
        self.seed, self.histories, self.count = seed, [], 0

    def plan(self, history):
        self.histories.append(history)
        numbers = 0.01 * (self.count + 1 + np.arange(self.length))
        self.count += min(self.n_action_steps, self.length)
        return Chunk(np.repeat(numbers[:, None], self.dimensions, axis=1), seconds=0.5, calls=7, rows=9)


@pytest.fixture
def env(drift_task):
    drift_task["kwargs"] = {"radius": 99.0, "max_steps": 20, "coverage": False}
    env = make_task_env(drift_task)
    yield env
    env.close()


def test_a_chunk_is_executed_as_far_as_asked_and_then_planned_anew(env):
    planner = Counting()
    episode = run_episode(env, planner, PausedClock(), seed=5, max_seconds=60)
    assert episode.length == 20 and len(episode.chunks) == 7 and not episode.success
    assert episode.seconds == pytest.approx(2.0) and episode.seed == planner.seed == 5
    # Three of five actions of each chunk, without a gap or a repetition.
    executed = np.array(env.unwrapped.executed)[:, 0]
    np.testing.assert_allclose(executed, np.clip(0.01 * np.arange(1, 21), -0.5, 0.5), rtol=1e-6)
    assert (episode.chunks[0].calls, episode.chunks[0].rows) == (7, 9)


def test_the_history_repeats_the_first_frame_and_then_slides(env):
    planner = Counting(n_obs_steps=3, n_action_steps=2)
    run_episode(env, planner, PausedClock(), seed=0, max_seconds=60)
    steps = [(10 * history["object"][:, 1]).round().tolist() for history in planner.histories]
    assert steps[:3] == [[0, 0, 0], [0, 1, 2], [2, 3, 4]]


@pytest.mark.parametrize("max_seconds, length", ((0.7, 7), (1e-3, 1), (60.0, 20)))
def test_the_time_limit_is_in_the_tasks_seconds(env, max_seconds, length):
    assert run_episode(env, Counting(), PausedClock(), seed=0, max_seconds=max_seconds).length == length


def test_success_ends_the_episode_within_a_chunk(drift_task):
    drift_task["kwargs"] = {"radius": 0.05, "coverage": True}
    env = make_task_env(drift_task)
    episode = run_episode(env, Counting(), PausedClock(), seed=1, max_seconds=60)
    assert episode.success and episode.length < 6 and episode.max_coverage == 1.0
    assert episode.total_reward > 0


def test_actions_outside_the_space_are_clipped(env):
    planner = Counting(length=200, n_action_steps=200)
    run_episode(env, planner, PausedClock(), seed=0, max_seconds=60)
    assert np.max(env.unwrapped.executed) <= 0.5


def test_the_clock_of_real_time_is_refused(env):
    with pytest.raises(SpecpolicyError, match="wall clock"):
        run_episode(env, Counting(), WallClock(10), seed=0, max_seconds=60)


def test_the_world_moves_on_while_a_chunk_is_computed(env):
    """With a delay of one step: chunk k is asked for at step 3 k - 1, and used from step 3 k on, its second action."""
    planner = Counting()
    episode = run_episode(env, planner, DelayClock(1), seed=5, max_seconds=1.5)
    asked = [round(10 * history["object"][-1, 1]) for history in planner.histories]
    assert asked == [0, 2, 5, 8, 11, 14]
    executed = np.array(env.unwrapped.executed)[:15, 0]
    numbers = [1, 2, 3] + [first + 1 + entry for first in (4, 7, 10, 13) for entry in range(3)]
    np.testing.assert_allclose(executed, np.clip(0.01 * np.array(numbers), -0.5, 0.5), rtol=1e-6)
    assert episode.timing.misses == episode.timing.starved_ticks == 0


def test_a_delay_too_long_for_the_chunks_leaves_counted_gaps(env):
    """Chunks of 5 actions, asked for every 4 steps and 4 late: one action of each is left, three steps have none."""
    planner = Counting(n_action_steps=4)
    execution = Execution(hold=(0.0, None))
    episode = run_episode(env, planner, DelayClock(4), seed=5, max_seconds=1.8, execution=execution)
    chunks = [tick.chunk for tick in episode.timing.ticks]
    gap = [None] * 3
    assert chunks == [0, 0, 0, 0, 1, *gap, 2, *gap, 3, *gap, 4, None]
    executed = np.array(env.unwrapped.executed)
    held = np.array([chunk is None for chunk in chunks])
    assert (executed[held, 0] == 0).all() and (executed[~held, 0] > 0).all()
    assert executed[5, 1] == executed[4, 1] > 0 and episode.timing.starved_ticks == 10


def test_the_charged_clock_moves_the_world_by_the_time_of_each_chunk(env):
    planner = Counting(n_action_steps=6, length=20)  # 0.5 s a chunk: five steps at 10 Hz
    episode = run_episode(env, planner, ChargedClock(10), seed=5, max_seconds=2.0)
    ages = [tick.age for tick in episode.timing.ticks]
    assert ages[:6] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5]) and ages[6:12] == pytest.approx(
        np.arange(5, 11) / 10
    )


def test_a_missed_deadline_ends_the_episode_if_asked_to(env):
    execution = Execution(lead=0, on_miss="stop")
    episode = run_episode(env, Counting(), DelayClock(2), seed=5, max_seconds=60, execution=execution)
    assert not episode.success and episode.length == 3 and episode.timing.misses == 1


@pytest.mark.parametrize("planner, message", ((Counting(dimensions=3), "another task"), (Counting(length=0), "plans")))
def test_chunks_that_do_not_fit_are_refused(env, planner, message):
    with pytest.raises(SpecpolicyError, match=message):
        run_episode(env, planner, PausedClock(), seed=0, max_seconds=60)


def test_non_finite_actions_are_never_executed(env):
    planner = Counting()
    planner.plan = lambda history: Chunk(np.array([[0.0, np.nan]]))
    with pytest.raises(SpecpolicyError, match="not finite"):
        run_episode(env, planner, PausedClock(), seed=0, max_seconds=60)
    assert env.unwrapped.executed == []


@pytest.mark.parametrize("sampler", ("ddpm", "ddim"))
def test_an_episode_does_not_depend_on_those_before_it(drift_task, drift_policy, sampler):
    env = make_task_env(drift_task)
    planner = PolicyPlanner(load_policy(drift_policy), make_sampler(sampler))

    def play(seed):
        env.unwrapped.executed.clear()
        episode = run_episode(env, planner, PausedClock(), seed, max_seconds=60)
        return np.array(env.unwrapped.executed), (episode.success, episode.length, episode.total_reward)

    actions, outcome = play(17)
    other_actions, _ = play(18)
    again, same_outcome = play(17)
    np.testing.assert_array_equal(actions, again)
    assert outcome == same_outcome
    assert not np.array_equal(actions[:4], other_actions[:4])


def test_the_policy_plans_from_the_newest_observation_on(drift_policy):
    policy = load_policy(drift_policy)
    planner = PolicyPlanner(policy, make_sampler("ddpm"))
    planner.reset(3)
    history = {"position": np.zeros((2, 2)), "object": np.zeros((2, 3)), "unused": np.zeros((2, 1))}
    chunks = [planner.plan(history), planner.plan(history)]
    generator = torch.Generator().manual_seed(3)  # one stream for all chunks of the episode
    for chunk in chunks:
        expected = policy.predict(history, "ddpm", generator).actions[0, 1:].numpy()
        np.testing.assert_array_equal(chunk.actions, expected)
        assert chunk.calls == chunk.rows == 12 and 0 < chunk.network_seconds < chunk.seconds
        assert 0 < chunk.encode_seconds < chunk.seconds - chunk.network_seconds


def test_a_policy_of_another_task_is_named_before_anything_is_played(drift_task, drift_policy, policy_config):
    env = make_task_env(drift_task)
    check_policy_fits(load_policy(drift_policy), env, "Drift-v0")
    seen = policy_config["observation"]
    for observation, action_dim, message in (
        ({"position": 2, "wheel": 1}, 2, "observes 'wheel'"),
        ({"position": 4}, 2, "'position' of size 4"),
        (seen, 5, "has 5 numbers"),
    ):
        sizes = {**observation, "action": action_dim}
        normaliser = {key: {"scale": [1.0] * size, "offset": [0.0] * size} for key, size in sizes.items()}
        changed = {"observation": observation, "action_dim": action_dim, "normaliser": normaliser}
        policy = DiffusionPolicy.from_config({**policy_config, **changed})
        with pytest.raises(SpecpolicyError, match=message):
            check_policy_fits(policy, env, "Drift-v0")
