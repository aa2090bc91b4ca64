"""Subjects of benchmarks/scaling.py: an analytic denoiser of any size and number of steps, and trained policies."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import torch
from torch import Tensor

from specpolicy.diffusion import GaussianChain
from specpolicy.model import Model
from specpolicy.policy import DiffusionPolicy, load_policy
from specpolicy.policy.histories import FILE, read_histories
from specpolicy.samplers import Setting

TRAIN_STEPS = 1000  # training steps of the analytic denoiser; chains of 10 to 1000 steps are strided from it
MODES, BETWEEN, WITHIN, REACH, ROUGH = 4, 0.15, 0.1, 6.0, 0.01


class Mixture:
    """Analytic E[x0 | x_t] for smooth chunks (H, D): a mixture of Gaussian processes, each with its exact denoiser.

    Sizes are about those of `can`'s chunks given one observation: a spread of 0.10 to 0.16 in units of the bound,
    correlations that fall by e over 3 to 10 control steps. A mode lies `BETWEEN` from the middle. Around it a chunk has
    a spread of `WITHIN`; both are smooth over `REACH` control steps (squared exponential). `ROUGH` is spread without
    smoothness.
    """

    def __init__(self, process, horizon: int, dimension: int):
        self.alpha_bar, time = process.alpha_bar, torch.arange(horizon, dtype=torch.float64)
        smooth = torch.exp(-(time[:, None] - time).square() / (2 * REACH**2))
        variances, basis = torch.linalg.eigh(smooth)
        noise = torch.randn(MODES, horizon, dimension, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self.modes = BETWEEN * variances.clamp(min=0).sqrt()[:, None] * noise  # in coordinates of the basis
        self.variances, self.basis = WITHIN**2 * variances.clamp(min=0) + ROUGH**2, basis

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """Return x0 (N, H, D)."""
        signal = self.alpha_bar[t][:, None, None]
        inner = (self.basis.T @ x.double()) / signal.sqrt()
        noise = (1 - signal) / signal
        total = self.variances[:, None] + noise  # (N, H, 1)
        away = inner[:, None] - self.modes
        share = torch.softmax(-(away.square() / total[:, None]).sum(dim=(2, 3)) / 2, dim=1)
        middle = torch.einsum("nc,chd->nhd", share, self.modes)
        x0 = middle + self.variances[:, None] / total * (inner - middle)
        return (self.basis @ x0).to(x.dtype)


def mixture_setting(steps: int, horizon: int, dimension: int) -> Setting:
    """Return the analytic denoiser on a strided chain."""
    chain = GaussianChain.ddpm(TRAIN_STEPS, steps, prediction="sample", spacing="trailing")
    model = Model(Mixture(chain.process, horizon, dimension), torch.device("cpu"))
    return Setting(model, chain, torch.Size((horizon, dimension)))


@functools.cache
def read_policy(path: Path, engine: str) -> tuple[DiffusionPolicy, Tensor]:
    """Return a trained policy on an engine, and its recorded observations, encoded."""
    policy = load_policy(path)
    assert isinstance(policy, DiffusionPolicy), f"{path} is no diffusion policy"
    with torch.inference_mode():
        cond = policy.encode(read_histories(path / FILE, policy))
    return policy.with_engine(engine), cond


def policy_setting(policy: DiffusionPolicy, steps: int) -> Setting:
    """Return a policy on a strided chain; for more steps than it was trained with, on a chain between its steps."""
    setting, chain = policy.setting(), policy.chain
    if steps <= chain.process.steps:
        return dataclasses.replace(setting, chain=chain.strided(steps))
    return dataclasses.replace(setting, chain=between_steps(chain, steps))


def between_steps(chain: GaussianChain, steps: int) -> GaussianChain:
    """Return a chain from the noisiest timestep to the last, with timesteps between whole numbers.

    Between whole timesteps the log signal-to-noise ratio is interpolated. The network was trained at whole timesteps
    and interpolates on its own.
    """
    own = torch.logit(chain.process.alpha_bar)
    timesteps = torch.linspace(chain.process.steps - 1, 0, steps, dtype=torch.float64)
    below = timesteps.floor().long().clamp(max=chain.process.steps - 2)
    alpha_bar = torch.sigmoid(torch.lerp(own[below], own[below + 1], timesteps - below))
    return GaussianChain(chain.process, timesteps.float(), alpha_bar=alpha_bar)
