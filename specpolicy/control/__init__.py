"""The real-time control loop: clocks, the queue of action chunks, inference beside the loop, safety, timing."""

from specpolicy.control.chunk import Chunk, Planner
from specpolicy.control.clock import make_clock
from specpolicy.control.controller import Controller
from specpolicy.control.execution import DeadlineMissed, Execution
from specpolicy.control.gym_robot import GymRobot
from specpolicy.control.limits import Limits
from specpolicy.control.planner import PolicyPlanner
from specpolicy.control.report import timing_report
from specpolicy.control.robot import Robot
from specpolicy.control.timing import TimingLog

__all__ = [
    "Chunk",
    "Controller",
    "DeadlineMissed",
    "Execution",
    "GymRobot",
    "Limits",
    "Planner",
    "PolicyPlanner",
    "Robot",
    "TimingLog",
    "make_clock",
    "timing_report",
]
