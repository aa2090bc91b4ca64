"""Runs of a small policy that take a moment, and loggers that keep everything or die."""

import copy

import torch

from specpolicy.data.dataset import Sequences
from specpolicy.policy import DiffusionPolicy

OPTIONS = dict(steps=40, batch_size=16, log_every=5, validate_every=10, save_every=10, warmup_steps=5)


class Curve:
    """A logger that keeps everything."""

    def __init__(self):
        self.rows = {}

    def log(self, metrics, step):
        kept = {name: value for name, value in metrics.items() if "second" not in name}
        self.rows.setdefault(step, {}).update(kept)


class Killed(Exception):
    pass


class KilledAt(Curve):
    """A logger that dies at a step, as a killed process does between two saves."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def log(self, metrics, step):
        if step >= self.at:
            raise Killed
        super().log(metrics, step)


def sequences(count=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    goal = torch.rand(count, 1, 2, generator=generator) * 2 - 1
    observation = {"position": goal.expand(-1, 2, -1), "object": torch.zeros(count, 2, 3)}
    ramp = torch.linspace(0, 1, 8).reshape(1, 8, 1)
    return Sequences(observation, (goal * ramp * torch.tensor([2.0, 4.0]) + torch.tensor([0.0, 4.0])))


def fresh(config):
    torch.manual_seed(0)
    return DiffusionPolicy.from_config(copy.deepcopy(config))
