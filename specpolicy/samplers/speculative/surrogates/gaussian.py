"""The posterior mean of a Gaussian prior on chunks: the surrogate that needs no training."""

import torch
from torch import Tensor, nn


class GaussianSurrogate(nn.Module):
    """x0 = m + V diag(s e / (1 + s e)) V^T (y / sqrt(abar) - m) for chunks N(m, V diag(e) V^T), s = abar / (1 - abar).

    alpha_bar: (T,) of the training process. mean (d,), basis V (d, d), variances e (d,).
    """

    gain: Tensor
    scale: Tensor
    mean: Tensor
    basis: Tensor

    def __init__(self, alpha_bar: Tensor, mean: Tensor, basis: Tensor, variances: Tensor):
        super().__init__()
        snr = (alpha_bar / (1 - alpha_bar))[:, None]
        self.register_buffer("gain", snr * variances / (1 + snr * variances))
        self.register_buffer("scale", alpha_bar.rsqrt())
        self.register_buffer("mean", mean)
        self.register_buffer("basis", basis)

    @classmethod
    def smooth(
        cls, alpha_bar: Tensor, shape: torch.Size, variance: float = 0.1, reach: float = 8.0
    ) -> "GaussianSurrogate":
        """The prior of one who knows nothing but that chunks (H, D) are smooth in time: the correlation of two
        actions falls by a factor e over `reach` control steps, dimensions are independent, the mean is zero."""
        horizon, size = shape
        time = torch.arange(horizon, dtype=torch.float64)
        covariance = variance * torch.exp(-(time[:, None] - time).abs() / reach)
        variances, basis = torch.linalg.eigh(covariance)
        basis = torch.kron(basis.contiguous(), torch.eye(size, dtype=torch.float64))
        mean = torch.zeros(horizon * size, dtype=torch.float64)
        return cls(alpha_bar, mean, basis, variances.repeat_interleave(size))

    def prepare(self, cond: Tensor | None) -> Tensor | None:
        """See `Surrogate.prepare`."""
        return None

    def forward(self, states: Tensor, timesteps: Tensor, features: Tensor | None) -> Tensor:
        """See `Surrogate`."""
        inner = (self.scale[timesteps][..., None] * states - self.mean) @ self.basis
        return self.mean + (self.gain[timesteps] * inner) @ self.basis.T
