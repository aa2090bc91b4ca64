"""Runs of a small policy that take a moment, and loggers that keep everything or die."""

import copy

import torch

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


def fresh(config):
    torch.manual_seed(0)
    return DiffusionPolicy.from_config(copy.deepcopy(config))
