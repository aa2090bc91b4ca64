"""The posterior mean of a Gaussian prior on chunks: a surrogate that needs no training."""

from collections.abc import Callable

import torch
from torch import Tensor

from specpolicy.diffusion.process import LEAST_SIGNAL
from specpolicy.samplers.recycled.surrogates.base import SurrogateModule, Tables


class GaussianSurrogate(SurrogateModule):
    """x0 = m + V diag(s e / (1 + s e)) V^T (y / sqrt(abar) - m) for chunks N(m, V diag(e) V^T), s = abar / (1 - abar).

    The mean m is linear in the condition. It starts as zero with unit covariance; see `smooth` and `set`.

    Args:
        alpha_bar: (T,) of the training process.
        shape: (H, D).
        cond_dim: numbers of the condition.
    """

    basis: Tensor
    variances: Tensor
    weight: Tensor
    bias: Tensor
    alpha_bar: Tensor

    def __init__(self, alpha_bar: Tensor, shape: tuple[int, int], cond_dim: int = 0):
        super().__init__()
        self.shape, self.cond_dim = (int(shape[0]), int(shape[1])), cond_dim
        size = shape[0] * shape[1]
        self.register_buffer("alpha_bar", alpha_bar.clamp(min=LEAST_SIGNAL), persistent=False)
        self.register_buffer("basis", torch.eye(size))
        self.register_buffer("variances", torch.ones(size))
        self.register_buffer("weight", torch.zeros(size, cond_dim))
        self.register_buffer("bias", torch.zeros(size))

    @classmethod
    def smooth(
        cls, alpha_bar: Tensor, shape: torch.Size, variance: float = 0.1, reach: float = 8.0
    ) -> "GaussianSurrogate":
        """Return the prior for an unknown policy: chunks (H, D) are smooth in time, and nothing else is known.

        The correlation of two actions falls by a factor e over `reach` control steps. Dimensions are independent. The
        mean is zero.
        """
        horizon, size = shape
        time = torch.arange(horizon, dtype=torch.float64)
        covariance = variance * torch.exp(-(time[:, None] - time).abs() / reach)
        variances, basis = torch.linalg.eigh(covariance)
        prior = cls(alpha_bar, (horizon, size))
        prior.basis.copy_(torch.kron(basis.contiguous(), torch.eye(size, dtype=torch.float64)))
        prior.variances.copy_(variances.repeat_interleave(size))
        return prior

    def set(self, covariance: Tensor, weight: Tensor, bias: Tensor) -> "GaussianSurrogate":
        """Set the prior of chunks (d,) given a condition to N(weight cond + bias, covariance)."""
        variances, basis = torch.linalg.eigh(covariance.double().cpu())
        for buffer, value in zip(self.buffers_of_prior(), (basis, variances.clamp(min=0), weight, bias), strict=True):
            buffer.copy_(value)
        return self

    def buffers_of_prior(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Basis, variances, weight and bias."""
        return self.basis, self.variances, self.weight, self.bias

    def prepare(self, cond: Tensor | None) -> Tensor:
        """See `Surrogate.prepare`: the prior mean (B, d)."""
        return self.flat(cond) @ self.weight.T + self.bias

    def look_up(self, timesteps: Tensor) -> Tables:
        """See `Surrogate.look_up`: 1 / sqrt(abar), and the gain from state to posterior mean."""
        abar = self.alpha_bar[timesteps][..., None].to(self.basis)
        return abar.rsqrt(), self.variances / (self.variances + (1 - abar) / abar)

    def at(self, tables: Tables, features: Tensor | None) -> Callable[[Tensor], Tensor]:
        """See `Surrogate.at`."""
        assert features is not None
        (scale, gain), mean, back = tables, features[:, None], self.basis.T
        return lambda states: mean + (gain * ((states * scale - mean) @ self.basis)) @ back
