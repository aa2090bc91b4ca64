"""Training of diffusion policies from demonstrations."""

from specpolicy.training.identity import run_identity, validation_fingerprint
from specpolicy.training.options import TrainingOptions
from specpolicy.training.state import saved_step
from specpolicy.training.trainer import train

__all__ = ["TrainingOptions", "run_identity", "saved_step", "train", "validation_fingerprint"]
