"""Policies of real-stanford/diffusion_policy. Reading its checkpoints does not need its package."""

from specpolicy.integrations.diffusion_policy.checkpoint import convert, recognises, wrap

__all__ = ["convert", "recognises", "wrap"]
