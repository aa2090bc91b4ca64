"""A head that predicts how x0 changes on the way to less noisy timesteps (De Bortoli et al. 2025, section 3.3)."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class CorrectionHead(nn.Module):
    """(root (B, H, D), its x0 (B, H, D), timestep (B,), timesteps (B, W) below it, cond) -> change of x0 (B, W, H, D).

    Features of the root are computed once for the whole window. The change is zero at the root's own timestep.
    """

    def __init__(self, horizon: int, action_dim: int, cond_dim: int, train_steps: int, width: int = 256):
        super().__init__()
        size = horizon * action_dim
        self.root = nn.Sequential(nn.Linear(2 * size + cond_dim, width), nn.SiLU(), nn.Linear(width, width))
        self.start = nn.Embedding(train_steps, width)
        self.target = nn.Embedding(train_steps, width)
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, size)
        for embedding in (self.start, self.target):
            nn.init.normal_(embedding.weight, std=0.1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.train_steps = train_steps

    def forward(self, root: Tensor, x0: Tensor, start: Tensor, timesteps: Tensor, cond: Tensor | None) -> Tensor:
        """Return the changes."""
        parts = [root.flatten(1), x0.flatten(1)] + ([] if cond is None else [cond.flatten(1)])
        seen = self.root(torch.cat(parts, dim=1)) + self.start(start)
        hidden = functional.silu(seen[:, None] + self.target(timesteps))
        hidden = functional.silu(self.hidden(hidden))
        share = ((start[:, None] - timesteps) / self.train_steps).clamp(max=1)[..., None]
        return (share.sqrt() * self.out(hidden)).view(*timesteps.shape, *root.shape[1:])
