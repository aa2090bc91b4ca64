"""Trains draft models on the policy's own evaluations: the loss is the gap that a draft would have."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from specpolicy.diffusion import GaussianChain
from specpolicy.errors import SpecpolicyError
from specpolicy.samplers.recycled.calibration.recording import Evaluated

GAP_SCALE = 0.3  # larger gaps count with their logarithm: they are rejected anyway
WINDOW = 16  # steps ahead of the root that the head learns to predict
FEWEST = {"independent": 2, "corrected": 3}  # steps of a chain with drafts, and with drafts that are no root
OnStep = Callable[[float], object]


def check_steps(kind: str, chain: GaussianChain) -> None:
    """Raise a clear error if a chain is too short for a kind of draft model."""
    if len(chain) < FEWEST[kind]:
        raise SpecpolicyError(
            f"{chain!r} is too short for the draft model '{kind}', which learns from chains of {FEWEST[kind]} steps or "
            "more: it has nothing to draft"
        )


def train_denoiser(
    model: nn.Module,
    chain: GaussianChain,
    record: Evaluated,
    cond: Tensor | None,
    shape: torch.Size,
    steps: int,
    generator: torch.Generator,
    on_step: OnStep = lambda loss: None,
) -> None:
    """Distil a smaller denoiser from evaluations along sequential chains (De Bortoli et al. 2025, section 3.1)."""
    check_steps("independent", chain)
    timesteps, drafted = chain.timesteps_on(record.states.device), (record.weight > 0).nonzero().flatten()

    def loss() -> Tensor:
        index = drafted[torch.randint(len(drafted), (256,), generator=generator)]
        states, at = record.states[index].view(-1, *shape), record.steps[index]
        output = model(states, timesteps[at], None if cond is None else cond[record.condition[index]])
        return _gap_loss(chain.x0(output, states, at).flatten(1) - record.x0[index], record.weight[index])

    _optimise(model, loss, steps, on_step)


def train_head(
    model: nn.Module,
    chain: GaussianChain,
    record: Evaluated,
    cond: Tensor | None,
    shape: torch.Size,
    steps: int,
    generator: torch.Generator,
    on_step: OnStep = lambda loss: None,
) -> None:
    """Teach a correction head how x0 changes after a root (De Bortoli et al. 2025, section 3.3).

    `record` holds whole sequential chains, K evaluations each, in order.
    """
    check_steps("corrected", chain)
    timesteps, count = chain.timesteps_on(record.states.device), len(chain)
    ahead = torch.arange(1, WINDOW + 1)

    def loss() -> Tensor:
        start = torch.randint(len(record) // count, (96,), generator=generator) * count
        root = torch.randint(count - 2, (96,), generator=generator)
        at = (root[:, None] + ahead).clamp(max=count - 2)
        first, later = start + root, start[:, None] + at
        states, x0 = record.states[first].view(-1, *shape), record.x0[first].view(-1, *shape)
        condition = None if cond is None else cond[record.condition[first]]
        change = model(states, x0, timesteps[root], timesteps[at], condition).flatten(2)
        error = chain.clip(x0.flatten(1)[:, None] + change) - record.x0[later]
        return _gap_loss(error.flatten(0, 1), record.weight[later].flatten())

    _optimise(model, loss, steps, on_step)


def _gap_loss(error: Tensor, weight: Tensor) -> Tensor:
    return torch.log1p(weight.square() * error.square().sum(dim=1) / GAP_SCALE**2).mean()


def _optimise(model: nn.Module, loss: Callable[[], Tensor], steps: int, on_step: OnStep, rate: float = 2e-3) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-4)
    model.train()
    for step in range(steps):
        factor = min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = rate * factor
        value = loss()
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        on_step(float(value.detach()))
    model.eval()
