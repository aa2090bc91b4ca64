"""Policies and robots of Hugging Face LeRobot. Reading its checkpoints does not need its package."""

from specpolicy.integrations.lerobot.diffusion import read, wrap
from specpolicy.integrations.lerobot.robot import RobotAdapter

__all__ = ["RobotAdapter", "read", "wrap"]
