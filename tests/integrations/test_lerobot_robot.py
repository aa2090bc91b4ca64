"""LeRobot's robots under our control loop: tables, units, and what was really sent."""

import math

import numpy as np
import pytest
from lerobot_stand_in import Arm, Arms, Mode, Steady, connected, run

from specpolicy import SpecpolicyError
from specpolicy.control import Limits
from specpolicy.integrations.lerobot import RobotAdapter

STATE, FRONT = "observation.state", "observation.images.front"


def test_without_tables_names_are_those_of_lerobots_data():
    adapter, arm = connected(wheels=True)
    seen = adapter.observe()
    assert list(seen) == [STATE, FRONT]
    assert seen[STATE].tolist() == [0, 10, 20, 0, 0] and seen[STATE].dtype == np.float32
    assert seen[FRONT].shape == (6, 8, 3) and seen[FRONT].dtype == np.uint8
    adapter.act(np.arange(5.0))
    assert arm.sent == [{"pan.pos": 0.0, "lift.pos": 1.0, "gripper.pos": 2.0, "x.vel": 3.0, "theta.vel": 4.0}]
    assert adapter.action_dim == 5 and adapter.hold == (None, None, None, 0.0, 0.0)


def test_tables_give_keys_order_and_units():
    units = {"pan.pos": "degrees_to_radians", "lift.pos": "degrees_to_radians"}
    tables = {"joints": ["gripper.pos", "lift.pos"], "hand": "gripper.pos", "image": "front"}
    order = ["lift.pos", "gripper.pos", "pan.pos"]
    adapter, arm = connected(tables, order, units=units)
    seen = adapter.observe()
    assert seen["joints"] == pytest.approx([20, math.radians(10)]) and seen["hand"] == pytest.approx([20])
    adapter.act(np.array([math.pi / 2, 30.0, -math.pi]))
    assert arm.sent[0] == pytest.approx({"lift.pos": 90, "gripper.pos": 30, "pan.pos": -180})
    assert list(arm.sent[0]) == order and adapter.sent == pytest.approx([math.pi / 2, 30, -math.pi])
    assert adapter.position() == pytest.approx([math.pi / 2, 30, -math.pi])


def test_a_unit_for_all_angles_leaves_normalised_numbers_alone():
    adapter, _ = connected(units="degrees_to_radians")
    assert adapter.observe()[STATE] == pytest.approx([0, math.radians(10), 20])
    low, high = adapter.bounds
    assert low.tolist() == [-math.inf, -math.inf, 0] and high.tolist() == [math.inf, math.inf, 100]
    modes = {"pan": Mode.RANGE_M100_100, "gripper": Mode.RANGE_0_100}
    adapter, _ = connected(units="degrees_to_radians", modes=modes)
    assert adapter.observe()[STATE].tolist() == [0, 10]
    assert adapter.bounds[0].tolist() == [-100, 0]


def test_units_of_two_arms_are_those_of_each():
    adapter = RobotAdapter(Arms(Arm(), Arm(modes={"gripper": Mode.RANGE_0_100})), units="degrees_to_radians").connect()
    assert adapter.position() == pytest.approx([0, math.radians(10), 20, 0])
    assert adapter.bounds[0].tolist() == [-math.inf, -math.inf, 0, 0]


def test_what_was_really_sent_is_told():
    told = []
    adapter, arm = connected(most=5.0, units="degrees_to_radians", on_sent=lambda *pair: told.append(pair))
    adapter.act(np.array([0.0, math.radians(90), 21.0]))
    assert adapter.sent == pytest.approx([0, math.radians(15), 21]) and (adapter.actions, adapter.changed) == (1, 1)
    adapter.act(np.array([0.0, math.radians(16), 21.0]))
    assert (adapter.actions, adapter.changed) == (2, 1)
    asked, sent = zip(*told, strict=True)
    assert asked[0][1] == pytest.approx(math.radians(90)) and sent[0][1] == pytest.approx(math.radians(15))
    arm.send_action = lambda action: None  # a robot that does not say
    adapter.act(np.array([1.0, 2.0, 3.0]))
    assert adapter.sent == pytest.approx([1, 2, 3])


@pytest.mark.parametrize(
    ("options", "words"),
    (
        ({"observation": {"s": ["pan.pos", "lft.pos"]}}, "no joint 'lft.pos'; did you mean 'lift.pos'?"),
        ({"observation": {"s": ["front"]}}, "'front' is an array of 6 x 8 x 3, not a joint"),
        ({"observation": {"s": ["pan.pos", "pan.pos"]}}, "names 'pan.pos' twice"),
        ({"observation": {"i": "wrist"}}, "no camera 'wrist'; it has front"),
        ({"observation": {}}, "observation is a mapping of 0"),
        ({"observation": {"s": 3}}, "expected a list of the robot's joints"),
        ({"action": ["pan.pos", "lift.pos"]}, "action lacks 'gripper.pos'"),
        ({"action": ["elbow.pos"]}, "action: the robot has no joint 'elbow.pos'"),
        ({"fixed": {"elbow.pos": 0}}, "fixed: the robot takes no 'elbow.pos'"),
        ({"fixed": {"pan.pos": math.nan}}, "expected a finite number"),
        ({"fixed": {"pan.pos": 0}, "action": ["pan.pos", "lift.pos", "gripper.pos"]}, "both in action and in fixed"),
        ({"units": "degrees"}, "unknown unit 'degrees': use one of same, degrees_to_radians, radians_to_degrees"),
        ({"units": {"elbow.pos": "same"}}, "units: the robot has no joint 'elbow.pos'"),
        ({"units": {"gripper.pos": "degrees_to_radians"}}, "'gripper.pos' is no angle: the robot gives it from 0 to 1"),
        ({"position": ["pan.pos"]}, "expected 3 entries"),
        ({"position": ["pan.pos", "lift.pos", "grip.pos"]}, "position: the robot has no joint 'grip.pos'"),
        ({"position": ["pan.pos", 0, math.inf]}, "neither the name of an observed number nor a number"),
        ({"fixed": 5}, "fixed is 5: expected {joint: value to send}"),
        ({"on_sent": "log"}, "on_sent is 'log': expected a function"),
    ),
)
def test_wrong_tables_are_told_in_a_line(options, words):
    with pytest.raises(SpecpolicyError) as caught:
        RobotAdapter(Arm(), **options)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_unit_for_all_angles_needs_a_robot_that_says_which_are():
    arm = Arm()
    arm.bus.motors = None
    with pytest.raises(SpecpolicyError, match=r"does not tell which of its numbers are angles"):
        RobotAdapter(arm, units="degrees_to_radians")


@pytest.mark.parametrize("action", ([0.0, math.nan, 0.0], [0.0, math.inf, 0.0], ["1", "2", "3"], [None] * 3), ids=str)
def test_an_action_that_is_not_finite_is_not_sent(action):
    adapter, arm = connected()
    with pytest.raises(SpecpolicyError, match="an action that is not of finite numbers: stand_in_arm is not sent it"):
        adapter.act(action)
    assert not arm.sent and adapter.actions == 0


def test_an_action_before_the_robot_is_connected_is_one_line():
    with pytest.raises(SpecpolicyError, match=r"stand_in_arm is not connected .*: connect\(\) it before the run"):
        RobotAdapter(Arm()).act(np.zeros(3))


def test_what_is_no_robot_is_refused():
    with pytest.raises(SpecpolicyError, match=r"object is no robot of LeRobot: it has no method connect"):
        RobotAdapter(object())


def test_a_policy_that_does_not_fit_is_refused():
    adapter = RobotAdapter(Arm())
    adapter.check({STATE: 3, FRONT: (3, 6, 8)}, 3)
    with pytest.raises(SpecpolicyError, match=r"expects 'observation.images.front' of size 3 x 48 x 64, .* 6 x 8 x 3"):
        adapter.check({FRONT: (3, 48, 64)})
    with pytest.raises(SpecpolicyError, match=r"expects 'observation.state' of size 7"):
        adapter.check({STATE: (7,)})
    with pytest.raises(SpecpolicyError, match=r"observes 'agent_pos', .* shows observation.state, observation.images"):
        adapter.check({"agent_pos": 2})
    with pytest.raises(SpecpolicyError, match=r"an action of the policy has 7 numbers, stand_in_arm takes 3"):
        adapter.check({}, 7)


def test_what_a_robot_gives_against_its_word_is_one_line():
    adapter, arm = connected()
    arm.size = (3, 4)
    with pytest.raises(SpecpolicyError, match=r"'front' gives 3 x 4 x 3, .* say 6 x 8 x 3"):
        adapter.observe()
    arm.size = (6, 8)
    arm.state["lift.pos"] = "up"
    with pytest.raises(SpecpolicyError, match=r"'lift.pos' is 'up', no number"):
        adapter.observe()
    del arm.state["lift.pos"]
    with pytest.raises(SpecpolicyError, match=r"lacks 'lift.pos'"):
        adapter.observe()
    with pytest.raises(SpecpolicyError, match=r"shape \(2,\)"):
        adapter.act(np.zeros(2))


def test_a_rate_counts_from_where_the_robot_stands():
    adapter, arm = connected()
    run(adapter, Steady([50.0, 50.0, 50.0]), limits=Limits(rate=50.0))
    assert arm.sent[0] == pytest.approx({"pan.pos": 1.0, "lift.pos": 11.0, "gripper.pos": 21.0})


def test_where_a_robot_stands_may_be_a_table_of_its_own_or_not_known():
    adapter, _ = connected(position=["lift.pos", 0.5, "gripper.pos"])
    assert adapter.position().tolist() == [10, 0.5, 20]
    arm = Arm(wheels=True)
    assert RobotAdapter(arm).connect().position().tolist() == [0, 10, 20, 0, 0]

    class Blind(Arm):
        @property
        def observation_features(self):
            return {"front": (6, 8, 3)}

    assert RobotAdapter(Blind()).position() is None


def test_robots_that_take_more_and_say_less():
    """As some of LeRobot's own: torques that its rollout does not send, connect() without arguments, and no answer."""

    class Other(Arm):
        action_features = property(lambda self: {**dict.fromkeys(self.state, float), "pan.torque": float})

    arm = Other()
    arm.is_calibrated, connect = None, arm.connect
    arm.connect = lambda: connect(True)
    adapter = RobotAdapter(arm).connect()
    adapter.act(np.array([1.0, 2.0, 3.0]))
    assert list(arm.sent[0]) == ["pan.pos", "lift.pos", "gripper.pos"]


def test_joints_that_the_policy_does_not_move_are_sent_a_fixed_value():
    adapter, arm = connected(wheels=True, fixed={"x.vel": 0.0, "theta.vel": 0.0})
    assert adapter.action_dim == 3 and adapter.hold is None
    adapter.act(np.array([1.0, 2.0, 3.0]))
    assert arm.sent[0] == {"pan.pos": 1.0, "lift.pos": 2.0, "gripper.pos": 3.0, "x.vel": 0.0, "theta.vel": 0.0}
