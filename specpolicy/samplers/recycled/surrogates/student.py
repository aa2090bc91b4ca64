"""The student: a small network distilled from the policy, evaluated at all drafted states together.

It corrects the posterior mean under a Gaussian prior whose mean depends on the observation. Inputs and output are
scaled by that prior's expectation at a timestep (the preconditioning of Karras et al. 2022, in the prior's own basis),
so the network sees numbers of order one at every timestep. A dense layer sees the whole chunk. Convolutions over time,
which share their weights over the horizon, do the rest.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from specpolicy.diffusion.process import LEAST_SIGNAL
from specpolicy.samplers.recycled.surrogates.base import SurrogateModule, Tables

EMBEDDINGS = 128  # rows of the timestep tables, at most
FLOOR = 1e-4  # smallest prior variance: directions the samples never move in


class StudentSurrogate(SurrogateModule):
    """Guesses x0 (B, W, H*D) from states, timesteps and the condition.

    `prior` sets the Gaussian prior before training.

    Args:
        alpha_bar: (T,) of the training process.
        shape: (H, D).
        cond_dim: size of the flattened condition, 0 without one.
        width: channels of the convolutions.
        context: channels of the chunk-wide summary at each time.
        hidden: width of the dense layer.
        observation, blocks: width and residual blocks of the condition's encoder. It runs once a chunk, so it may be
            large. Without blocks it is two layers of `hidden`.
    """

    basis: Tensor
    variances: Tensor
    alpha_bar: Tensor

    def __init__(
        self,
        alpha_bar: Tensor,
        shape: tuple[int, int],
        cond_dim: int,
        width: int = 96,
        context: int = 16,
        hidden: int = 256,
        observation: int = 512,
        blocks: int = 2,
    ):
        super().__init__()
        self.horizon, self.action_dim = shape
        self.cond_dim, self.context, self.hidden = cond_dim, context, hidden
        self.options = {"cond_dim": cond_dim, "width": width, "context": context, "hidden": hidden}
        self.options |= {"observation": observation, "blocks": blocks}
        size = self.horizon * self.action_dim
        self.register_buffer("alpha_bar", alpha_bar.double().clamp(min=LEAST_SIGNAL), persistent=False)
        self.register_buffer("basis", torch.eye(size))
        self.register_buffer("variances", torch.ones(size))
        rows = min(len(alpha_bar), EMBEDDINGS)
        self._embedding_of = torch.linspace(0, rows - 1, len(alpha_bar)).round().long()
        self._tables: Tables | None = None

        self.linear_mean = nn.Linear(cond_dim, size)
        seen = observation if blocks else hidden
        deeper: list[nn.Module] = [nn.Linear(hidden, hidden), nn.SiLU()]
        if blocks:
            deeper = [*(Residual(seen) for _ in range(blocks)), nn.LayerNorm(seen)]
        self.observation = nn.Sequential(nn.Linear(cond_dim, seen), nn.SiLU(), *deeper)
        self.mean = _zero(nn.Linear(seen, size))
        self.condition = nn.Linear(seen + cond_dim, hidden + context * self.horizon)
        self.dense = nn.Linear(2 * size, hidden, bias=False)
        self.dense_time = _small(nn.Embedding(rows, hidden))
        self.spread = nn.Linear(hidden, context * self.horizon)
        self.first = TimeConv(2 * self.action_dim + context, width, 5)
        self.first_time = _zero(nn.Embedding(rows, 2 * width))
        self.second = TimeConv(width, width, 3)
        self.second_time = _small(nn.Embedding(rows, width))
        self.out = _zero(nn.Linear(width, self.action_dim))

    def prior(self, covariance: Tensor, weight: Tensor, bias: Tensor) -> None:
        """Set the prior: chunks (d,) given a condition are about N(weight cond + bias, covariance)."""
        variances, basis = torch.linalg.eigh(covariance.double().cpu())
        self.variances.copy_(variances.clamp(min=FLOOR))
        self.basis.copy_(basis)
        with torch.no_grad():
            self.linear_mean.weight.copy_(weight)
            self.linear_mean.bias.copy_(bias)
        self._tables = None

    def hidden_weights(self) -> list[nn.Parameter]:
        """Matrices between hidden layers, which some optimisers treat separately."""
        layers: list[Any] = [self.dense, self.spread, self.first.linear, self.second.linear]
        layers += [layer for layer in list(self.observation.modules())[2:] if isinstance(layer, nn.Linear)]
        return [layer.weight for layer in layers]

    def _apply(self, fn: Any, recurse: bool = True) -> "StudentSurrogate":
        self._tables = None
        return super()._apply(fn, recurse)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """See `torch.nn.Module`."""
        self._tables = None
        return super().load_state_dict(*args, **kwargs)

    def tables(self) -> Tables:
        """By timestep: the signal sqrt(abar) (T, 1); 1 / standard deviation of the state in each basis direction
        (T, d); gain from state to posterior mean (T, d); scale of the correction (T, 1); row of the embeddings (T,)."""
        if self._tables is None:
            with torch.inference_mode(False), torch.no_grad():  # they also serve training
                abar = self.alpha_bar.double()[:, None]
                variance = abar * self.variances.double() + 1 - abar
                gain = abar.sqrt() * self.variances.double() / variance
                # Noise hides this much of a chunk of unit scale.
                scale = ((1 - abar) / abar).sqrt().clamp(max=1)
                parts = (abar.sqrt(), variance.rsqrt(), gain, scale)
                like = self.basis
                self._tables = (*(part.to(like) for part in parts), self._embedding_of.to(like.device))
        return self._tables

    def prepare(self, cond: Tensor | None) -> Tensor:
        """See `Surrogate.prepare`."""
        cond = self.flat(cond)
        hidden = self.observation(cond)
        mean = (self.linear_mean(cond) + self.mean(hidden)) @ self.basis
        return torch.cat([mean, self.condition(torch.cat([hidden, cond], dim=1))], dim=1)

    def look_up(self, timesteps: Tensor) -> Tables:
        """See `Surrogate.look_up`: the first four of `tables`, and the addends of the layers: the shift of the dense
        layer, gain and shift of the first convolution, shift of the second."""
        *fixed, row = (table[timesteps] for table in self.tables())
        gate, first_shift = self.first_time(row).chunk(2, dim=-1)
        return (*fixed, self.dense_time(row), 1 + gate, first_shift, self.second_time(row))

    def at(self, tables: Tables, features: Tensor | None) -> Callable[[Tensor], Tensor]:
        """See `Surrogate.at`."""
        assert features is not None
        batch, window = len(features), tables[0].shape[-2]
        if batch > 1:
            tables = tuple(table.expand(batch, window, -1).flatten(0, 1) for table in tables)
            features = features[:, None].expand(batch, window, -1).flatten(0, 1)
        else:
            tables = tuple(table.view(window, -1) for table in tables)
        guess = self._guess(tables, features)
        return lambda states: guess(states.flatten(0, 1)).view(states.shape)

    def forward(self, states: Tensor, timesteps: Tensor, features: Tensor) -> Tensor:
        """Return x0 (N, H*D) at `states` (N, H*D), `timesteps` (N,), with `features` (N, F). Used in training."""
        return self._guess(self.look_up(timesteps), features)(states)

    def _guess(self, tables: Tables, features: Tensor) -> Callable[[Tensor], Tensor]:
        """Return a function from states (N, d) to x0 (N, d), for tables (N, n) and features (N, F) or (1, F)."""
        signal, whiten, gain, scale, dense_time, gate, first_shift, second_shift = tables
        mean, dense_shift, spread_shift = features.split(
            [len(self.basis), self.hidden, self.context * self.horizon], dim=-1
        )
        centre, back, dense_shift = signal * mean, self.basis.T, dense_shift + dense_time
        gate, first_shift, second_shift = gate[:, None], first_shift[:, None], second_shift[:, None]

        def guess_x0(states: Tensor) -> Tensor:
            off = states @ self.basis - centre
            posterior = mean + gain * off
            guess = posterior @ back
            dense = functional.silu(self.dense(torch.cat([whiten * off, posterior], dim=-1)) + dense_shift)
            context = (self.spread(dense) + spread_shift).view(-1, self.horizon, self.context)
            noise = ((states / signal - guess) / scale).clamp(-5, 5)
            inputs = torch.cat([self._in_time(noise), self._in_time(guess), context], dim=2)
            hidden = functional.silu(self.first(inputs) * gate + first_shift)
            hidden = hidden + functional.silu(self.second(hidden) + second_shift)
            return guess + scale * self.out(hidden).flatten(1)

        return guess_x0

    def _in_time(self, chunks: Tensor) -> Tensor:
        """Reshape (N, H*D) -> (N, H, D)."""
        return chunks.view(-1, self.horizon, self.action_dim)


class TimeConv(nn.Module):
    """A convolution over time with zero padding, (N, H, C) -> (N, H, width), as one matrix product.

    For so few channels a matrix product is several times faster on a CPU than the convolution, which reorders its
    weights in every call.
    """

    def __init__(self, channels: int, width: int, kernel: int):
        super().__init__()
        self.pad = kernel // 2
        self.linear = nn.Linear(kernel * channels, width)

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply the convolution."""
        length = inputs.shape[1]
        padded = functional.pad(inputs, (0, 0, self.pad, self.pad))
        shifted = [padded[:, start : start + length] for start in range(2 * self.pad + 1)]
        return self.linear(torch.cat(shifted, dim=2))


class Residual(nn.Module):
    """x + b(silu(a(norm(x)))), which starts as x."""

    def __init__(self, width: int):
        super().__init__()
        self.norm, self.inner, self.outer = nn.LayerNorm(width), nn.Linear(width, width), _zero(nn.Linear(width, width))

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, width) -> (N, width)."""
        return inputs + self.outer(functional.silu(self.inner(self.norm(inputs))))


def _zero(layer: Any) -> Any:
    """Set a layer to zero, so that it starts without effect."""
    nn.init.zeros_(layer.weight)
    if getattr(layer, "bias", None) is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _small(layer: nn.Embedding) -> nn.Embedding:
    nn.init.normal_(layer.weight, std=0.1)
    return layer
