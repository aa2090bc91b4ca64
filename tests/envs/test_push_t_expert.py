"""The Push-T experts: they solve their tasks, from observations alone, in more than one way."""

import numpy as np
import pytest

import specpolicy_envs
from specpolicy_envs import push_t_geometry as geometry
from specpolicy_envs.push_t import PushT
from specpolicy_envs.push_t_expert import TRAVEL_REACH, PushTExpert
from specpolicy_envs.push_t_moving import PushTMoving
from specpolicy_envs.push_t_paths import CLEARANCE, Paths
from specpolicy_envs.push_t_pushes import LENGTHS, outline, push_table


def episode(env: PushT, expert: PushTExpert, seed: int, noise: float = 0.0) -> tuple[dict, np.ndarray]:
    observation, info = env.reset(seed=seed)
    expert.reset(seed)
    random, actions = np.random.default_rng(seed), []
    while True:
        actions.append(expert.act({key: value.copy() for key, value in observation.items()}))
        executed = actions[-1] + noise * env.action_noise_scale * random.standard_normal(2)
        observation, _, terminated, truncated, info = env.step(executed)
        if terminated or truncated:
            return info, np.array(actions)


@pytest.fixture(scope="module")
def expert() -> PushTExpert:
    return PushTExpert()


@pytest.mark.parametrize("task", ["PushT", "PushTMoving"])
def test_there_is_an_expert_by_name(task):
    assert isinstance(specpolicy_envs.make_expert(f"specpolicy/{task}-v0", seed=0), PushTExpert)


def test_it_solves_the_still_task(expert):
    lengths = []
    for seed in range(12):
        info, actions = episode(PushT(), expert, seed)
        assert info["is_success"], seed
        lengths.append(len(actions))
    assert np.mean(lengths) < 80


def test_it_survives_noise_on_what_is_executed(expert):
    assert all(episode(PushT(), expert, seed, noise=0.3)[0]["is_success"] for seed in range(6))


def test_it_mostly_solves_the_moving_task(expert):
    assert sum(episode(PushTMoving(), expert, seed)[0]["is_success"] for seed in range(10)) >= 8


def test_acting_on_an_old_observation_costs(expert):
    env, delay, successes = PushTMoving(), 5, 0
    for seed in range(6):
        seen = [env.reset(seed=seed)[0]]
        expert.reset(seed)
        ended = False
        while not ended:
            observation, _, terminated, truncated, info = env.step(expert.act(seen[max(0, len(seen) - 1 - delay)]))
            seen.append(observation)
            ended = terminated or truncated
        successes += info["is_success"]
    assert successes <= 4


def test_the_same_seed_gives_the_same_demonstration(expert):
    first = episode(PushT(), expert, 4)[1]
    episode(PushT(), expert, 5)
    assert np.array_equal(first, episode(PushT(), expert, 4)[1])
    assert np.array_equal(first, episode(PushT(), PushTExpert(seed=9), 4)[1])


def test_targets_stay_close_to_the_pusher(expert):
    env = PushT()
    observation, _ = env.reset(seed=7)
    for _ in range(30):
        target = expert.act(observation)
        assert target.shape == (2,) and target.dtype == np.float32
        assert np.linalg.norm(target - observation["agent_pos"]) <= TRAVEL_REACH + 1e-6
        observation, *_ = env.step(target)


def way_round(env: PushT, expert: PushTExpert, seed: int, choices: int) -> float:
    """Angle (radians, counter-clockwise) by which the pusher goes round the T before it first moves it."""
    observation, _ = env.reset(seed=seed)
    expert.reset(choices)
    first, angles = observation["block_pose"], []
    while np.abs(observation["block_pose"] - first).max() < 1e-4 and len(angles) < 60:
        x, y = observation["agent_pos"] - observation["block_pose"][:2]
        angles.append(np.arctan2(y, x))
        observation, *_ = env.step(expert.act(observation))
    return float(np.ptp(np.unwrap(angles)) * np.sign(np.unwrap(angles)[-1] - angles[0]))


def test_demonstrations_go_both_ways_round_from_the_same_start(expert):
    env, both = PushT(), 0
    for seed in range(16):
        ways = [way_round(env, expert, seed, choices) for choices in range(6)]
        both += min(ways) < -1 and max(ways) > 1
    assert both >= 2


def test_the_pusher_does_not_move_the_t_on_its_way(expert):
    env = PushT()
    for seed in range(5):
        observation, _ = env.reset(seed=seed)
        expert.reset(seed)
        before = env.get_state()[1:3]
        for _ in range(60):
            target = expert.act(observation)
            if expert._plan is not None and expert._plan.pushing:
                break
            observation, *_ = env.step(target)
            assert np.linalg.norm(env.get_state()[1:3] - before) < 0.001


def test_the_table_foresees_a_push():
    pushes, env = push_table(), PushT()
    random = np.random.default_rng(0)
    for _ in range(12):
        contact = int(random.integers(len(pushes.start)))
        direction, length = int(random.integers(2, 7)), int(random.integers(5, 20))
        env.reset(seed=0)
        pose = np.array([*random.uniform(-0.05, 0.05, 2), random.uniform(-3, 3)])
        env.data.qpos[:3] = pose
        env.data.qpos[3:5] = geometry.transform(pose, pushes.start[contact])
        env.data.qvel[:] = 0
        steps = 8
        for step in range(1, steps + 12):  # draw the target along at about the speed of the table, then wait
            share = min(step / steps, 1.0) * LENGTHS[length]
            target = pushes.start[contact] + share * pushes.direction[contact, direction]
            env.step(geometry.transform(pose, target).astype(np.float32))
        seen = geometry.relative(pose, env.get_state()[1:4])
        foreseen = pushes.motion[contact, direction, length]
        assert np.linalg.norm((seen - foreseen)[:2]) < 0.004, (contact, direction, length)
        assert abs(seen[2] - foreseen[2]) < 0.08


@pytest.mark.parametrize("clearance", [0.017, CLEARANCE])
def test_the_outline_keeps_its_distance_and_goes_once_round(clearance):
    points, normals = outline(clearance, 0.005)
    assert np.allclose(geometry.distance(points), clearance, atol=1e-9)
    assert np.allclose(np.linalg.norm(normals, axis=1), 1)
    steps = np.linalg.norm(np.diff(points, axis=0, append=points[:1]), axis=1)
    assert steps.max() < clearance + 0.01  # the longest gaps are across the inner corners
    angles = np.unwrap(np.arctan2(points[:, 1], points[:, 0]))
    assert np.ptp(angles) == pytest.approx(2 * np.pi, rel=0.05) and angles[-1] > angles[0]


def test_ways_round_the_t_are_no_shorter_than_straight_and_lead_there():
    ends = push_table().start
    paths = Paths(ends)
    start = np.array([0.0, 0.2])
    lengths = paths.lengths(start)
    assert (lengths.min(axis=1) >= np.linalg.norm(ends - start, axis=1) - 1e-9).all()
    for side in (1, -1):
        end, position = int(np.argmin(ends[:, 1])), start
        for _ in range(200):
            way = paths.waypoint(position, end, side) - position
            if np.linalg.norm(way) < 1e-6:
                break
            position = position + way * min(1.0, 0.02 / np.linalg.norm(way))
            assert geometry.distance(position) > geometry.PUSHER_RADIUS
        assert np.allclose(position, ends[end], atol=1e-6)
