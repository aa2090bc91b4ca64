"""Push-T and its moving variant: the rules of the game, seeds, physics, frames."""

import json
import math

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import specpolicy_envs  # noqa: F401  registers the tasks
from specpolicy_envs import push_t_geometry as geometry
from specpolicy_envs import push_t_moving
from specpolicy_envs.push_t import SUCCESS_COVERAGE, PushT
from specpolicy_envs.push_t_moving import PushTMoving

BOTH = pytest.mark.parametrize("task", [PushT, PushTMoving])
CORNER = np.array([0.31, 0.31], dtype=np.float32)  # the pusher touches nothing there


def flat(observation: dict) -> np.ndarray:
    return np.concatenate([observation[key] for key in sorted(observation)])


def random_episode(env: PushT, seed: int, steps: int = 40) -> np.ndarray:
    actions = np.random.default_rng(seed).uniform(-0.32, 0.32, (steps, 2)).astype(np.float32)
    rows = [flat(env.reset(seed=seed)[0])]
    for action in actions:
        observation, reward, *_ = env.step(action)
        rows.append(np.append(flat(observation), np.float32(reward)))
    rows.append(env.get_state())
    return np.concatenate(rows)


@pytest.mark.parametrize("env_id", ["specpolicy/PushT-v0", "specpolicy/PushTMoving-v0"])
def test_the_environment_passes_gymnasiums_checks(env_id):
    check_env(gymnasium.make(env_id).unwrapped, skip_render_check=True)


@BOTH
def test_a_seed_determines_the_episode_to_the_bit(task):
    env, other = task(), task()
    first = random_episode(env, 3)
    random_episode(env, 4)  # what went before in this instance leaves no trace
    env.reset(seed=5)
    assert np.array_equal(first, random_episode(env, 3))
    assert np.array_equal(first, random_episode(other, 3))
    assert not np.array_equal(first, random_episode(env, 4))


@BOTH
def test_a_reset_without_a_seed_goes_on_with_the_stream(task):
    first, second = task(), task()
    first.reset(seed=1), second.reset(seed=1)
    assert not np.array_equal(flat(first.reset()[0]), flat(task().reset(seed=1)[0]))
    second.reset()
    assert np.array_equal(flat(first.reset()[0]), flat(second.reset()[0]))


@BOTH
def test_episodes_begin_unsolved_and_clear_of_the_pusher(task):
    env = task()
    for seed in range(50):
        observation, info = env.reset(seed=seed)
        assert info["coverage"] < 0.5 and not info["is_success"]
        pose = env.get_state()[1:4]
        assert geometry.distance(geometry.to_local(pose, observation["agent_pos"])) > geometry.PUSHER_RADIUS
        assert np.abs(observation["keypoints"]).max() < geometry.ARENA


def test_observation_keys_agree_with_each_other():
    env = PushTMoving()
    observation, _ = env.reset(seed=2)
    for pose_key, points_key in (("block_pose", "keypoints"), ("goal_pose", "goal_keypoints")):
        x, y, cos, sin = observation[pose_key]
        points = geometry.transform(np.array([x, y, math.atan2(sin, cos)]), geometry.KEYPOINTS)
        assert np.allclose(observation[points_key].reshape(9, 2), points, atol=1e-6)
    assert all(value.dtype == np.float32 for value in observation.values())


def put_block(env: PushT, pose: np.ndarray) -> None:
    env.data.qpos[:3] = pose
    env.data.qvel[:] = 0


def test_success_is_reaching_the_coverage_and_ends_the_episode():
    env = PushT()
    env.reset(seed=0)
    env.step(CORNER)
    goal = env.get_state()[-3:]
    for shift in (0.03, 0.02, 0.01, 0.0075, 0.0):  # each strip of d metres costs d * 0.2 / area
        put_block(env, geometry.compose(goal, np.array([shift, 0, 0])))
        _, reward, terminated, truncated, info = env.step(env.data.qpos[3:5].astype(np.float32))
        assert reward == info["coverage"] == pytest.approx(1 - shift * 0.2 / geometry.AREA, abs=1e-3)
        assert terminated == info["is_success"] == (info["coverage"] >= SUCCESS_COVERAGE)
        assert not truncated
    assert terminated


def test_maximum_coverage_remembers_the_best_moment():
    env = PushT()
    env.reset(seed=0)
    goal = env.get_state()[-3:]
    put_block(env, geometry.compose(goal, np.array([0.02, 0, 0])))
    best = env.step(CORNER)[-1]["coverage"]
    put_block(env, geometry.compose(goal, np.array([0.1, 0, 0])))
    info = env.step(CORNER)[-1]
    assert info["coverage"] < best == info["max_coverage"]
    assert env.reset(seed=1)[1]["max_coverage"] < best


@BOTH
def test_an_episode_is_cut_after_max_seconds(task):
    env = task(max_seconds=0.7)
    env.reset(seed=0)
    ends = [env.step(CORNER)[2:4] for _ in range(7)]
    assert ends == [(False, False)] * 6 + [(False, True)]


def test_targets_beyond_the_arena_are_cut():
    env = PushT()
    env.reset(seed=0)
    for _ in range(30):
        observation, *_ = env.step(np.array([5.0, -5.0], dtype=np.float32))
    assert np.allclose(observation["agent_pos"], [geometry.ARENA, -geometry.ARENA], atol=0.005)


@pytest.mark.parametrize("action", [np.zeros(3), np.array([0.0, np.nan]), np.zeros((1, 2))])
def test_a_bad_action_is_refused(action):
    env = PushT()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="two finite numbers"):
        env.step(action)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"render_mode": "human"}, "render_mode"),
        ({"render_size": (0, 10)}, "render_size"),
        ({"max_seconds": -1.0}, "max_seconds"),
        ({"max_seconds": math.nan}, "max_seconds"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        PushT(**arguments)


def test_the_t_stops_as_soon_as_nothing_pushes_it():
    env = PushT()
    env.reset(seed=0)
    env.data.qvel[:3] = [0.2, 0.0, 1.0]  # as fast as a push makes it
    env.step(CORNER)
    before = env.get_state()[1:4]
    env.step(CORNER)
    assert np.abs(env.get_state()[1:4] - before).max() < 1e-3


def test_a_push_has_the_same_effect_wherever_the_t_lies():
    env, effects = PushT(), []
    for pose in ([0.0, 0.0, 0.0], [0.05, -0.08, 2.0], [-0.1, 0.02, -1.0]):
        env.reset(seed=0)
        pose = np.array(pose)
        put_block(env, pose)
        start, end = geometry.transform(pose, np.array([[0.06, 0.09], [0.05, 0.02]]))
        env.data.qpos[3:5] = start
        for _ in range(15):
            env.step(end.astype(np.float32))
        effects.append(geometry.relative(pose, env.get_state()[1:4]))
    assert abs(effects[0][2]) > 0.2  # pushed at its arm, it turns
    assert np.allclose(effects, effects[0], atol=2e-3)


def watch(env: PushT, seed: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Goal and block poses (steps + 1, 3) while the pusher waits in a corner."""
    env.reset(seed=seed)
    env.data.qpos[3:5] = CORNER
    states = [env.get_state()]
    for _ in range(steps):
        env.step(CORNER)
        states.append(env.get_state())
    return np.array(states)[:, -3:], np.array(states)[:, 1:4]


def test_nothing_moves_by_itself_in_the_still_task():
    for seed in range(3):
        goal, block = watch(PushT(), seed, 100)
        assert np.array_equal(goal, np.broadcast_to(goal[0], goal.shape))
        assert np.allclose(block, block[0], atol=1e-9)


def test_the_goal_drifts_smoothly_and_stays_in_reach_in_the_moving_task():
    env, turned = PushTMoving(max_seconds=1e3), 0
    for seed in range(8):
        goal, _ = watch(env, seed, 200)
        velocity = np.diff(goal, axis=0) * env.control_hz
        velocity[:, 2] = np.diff(np.unwrap(goal[:, 2])) * env.control_hz
        speed = np.hypot(velocity[:, 0], velocity[:, 1])
        assert speed.max() <= push_t_moving.DRIFT_SPEED[1] + 1e-9 and speed.mean() > 0.005
        assert np.abs(velocity[:, 2]).max() <= push_t_moving.DRIFT_TURN + 1e-9
        # One control step changes the velocity by a fraction of it: no jumps.
        assert np.abs(np.diff(velocity[:, :2], axis=0)).max() < 0.6 * push_t_moving.DRIFT_SPEED[1]
        assert np.abs(goal[:, :2]).max() < push_t_moving.GOAL_REACH + 0.01
        headings = np.unwrap(np.arctan2(velocity[:, 1], velocity[:, 0]))
        turned += np.ptp(headings) > 0.5
    assert turned >= 6


def test_the_t_is_knocked_at_random_moments_in_the_moving_task():
    env, knocks, times = PushTMoving(max_seconds=1e3), 0, set()
    for seed in range(8):
        _, block = watch(env, seed, 200)
        moving = np.abs(np.diff(block, axis=0)).max(axis=1) > 1e-4
        starts = np.flatnonzero(moving[1:] & ~moving[:-1])
        knocks += len(starts)
        times.add(tuple(starts))
        assert np.abs(block[:, :2]).max() < 0.18
    assert 16 <= knocks <= 70  # on average one in four seconds: 40 in 160 s
    assert len(times) == 8


@BOTH
def test_robomimic_can_store_where_it_comes_from(task):
    env = task(max_seconds=7.0)
    arguments = json.loads(json.dumps(env.env_args()))
    assert arguments["type"] == 2
    again = gymnasium.make(arguments["env_name"], **arguments["env_kwargs"]).unwrapped
    assert type(again) is task and again.max_seconds == 7.0
    env.reset(seed=0)
    assert env.get_state().dtype == np.float64 and env.get_state().ndim == 1
    assert "<mujoco" in env.model_xml()


def test_a_frame_shows_goal_block_and_pusher_where_they_are():
    env = PushT(render_mode="rgb_array", render_size=(120, 200))
    env.reset(seed=0)
    put_block(env, np.array([-0.1, 0.08, 0.3]))
    env.data.qpos[3:5] = [0.15, 0.2]
    env.step(np.array([0.15, 0.2], dtype=np.float32))
    frame = env.render()
    env.close()
    assert frame.shape == (120, 200, 3) and frame.dtype == np.uint8

    def mean_position(mask: np.ndarray) -> np.ndarray:
        rows, columns = np.nonzero(mask)
        metres = 2 * 3.0 * math.tan(math.radians(12.8 / 2)) / 120  # of a pixel on the table
        return np.array([columns.mean() - 99.5, 59.5 - rows.mean()]) * metres

    red, green, blue = (frame[..., channel].astype(int) for channel in range(3))
    assert np.allclose(mean_position(red > green + 60), env.get_state()[4:6], atol=0.01)
    assert np.linalg.norm(mean_position(green > red + 30)) < 0.04  # the goal's middle, partly hidden
    assert np.allclose(mean_position(blue > red + 20), [-0.1, 0.08], atol=0.02)


def test_no_render_mode_no_frame():
    env = PushT()
    env.reset(seed=0)
    assert env.render() is None
