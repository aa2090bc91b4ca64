"""Sample any denoiser exactly, in fewer calls: your own network, a chain from a diffusers scheduler.

python examples/any_denoiser.py
"""

import torch
from diffusers import DDPMScheduler

import specpolicy

weight = torch.randn(7, 7, generator=torch.Generator().manual_seed(0)) / 4


def denoiser(x, t, cond):
    """Stand in for your network: noisy chunks (N, 16, 7), timesteps (N,), conditions (N, 3) -> predicted noise."""
    return x - 0.4 * torch.tanh(x @ weight + cond.mean(dim=1)[:, None, None])


chain = specpolicy.GaussianChain.from_diffusers(DDPMScheduler(100, beta_schedule="squaredcos_cap_v2"))
cond = torch.randn(1, 3, generator=torch.Generator().manual_seed(1))
for name in ("ddpm", "asd", "block", "recycled"):
    generator = torch.Generator().manual_seed(2)
    out = specpolicy.sample(denoiser, chain, shape=(1, 16, 7), cond=cond, sampler=name, generator=generator)
    print(f"{name:9s} {out.stats.calls.item():3d} calls, {out.stats.rows.item():4d} states evaluated")
