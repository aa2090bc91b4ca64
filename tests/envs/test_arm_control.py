"""The geometry behind the experts: angles, rotations, the way down, the action's scale."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from specpolicy_envs.arm_control import METRES_PER_UNIT, OPEN, funnel, move, rotation_matrix, wrap, yaw_of

ANGLES = st.floats(-20, 20)
COORDINATES = st.floats(-0.5, 0.5)
POINTS = st.tuples(COORDINATES, COORDINATES, COORDINATES).map(np.array)


def observation(hand: np.ndarray, yaw: float = 0.0) -> dict[str, np.ndarray]:
    """A hand that points straight down."""
    quaternion = (Rotation.from_euler("z", yaw) * Rotation.from_euler("x", np.pi)).as_quat()
    return {"robot0_eef_pos": hand, "robot0_eef_quat": quaternion, "robot0_gripper_qpos": np.array([0.04, -0.04])}


@given(ANGLES, st.sampled_from([np.pi / 2, np.pi, 2 * np.pi]))
def test_wrap_gives_the_equivalent_angle_nearest_zero(angle, period):
    wrapped = wrap(angle, period)
    assert abs(wrapped) <= period / 2 + 1e-9
    turns = (angle - wrapped) / period
    assert abs(turns - round(turns)) < 1e-6


@given(st.integers(0, 2**32 - 1))
def test_rotations_agree_with_scipy(seed):
    rotation = Rotation.random(random_state=seed)
    np.testing.assert_allclose(rotation_matrix(rotation.as_quat()), rotation.as_matrix(), atol=1e-12)


@given(ANGLES)
def test_yaw_of_a_turned_body_is_the_turn(angle):
    turned = Rotation.from_euler("z", angle).as_quat()
    assert abs(wrap(yaw_of(turned) - angle)) < 1e-9


@given(POINTS, POINTS, st.floats(-1.5, 1.5))
def test_the_way_down_stays_in_its_funnel(hand, target, turn):
    waypoint = funnel(hand, target, hover=0.1, turn=turn)
    assert -1e-9 <= waypoint[2] - target[2] <= 0.1 + 1e-9
    aside = np.hypot(*(target - hand)[:2])
    assert np.hypot(*(target - waypoint)[:2]) <= aside + 1e-9  # never away from the target
    if aside < 0.01 and abs(turn) < 0.1:
        assert waypoint[2] == target[2]
    if aside > 0.05:
        assert waypoint[2] - target[2] >= 0.1 - 1e-9


@given(POINTS, POINTS, st.floats(-3, 3), st.floats(0.5, 3))
def test_actions_stay_in_range_and_keep_their_direction(hand, target, turn, gain):
    action = move(observation(hand), target, turn, OPEN, gain=gain)
    assert np.abs(action).max() <= 1 and action[-1] == OPEN
    wanted = gain * (target - hand) / METRES_PER_UNIT
    np.testing.assert_allclose(np.cross(action[:3], wanted), 0, atol=1e-5 * (1 + np.abs(wanted).max()))
    assert action[:3] @ wanted >= 0


@given(ANGLES, st.floats(-0.3, 0.3), st.floats(-0.3, 0.3))
def test_a_tilted_hand_is_brought_upright(yaw, roll, pitch):
    tilted = observation(np.zeros(3), yaw)
    tilt = Rotation.from_rotvec([roll, pitch, 0])
    tilted["robot0_eef_quat"] = (tilt * Rotation.from_quat(tilted["robot0_eef_quat"])).as_quat()
    turn = move(tilted, np.zeros(3), 0.0, OPEN)[3:6] * 0.5
    upright = Rotation.from_rotvec(turn) * Rotation.from_quat(tilted["robot0_eef_quat"])
    assert upright.as_matrix()[2, 2] <= -1 + 2e-3
