"""The belt of LiftConveyor: it drags by friction, changes by itself, keeps the cube in reach, lets a lifted cube be."""

import numpy as np
import pytest

from specpolicy_envs.lift_conveyor import AREA, SECONDS_BETWEEN_CHANGES, SPEED

STILL = np.zeros(7, np.float32)


@pytest.fixture
def env(envs):
    return envs("specpolicy/LiftConveyor-v0")


def ride(env, seed: int, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cube position (steps, 2), cube velocity (steps, 2) and belt velocity (steps, 2) with the arm at rest."""
    env.reset(seed=seed)
    rows = []
    for _ in range(steps):
        observation = env.step(STILL)[0]
        rows.append((observation["object"][:2], observation["cube_velocity"], env.belt_velocity))
    positions, velocities, belts = map(np.array, zip(*rows, strict=True))
    return positions, velocities, belts


def test_the_cube_takes_up_the_belts_velocity(env):
    positions, velocities, belts = ride(env, seed=0, steps=60)
    steady = np.all(belts[2:] == belts[:-2], axis=1)[6:]  # two steps after a change, and after the first fall
    assert steady.sum() > 20
    np.testing.assert_allclose(velocities[8:][steady], belts[8:][steady], atol=3e-3)
    moved = np.diff(positions, axis=0)[7:]
    np.testing.assert_allclose(moved[steady] * env.control_hz, velocities[8:][steady], atol=3e-3)


def test_speeds_and_changes_are_drawn_within_their_ranges(env):
    """160 s of belt, drawn directly: speeds in range, changes neither too soon nor too late, all directions."""
    env.reset(seed=1)
    speeds, angles, waits = [], [], []
    for _ in range(250):
        env._change_belt()
        speeds.append(np.hypot(*env.belt_velocity))
        angles.append(np.arctan2(*env.belt_velocity))
        waits.append(env._next_change)
    for values, (low, high) in ((speeds, SPEED), (waits, SECONDS_BETWEEN_CHANGES)):
        assert low <= min(values) < low + 0.1 * (high - low)
        assert high >= max(values) > high - 0.1 * (high - low)
    assert set(np.floor(np.array(angles) / (np.pi / 2))) == {-2.0, -1.0, 0.0, 1.0}


def test_the_belt_changes_during_an_episode_and_keeps_the_cube_in_reach(env):
    positions, _, belts = ride(env, seed=3, steps=160)
    changes = int(np.any(np.diff(belts, axis=0) != 0, axis=1).sum())
    assert 7 <= changes <= 60
    beyond = np.maximum(positions - AREA[1], AREA[0] - positions).max()
    assert beyond < 0.025  # one control step at full speed, and the time to turn
    assert positions.ptp(axis=0).max() > 0.05


def test_a_lifted_cube_does_not_ride(env):
    env.reset(seed=5)
    for _ in range(10):
        env.step(STILL)
    joint = env._simulation.cube.joints[0]
    data = env._simulation.sim.data
    pose = data.get_joint_qpos(joint).copy()
    data.set_joint_qpos(joint, [*pose[:2], pose[2] + 0.1, *pose[3:]])
    data.set_joint_qvel(joint, np.zeros(6))
    velocity = env.step(STILL)[0]["cube_velocity"]  # 50 ms of free fall, 12 mm
    assert np.abs(velocity).max() < 1e-3 < 0.05 < np.hypot(*env.belt_velocity)
