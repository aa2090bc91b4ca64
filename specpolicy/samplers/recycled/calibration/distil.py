"""Distils a student from the policy's own evaluations. Gaps decide acceptance, so the loss is made of gaps."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from specpolicy.samplers.recycled.calibration.muon import Muon
from specpolicy.samplers.recycled.calibration.recording import Evaluated
from specpolicy.samplers.recycled.surrogates.student import StudentSurrogate

VALUE_SCALE, PAIR_SCALE = 0.3, 0.2  # gaps beyond these count with their logarithm: they are rejected anyway
PAIR_WEIGHT, VISITED_WEIGHT = 1.5, 0.3


@dataclass(frozen=True)
class Distillation:
    """Training options: optimiser `steps` of `batch` values and `batch` pairs; `half`: matrix products in bfloat16.

    Hidden layers are trained with Muon at `matrix_learning_rate`, which reaches the same loss in a third of the steps
    of AdamW. AdamW trains everything else.
    """

    steps: int = 3000
    batch: int = 384
    learning_rate: float = 5e-3
    matrix_learning_rate: float = 1.5e-2
    weight_decay: float = 1e-4
    half: bool = False


def fit_prior(samples: Tensor, cond: Tensor | None, groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fit the prior by ridge regression of chunks on their condition.

    Args:
        samples: (N, d) chunks.
        cond: (N, C) or None.
        groups: (N,) equal for chunks of the same condition.

    Returns:
        covariance (d, d), the mean covariance of chunks that share a condition; weight (d, C); bias (d,).
    """
    count, size = samples.shape
    samples = samples.double()
    inputs = (
        samples.new_ones(count, 1)
        if cond is None
        else torch.cat([cond.double().flatten(1), samples.new_ones(count, 1)], 1)
    )
    gram = inputs.T @ inputs + 1e-4 * count * torch.eye(inputs.shape[1], dtype=inputs.dtype, device=inputs.device)
    solution = torch.linalg.solve(gram, inputs.T @ samples)
    _, group = groups.unique(return_inverse=True)
    number = torch.bincount(group).double()
    means = torch.zeros(len(number), size, dtype=samples.dtype, device=samples.device).index_add_(0, group, samples)
    within = samples - (means / number[:, None])[group]
    free = int((number - 1).clamp(min=0).sum())
    # Too few repeated conditions to tell: use the residual covariance of the regression.
    residual = within if free > 2 * size else samples - inputs @ solution
    covariance = residual.T @ residual / (free if free > 2 * size else count)
    return covariance, solution[:-1].T, solution[-1]


def distil(
    student: StudentSurrogate,
    clip: Callable[[Tensor], Tensor],
    values: Evaluated,
    rounds: Evaluated,
    cond: Tensor | None,
    options: Distillation,
    generator: torch.Generator,
    on_step: Callable[[float], object] = lambda loss: None,
) -> None:
    """Train `student` in place.

    It learns x0 at `values`. At `rounds` it learns x0 and, above all, the change of x0 between two evaluations of one
    chain at one step. Errors are counted in units of the gap they would make, B_k |error| / sigma_k. `clip` is the
    chain's clipping of x0.
    """
    first = rounds.pairs()
    first, drafted = first[rounds.weight[first] > 0], (values.weight > 0).nonzero().flatten()
    optimisers = _optimisers(student, options)
    rates = [(group, group["lr"]) for optimiser in optimisers for group in optimiser.param_groups]
    flat = None if cond is None else cond.flatten(1)
    student.train()
    for step in range(options.steps):
        warm, done = min(1.0, (step + 1) / 100), step / options.steps
        for group, rate in rates:
            group["lr"] = rate * warm * 0.5 * (1 + math.cos(math.pi * done))
        value = drafted[_pick(len(drafted), options.batch, generator)]
        pair = first[_pick(len(first), options.batch, generator)] if len(first) else first
        parts = [(values, value), (rounds, pair), (rounds, pair + 1)]
        states, x0, timesteps, weight, condition = (
            torch.cat([getattr(record, name)[index] for record, index in parts])
            for name in ("states", "x0", "timesteps", "weight", "condition")
        )
        with torch.autocast(states.device.type, torch.bfloat16, enabled=options.half):
            # Both evaluations of a pair share their condition.
            unlike = len(value) + len(pair)
            features = student.prepare(None if flat is None else flat[condition[:unlike]]).expand(unlike, -1)
            guess = student(states, timesteps, torch.cat([features, features[len(value) :]])).float()
        scale = weight.square()
        gap = scale * (clip(guess) - x0).square().sum(dim=1)
        value_loss = torch.log1p(gap / VALUE_SCALE**2)
        loss = value_loss[: len(value)].mean()
        if len(pair):
            old, new = slice(len(value), len(value) + len(pair)), slice(len(value) + len(pair), None)
            moved = clip(x0[old] + guess[new] - guess[old])
            pair_gap = scale[new] * (moved - x0[new]).square().sum(dim=1)
            loss = loss + VISITED_WEIGHT * value_loss[len(value) :].mean()
            loss = loss + PAIR_WEIGHT * torch.log1p(pair_gap / PAIR_SCALE**2).mean()
        student.zero_grad()
        loss.backward()
        for optimiser in optimisers:
            optimiser.step()
        on_step(float(loss.detach()))
    student.eval()


def _optimisers(student: StudentSurrogate, options: Distillation) -> list[torch.optim.Optimizer]:
    """Muon for the weights of hidden layers, AdamW for the rest: inputs, outputs, biases and tables."""
    hidden = student.hidden_weights()
    others = [parameter for parameter in student.parameters() if all(parameter is not weight for weight in hidden)]
    return [
        torch.optim.AdamW(others, lr=options.learning_rate, betas=(0.9, 0.99), weight_decay=options.weight_decay),
        Muon(hidden, lr=options.matrix_learning_rate),
    ]


def _pick(count: int, number: int, generator: torch.Generator) -> Tensor:
    return torch.randint(count, (number,), generator=generator)
