"""Training of diffusion policies from demonstrations."""

from specpolicy.training.trainer import TrainingOptions, saved_step, train

__all__ = ["TrainingOptions", "saved_step", "train"]
