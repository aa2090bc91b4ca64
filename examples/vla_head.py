"""The flow head of a vision-language-action model, sampled exactly on its ancestral chain: python examples/vla_head.py

The model here is a stand-in with random weights that has the shape of pi0: a prefix is read once into keys and values,
and a head of one layer asks them at every step of its flow, with the time from 1 (noise) to 0 (data).
"""

import torch
from torch import nn
from torch.nn import functional

from specpolicy import GaussianChain
from specpolicy.integrations.velocity_heads import HeadSampler

HORIZON, ACTIONS, WIDTH, STEPS = 50, 32, 64, 10


class StandIn(nn.Module):
    def __init__(self):
        super().__init__()
        self.keys, self.values = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.actions, self.time = nn.Linear(ACTIONS, WIDTH), nn.Linear(1, WIDTH)
        self.out = nn.Linear(WIDTH, ACTIONS)

    def read(self, tokens):
        """Tokens of images and text (1, L, WIDTH) -> the cache."""
        return self.keys(tokens), self.values(tokens)

    def velocity(self, x, t, cache):
        """x (N, H, D), t (N,): all rows ask the one cache. Noise minus action, as pi0 learns it."""
        hidden = self.actions(x) + self.time(t[:, None, None])
        keys, values = (part.expand(len(x), -1, -1) for part in cache)
        action = torch.tanh(self.out(hidden + functional.scaled_dot_product_attention(hidden, keys, values)))
        return (x - action) / t[:, None, None].clamp(min=0.05)


if __name__ == "__main__":
    torch.manual_seed(0)
    model = StandIn().eval()
    chain = GaussianChain.from_flow(STEPS, noise_at=1)
    with torch.inference_mode():
        cache = model.read(torch.randn(1, 20, WIDTH))  # once a chunk
    # ddpm walks the ancestral chain, block and recycled draw its distribution; that of euler is another one.
    for name in ("ddpm", "block", "recycled", "euler"):
        sampler = HeadSampler(model, chain, (HORIZON, ACTIONS), name)
        stats = sampler(cache, torch.Generator().manual_seed(1), batch=16).stats
        told = sampler.bound.describe()["distribution"]
        print(f"{name:9s} {stats.calls.double().mean():5.1f} calls, {stats.rows.double().mean():5.1f} rows  ({told})")
