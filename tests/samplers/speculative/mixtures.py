"""Gaussian mixtures, whose exact denoiser is known in closed form: the networks of the exactness tests."""

import torch

from specpolicy import flow_denoiser
from specpolicy.diffusion import FlowProcess

# Chunks (H=2, D=2) of three kinds. Some lie so close to the bound of the clip that it acts on every chain.
CENTRES = torch.tensor(
    [[[0.95, 0.1], [0.6, -0.3]], [[-0.4, -0.9], [-0.2, 0.5]], [[-0.7, 0.8], [0.3, 0.95]]], dtype=torch.float64
)
WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


class MixtureDenoiser:
    """E[x0 | x_t] for chunks from sum_c weights_c N(centres_c + cond, spread^2 I), as any kind of prediction."""

    def __init__(self, process, spread=0.15, centres=CENTRES, weights=WEIGHTS):
        """`process`: the training process, which says what is predicted. centres (C, H, D), weights (C,)."""
        self.process, self.spread, self.centres, self.weights = process, spread, centres, weights

    def __call__(self, x, t, cond=None):
        """The network's output (N, H, D) at x (N, H, D), t (N,); cond (N, H, D) moves the mixture, or None."""
        a = self.process.alpha_bar.to(x.dtype)[t][:, None, None]
        signal, moved = a.sqrt(), 0 if cond is None else cond
        variance = a * self.spread**2 + 1 - a
        inner = x - signal * moved
        distance = inner.flatten(1)[:, None] - signal * self.centres.to(x.dtype).flatten(1)
        log_weight = self.weights.to(x.dtype).log() - distance.square().sum(-1) / (2 * variance[:, 0])
        share = torch.softmax(log_weight, dim=-1)
        gain = signal * self.spread**2 / variance
        centre = (share @ self.centres.to(x.dtype).flatten(1)).view_as(x)
        x0 = moved + (1 - gain * signal) * centre + gain * inner
        if self.process.prediction == "sample":
            return x0
        noise = (x - signal * x0) / (1 - a).sqrt()
        return noise if self.process.prediction == "epsilon" else signal * noise - (1 - a).sqrt() * x0


class MixtureVelocity:
    """The velocity of the flow to the same chunks, E[a - (1 - sigma_min) e | x_t], in the process's own time."""

    def __init__(self, process, spread=0.15, centres=CENTRES, weights=WEIGHTS):
        """See `MixtureDenoiser`."""
        self.process, self.spread, self.centres, self.weights = process, spread, centres, weights

    def __call__(self, x, time, cond=None):
        """The network's output (N, H, D) at x_t (N, H, D), time (N,)."""
        t = (self.process.sign * (time.to(x.dtype) - self.process.noise_at))[:, None, None]
        noise = 1 - (1 - self.process.sigma_min) * t
        inner = x - t * (0 if cond is None else cond)
        variance = (t * self.spread).square() + noise.square()
        centres = self.centres.to(x.dtype).flatten(1)
        distance = inner.flatten(1)[:, None] - t * centres
        share = torch.softmax(self.weights.to(x.dtype).log() - distance.square().sum(-1) / (2 * variance[:, 0]), dim=-1)
        centre = (share @ centres).view_as(x)
        off = (inner - t * centre) / variance
        x0 = centre + t * self.spread**2 * off + (0 if cond is None else cond)
        return self.process.sign * (x0 - (1 - self.process.sigma_min) * noise * off)


def mixture_denoiser(chain):
    """The exact denoiser of these chunks for a chain, of a diffusion or of a flow."""
    if isinstance(chain.process, FlowProcess):
        return flow_denoiser(MixtureVelocity(chain.process), chain)
    return MixtureDenoiser(chain.process)


class Counting:
    """A denoiser that counts: `calls`, and `rows` evaluated in all of them."""

    def __init__(self, denoiser):
        self.denoiser, self.calls, self.rows = denoiser, 0, 0

    def __call__(self, x, t, cond):
        """Count and call."""
        self.calls, self.rows = self.calls + 1, self.rows + len(x)
        return self.denoiser(x, t, cond)


def correction_head(root, x0, start, timesteps, cond):
    """A made-up correction head: x0 turns towards the sign of the root, the more the further down the window."""
    share = (start[:, None] - timesteps).to(root.dtype)[..., None, None] / (start[:, None, None, None] + 1)
    return share * 0.5 * (torch.tanh(2 * root) - x0)[:, None]


def conditional_mixture(process, count=60):
    """A denoiser of chunks (2, 2) and conditions (count, 4) for it, which move the mixture."""
    denoiser = MixtureDenoiser(process)
    cond = 0.2 * torch.randn(count, 4, generator=torch.Generator().manual_seed(0))
    return lambda x, t, c: denoiser(x, t, c.view(-1, 2, 2)), cond
