"""Training of diffusion policies from demonstrations."""

from specpolicy.training.trainer import TrainingOptions, train

__all__ = ["TrainingOptions", "train"]
