"""The posterior of a Gaussian with the policy's own covariance of chunks."""

import torch
from torch import Tensor

from specpolicy.conditioning.given import Given
from specpolicy.conditioning.ways import Predict, Way, held
from specpolicy.diffusion import TrainingProcess

NOISE = 0.3  # standard deviation, in normalised units, of what is observed of a plan
FLOOR = 1e-4  # smallest variance of a chunk, in directions in which the samples of a calibration never move


class Linear(Way):
    """x0' = x0 + S[:, P] (S[P, P] + r^2)^-1 (v - x0)[P], then the committed actions themselves.

    P are the committed numbers, C = V diag(e) V^T the covariance of chunks given an observation, and
    S = V diag(e (1 - abar) / (abar e + 1 - abar)) V^T that of a chunk given its noisy state. For Gaussian chunks and
    r = 0 this is the exact posterior mean. With r = 0 it is as sure as that covariance: where the policy hardly varies,
    a small surprise in P then moves all the rest.

    Args:
        process: the training process.
        basis: (d, d) V, eigenvectors in columns.
        variances: (d,) e.
        action_dim: numbers of one entry of a chunk, D.
        first: the entry of the first committed action.
        committed_dim: how many of its numbers are committed.
        noise: r.
    """

    name = "linear"
    fixed_shapes = False  # the number of committed actions decides which matrix is used

    def __init__(
        self,
        process: TrainingProcess,
        basis: Tensor,
        variances: Tensor,
        action_dim: int,
        first: int,
        committed_dim: int,
        noise: float | None = None,
    ):
        super().__init__(process)
        self.noise = NOISE if noise is None else noise
        self._action_dim, self._first, self._committed_dim = action_dim, first, committed_dim
        abar = process.alpha_bar.double()[:, None]
        self._basis, variance = basis.double().cpu(), variances.double().cpu().clamp(min=FLOOR)
        self._remaining = variance * (1 - abar) / (abar * variance + 1 - abar)  # (T, d)
        self._gains: dict[tuple[int, torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def touched(self, given: Given) -> Tensor:
        """See `Way.touched`: the whole chunk."""
        return (given.count > 0).expand(given.values.shape)

    def __call__(self, x0: Tensor, predict: Predict, state: Tensor, timestep: Tensor, given: Given) -> Tensor:
        """See `Way`."""
        x0 = self.process.clipped(x0)
        surprise, moved = given.values - x0, x0
        for count in given.count.unique().int().tolist():
            if count:
                places, gains = self._of(count, x0)
                shift = (gains[timestep] @ surprise[..., places, None]).squeeze(-1)
                moved = torch.where(given.count == count, x0 + shift, moved)
        return held(self.process.clipped(moved), given)

    def _of(self, count: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the committed numbers P (p,) and the gain at every timestep (T, d, p), made once for a count."""
        key = count, like.device, like.dtype
        if key not in self._gains:
            with torch.inference_mode(False):
                entries = self._first + torch.arange(count)
                places = (entries[:, None] * self._action_dim + torch.arange(self._committed_dim)).flatten()
                seen = self._basis[places]
                cross = torch.einsum("dk,tk,pk->tdp", self._basis, self._remaining, seen)
                observed = cross[:, places] + self.noise**2 * torch.eye(len(places), dtype=torch.float64)
                # At the last level all is known, and without noise of its own the matrix is nearly singular.
                scale = observed.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
                observed = observed + 1e-9 * scale * torch.eye(len(places), dtype=torch.float64)
                gains = torch.linalg.solve(observed, cross.mT).mT
                self._gains[key] = places.to(like.device), gains.to(like.device, like.dtype)
        return self._gains[key]
