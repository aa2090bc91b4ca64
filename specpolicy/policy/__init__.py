"""Policies: observations in, chunks of actions out. What they are made of, how they draw, and how they are stored."""

from specpolicy.policy.base import Policy
from specpolicy.policy.config import PolicyConfig
from specpolicy.policy.diffusion_policy import DiffusionPolicy
from specpolicy.policy.loading import load_policy
from specpolicy.policy.runner import Runner
from specpolicy.policy.token_policy import TokenPolicy

__all__ = ["DiffusionPolicy", "Policy", "PolicyConfig", "Runner", "TokenPolicy", "load_policy"]
