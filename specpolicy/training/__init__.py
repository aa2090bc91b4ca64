"""Training of diffusion policies from demonstrations."""

from specpolicy.training.identity import run_identity, validation_fingerprint
from specpolicy.training.options import TrainingOptions
from specpolicy.training.trainer import saved_step, train

__all__ = ["TrainingOptions", "run_identity", "saved_step", "train", "validation_fingerprint"]
