"""Training losses. Diffusion policies learn to denoise (Ho et al. 2020, eq. 14; Salimans and Ho 2022 for v). Token
policies learn to fill masked positions (masked diffusion with the mask ratio cos(pi t / 2), t uniform)."""

import math
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from specpolicy.diffusion import TrainingProcess
from specpolicy.policy import DiffusionPolicy, TokenPolicy
from specpolicy.samplers import Denoiser

Draws = Mapping[str, Tensor]  # random numbers by name, a row for each window of a batch


class Objective(Protocol):
    """The loss of a batch. Its random numbers are drawn beforehand, so that parts of a batch get those of their rows.

    `figures`: findings while windows were prepared, to be logged once.
    """

    @property
    def figures(self) -> Mapping[str, float]: ...

    def prepare(self, actions: Tensor, executed: Tensor | None = None) -> Tensor:
        """Return the training target of normalised actions (N, H, D), computed once for all windows; `executed`: what
        was executed in their place, None: they were."""
        ...

    def draw(self, shape: torch.Size, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the random numbers for a batch whose targets have this shape."""
        ...

    def loss(self, network: Denoiser, target: Tensor, cond: Tensor, draws: Draws, half: bool) -> Tensor:
        """Return the mean loss of the windows of a batch; `half`: run the network in bfloat16."""
        ...


class Denoising:
    """Mean squared error of the network's prediction for a noised chunk."""

    figures: Mapping[str, float] = {}

    def __init__(self, policy: DiffusionPolicy):
        self.process = policy.chain.process

    def prepare(self, actions: Tensor, executed: Tensor | None = None) -> Tensor:
        """See `Objective.prepare`."""
        return actions

    def draw(self, shape: torch.Size, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Objective.draw`."""
        timestep = torch.randint(self.process.steps, shape[:1], generator=generator)
        return {"timestep": timestep, "noise": torch.randn(shape, generator=generator)}

    def loss(self, network: Denoiser, target: Tensor, cond: Tensor, draws: Draws, half: bool) -> Tensor:
        """See `Objective.loss`."""
        timestep = draws["timestep"]
        state, wanted = noised(self.process, target, draws["noise"], timestep)
        with torch.autocast(target.device.type, torch.bfloat16, enabled=half):
            output = network(state, timestep, cond)
        return functional.mse_loss(output.float(), wanted)


class Unmasking:
    """Cross entropy of the masked tokens of a chunk.

    Of L tokens a share of cos(pi t / 2) is masked, at least one. The sum over them is divided by their number, so that
    chunks with few masked tokens count as much as others. Actions outside the bins are learnt as the outermost bins,
    and counted.
    """

    def __init__(self, policy: TokenPolicy):
        self.tokeniser = policy.tokeniser
        self.figures: dict[str, float] = {}

    def prepare(self, actions: Tensor, executed: Tensor | None = None) -> Tensor:
        """See `Objective.prepare`."""
        encoded = self.tokeniser.encode(actions)
        self.figures["clipped_actions"] = encoded.clipped
        return encoded.tokens

    def draw(self, shape: torch.Size, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Objective.draw`."""
        length = shape[1:].numel()
        ratio = torch.cos(math.pi / 2 * torch.rand(shape[0], 1, generator=generator))
        count = (ratio * length).ceil().clamp(1, length)
        place = torch.rand(shape[0], length, generator=generator).argsort(dim=1)
        return {"masked": (place < count).view(shape)}

    def loss(self, network: Denoiser, target: Tensor, cond: Tensor, draws: Draws, half: bool) -> Tensor:
        """See `Objective.loss`."""
        masked = draws["masked"]
        state = torch.where(masked, self.tokeniser.bins, target)
        with torch.autocast(target.device.type, torch.bfloat16, enabled=half):
            logits = network(state, masked.flatten(1).sum(dim=1), cond)
        error = functional.cross_entropy(logits.float().flatten(0, -2), target.flatten(), reduction="none")
        return ((error.view(target.shape) * masked).flatten(1).sum(dim=1) / masked.flatten(1).sum(dim=1)).mean()


def noised(process: TrainingProcess, chunk: Tensor, noise: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
    """Return the noised chunk (N, H, D) at `timestep` (N,), and the prediction target for the network."""
    alpha_bar = process.alpha_bar.to(chunk.device)[timestep].reshape(-1, 1, 1)
    signal, scale = alpha_bar.sqrt().to(chunk.dtype), (1 - alpha_bar).sqrt().to(chunk.dtype)
    state = signal * chunk + scale * noise
    if process.prediction == "epsilon":
        return state, noise
    if process.prediction == "sample":
        return state, chunk
    return state, signal * noise - scale * chunk
