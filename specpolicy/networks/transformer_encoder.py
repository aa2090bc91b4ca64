"""The encoder-only form of Diffusion Policy's transformer: the timestep is one more token before the actions.

It takes no condition: its policies inpaint, so the chunk itself holds the observations. Module structure and state-dict
names are those of real-stanford/diffusion_policy's TransformerForDiffusion with `time_as_cond` False.
"""

import torch
from torch import Tensor, nn

from specpolicy.errors import SpecpolicyError
from specpolicy.networks.embedding import SinusoidalPosEmb, expand_timestep


class EncoderTransformer(nn.Module):
    """Denoiser (N, H, input_dim), timesteps (N,) -> (N, H, output_dim)."""

    mask: Tensor | None

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        horizon: int,
        n_layer: int = 8,
        n_head: int = 4,
        n_emb: int = 256,
        p_drop_emb: float = 0.0,
        p_drop_attn: float = 0.3,
        causal_attn: bool = True,
    ):
        super().__init__()
        if n_emb % n_head:
            raise SpecpolicyError(f"n_emb={n_emb} must be a multiple of n_head={n_head}")
        self.horizon = horizon
        self.input_emb = nn.Linear(input_dim, n_emb)
        self.pos_emb = nn.Parameter(0.02 * torch.randn(1, horizon + 1, n_emb))
        self.drop = nn.Dropout(p_drop_emb)
        self.time_emb = SinusoidalPosEmb(n_emb)
        layer = nn.TransformerEncoderLayer(
            n_emb, n_head, 4 * n_emb, p_drop_attn, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, n_layer, enable_nested_tensor=False)
        mask = torch.full((horizon + 1, horizon + 1), float("-inf")).triu(diagonal=1)
        self.register_buffer("mask", mask if causal_attn else None)
        self.ln_f = nn.LayerNorm(n_emb)
        self.head = nn.Linear(n_emb, output_dim)
        self._dummy_variable = nn.Parameter(torch.empty(0))  # kept for the names of existing state dicts

    def check_horizon(self, horizon: int) -> None:
        """Raise a clear error if the chunk is longer than the learned positions."""
        if horizon > self.horizon:
            raise SpecpolicyError(
                f"this transformer has positions for {self.horizon} actions, got a horizon of {horizon}"
            )

    def forward(self, sample: Tensor, timestep: Tensor | int, cond: None = None) -> Tensor:
        """Denoise `sample` (N, H, D) at `timestep` (N,), one value per row."""
        horizon = sample.shape[1]
        self.check_horizon(horizon)
        time = self.time_emb(expand_timestep(timestep, sample.shape[0], sample.device))[:, None].to(sample.dtype)
        x = torch.cat([time, self.input_emb(sample)], dim=1) + self.pos_emb[:, : horizon + 1]
        mask = None if self.mask is None else self.mask[: horizon + 1, : horizon + 1]
        # With the causal hint the encoder need not inspect the mask, for which it would wait for a GPU.
        x = self.encoder(self.drop(x), mask=mask, is_causal=mask is not None)
        return self.head(self.ln_f(x[:, 1:]))
