"""Diffusion policies of robomimic. Reading its checkpoints does not need its package."""

from specpolicy.integrations.robomimic.checkpoint import convert, recognises, wrap

__all__ = ["convert", "recognises", "wrap"]
