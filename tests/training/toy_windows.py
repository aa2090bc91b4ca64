"""Windows that a small policy learns from in a moment, and a logger that keeps its losses."""

import torch

from specpolicy.data.dataset import Sequences


class Curve:
    """A logger that keeps the training losses."""

    def __init__(self):
        self.losses = []

    def log(self, metrics, step):
        self.losses += [metrics["train/loss"]] if "train/loss" in metrics else []


def windows(count=64, seed=0):
    """Chunks that are ramps to an observed goal."""
    generator = torch.Generator().manual_seed(seed)
    goal = torch.rand(count, 1, 2, generator=generator) * 2 - 1
    observation = {"position": goal.expand(-1, 2, -1), "object": torch.zeros(count, 2, 3)}
    ramp = torch.linspace(0, 1, 8).reshape(1, 8, 1)
    return Sequences(observation, goal * ramp * torch.tensor([2.0, 4.0]) + torch.tensor([0.0, 4.0]))
