"""How a robot of LeRobot is connected and comes to rest: nothing is left powered or moving, whatever fails."""

import signal
import threading

import numpy as np
import pytest
from lerobot_stand_in import Arm, Arms, Steady, connected, run

from specpolicy import SpecpolicyError
from specpolicy.integrations.lerobot import RobotAdapter


def test_a_connection_that_fails_is_one_line_and_leaves_nothing_open():
    arm = Arm(fault="connect")
    words = r"cannot be connected: ConnectionError: Could not connect.*: check"
    with pytest.raises(SpecpolicyError, match=words) as told:
        RobotAdapter(arm).connect()
    assert "\n" not in str(told.value) and not arm.bus.is_connected
    arm = Arm()
    arm.is_calibrated = False
    with pytest.raises(SpecpolicyError, match=r"lerobot-calibrate --robot.type=stand_in_arm --robot.id=mine"):
        RobotAdapter(arm).connect()
    assert not arm.is_connected and arm.connects == [False]  # nobody is asked at the terminal
    arm = Arm()
    arm.connect = lambda calibrate: (setattr(arm.bus, "is_connected", True), signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        RobotAdapter(arm).connect()
    assert not arm.is_connected


def test_a_later_connection_does_not_go_back_to_where_the_last_one_was():
    """Joints may stand elsewhere by now, so with the zeros of its wheels nothing else is sent."""
    arm = Arm(wheels=True)
    adapter = RobotAdapter(arm)
    with adapter:
        adapter.act(np.array([90.0, 0.0, 0.0, 0.3, 0.0]))
    assert arm.sent[-1] == {"pan.pos": 90.0, "lift.pos": 0.0, "gripper.pos": 0.0, "x.vel": 0.0, "theta.vel": 0.0}
    before = len(arm.sent)
    with pytest.raises(KeyboardInterrupt), adapter:
        raise KeyboardInterrupt
    assert len(arm.sent) == before and arm.disconnects == 2 and adapter.sent is None


def test_a_robot_that_its_owner_connected_is_stopped_as_well():
    arm = Arm(wheels=True)
    adapter = RobotAdapter(arm)
    arm.connect()
    adapter.act(np.array([0.0, 0.0, 0.0, 0.3, 0.0]))
    adapter.stop()
    assert arm.sent[-1]["x.vel"] == 0.0 and arm.disconnects == 1


def test_a_robot_that_is_not_connected_is_one_line():
    with pytest.raises(SpecpolicyError, match=r"stand_in_arm is not connected .*: connect\(\) it before the run"):
        run(RobotAdapter(Arm()), Steady(np.zeros(3)))


def test_a_run_moves_the_robot_and_disconnects_it():
    arm = Arm()
    with RobotAdapter(arm) as adapter:
        log = run(adapter, Steady([1.0, 2.0, 3.0]))
        assert not arm.is_connected
    assert arm.disconnects == 1 and log.end.cause == "the time was over"
    assert arm.sent[-1] == {"pan.pos": 1.0, "lift.pos": 2.0, "gripper.pos": 3.0}


@pytest.mark.parametrize(
    ("arm_fault", "planner_fault", "words"),
    (
        ("observe", None, "robot.observe\(\) failed: RuntimeError: the camera has no frame"),
        ("act", None, "robot.act\(\) failed: RuntimeError: a motor does not answer"),
        (None, "raise", "inference failed: ZeroDivisionError"),
    ),
)
def test_a_fault_of_the_loop_disconnects_it(arm_fault, planner_fault, words):
    adapter, arm = connected(fault=arm_fault)
    with pytest.raises(SpecpolicyError, match=words):
        run(adapter, Steady([1.0, 2.0, 3.0], planner_fault), seconds=20)
    assert arm.disconnects == 1 and not arm.is_connected
    adapter.stop()  # again: nothing
    assert arm.disconnects == 1


def test_a_call_that_hangs_does_not_keep_it_connected():
    adapter, arm = connected()
    released, look = threading.Event(), arm.get_observation

    def hang():
        if arm.observed > 3:
            released.wait(60)
        return look()

    arm.get_observation = hang
    with pytest.raises(SpecpolicyError, match=r"has not come back for 0.5 s or more: the robot is stopped"):
        run(adapter, Steady([1.0, 2.0, 3.0]), seconds=20, watchdog=0.5)
    assert arm.disconnects == 1 and not arm.is_connected
    released.set()


def test_motors_are_let_go_even_if_a_camera_is_gone():
    """LeRobot's own robots refuse to disconnect then."""
    adapter, arm = connected(fault="camera")
    with pytest.raises(SpecpolicyError, match=r"stand_in_arm is not connected"):
        run(adapter, Steady([1.0, 2.0, 3.0]), seconds=20)
    assert arm.disconnects == 0 and not arm.bus.is_connected and arm.bus.released is False


def test_a_robot_that_cannot_be_disconnected_is_reported():
    adapter, arm = connected()
    arm.disconnect = lambda: 1 / 0
    arm.bus.disconnect = lambda release: 1 / 0
    with pytest.raises(
        SpecpolicyError, match=r"stand_in_arm is not at rest: ZeroDivisionError.*: switch its power off"
    ):
        adapter.stop()


def test_wheels_stand_still_at_the_end():
    adapter, arm = connected(wheels=True)
    run(adapter, Steady([1.0, 2.0, 3.0, 0.5, 0.5]), hold=adapter.hold)
    assert arm.sent[-2]["x.vel"] == 0.5
    assert arm.sent[-1] == {"pan.pos": 1.0, "lift.pos": 2.0, "gripper.pos": 3.0, "x.vel": 0.0, "theta.vel": 0.0}


@pytest.mark.parametrize("fault", (ConnectionError("the bus does not answer"), KeyboardInterrupt()))
def test_a_calibration_that_cannot_be_read_leaves_nothing_open(fault):
    """Some of LeRobot's robots read it from their motors."""

    class Unreadable(Arm):
        @property
        def is_calibrated(self):
            raise fault

        @is_calibrated.setter
        def is_calibrated(self, value):
            pass

    arm = Unreadable()
    told = SpecpolicyError if isinstance(fault, Exception) else KeyboardInterrupt
    with pytest.raises(told):
        RobotAdapter(arm).connect()
    assert arm.connects and not arm.is_connected


def test_wheels_stand_still_though_the_first_action_fails():
    """It may have arrived before the call failed."""
    adapter, arm = connected(wheels=True)
    send = arm.send_action

    def fail_once(action):
        send(action)
        arm.send_action = send
        raise RuntimeError("no answer")

    arm.send_action = fail_once
    with pytest.raises(RuntimeError):
        adapter.act(np.array([1.0, 2.0, 3.0, 0.5, 0.5]))
    adapter.stop()
    assert arm.sent[0]["x.vel"] == 0.5 and (arm.sent[-1]["x.vel"], arm.sent[-1]["theta.vel"]) == (0, 0)
    assert not arm.is_connected


@pytest.mark.parametrize("gone", ("left", "right"))
def test_the_motors_of_both_arms_are_let_go_even_if_a_camera_is_gone(gone):
    arms = Arms(Arm(), Arm())
    adapter = RobotAdapter(arms).connect()
    getattr(arms, f"{gone}_arm").camera = False
    adapter.stop()
    assert not arms.left_arm.bus.is_connected and not arms.right_arm.bus.is_connected


def test_a_bus_that_fails_does_not_keep_the_other_arm_powered():
    arms = Arms(Arm(), Arm())
    adapter = RobotAdapter(arms).connect()
    arms.left_arm.camera = False
    for arm in (arms.left_arm, arms.right_arm):
        release = arm.bus.disconnect
        arm.bus.disconnect = lambda disable_torque, release=release: (release(disable_torque), 1 / 0)
    with pytest.raises(SpecpolicyError, match=r"is not at rest: .*: switch its power off"):
        adapter.stop()
    assert not arms.left_arm.bus.is_connected and not arms.right_arm.bus.is_connected


def test_two_stops_at_once_are_one():
    adapter, arm = connected()
    begun, released, disconnect = threading.Event(), threading.Event(), arm.disconnect

    def slowly():
        begun.set()
        assert released.wait(60)
        disconnect()

    arm.disconnect = slowly
    first = threading.Thread(target=adapter.stop)
    first.start()
    assert begun.wait(60)
    arm.disconnect = lambda: pytest.fail("a second call beside the first")
    adapter.stop()
    released.set()
    first.join(60)
    assert arm.disconnects == 1 and not arm.is_connected
