"""TransformerForDiffusion of Diffusion Policy (Chi et al. 2023): action tokens attend to timestep and observations.

Module structure and state-dict names are those of real-stanford/diffusion_policy where the timestep is part of the
condition. Its policies condition on observations too; with `cond_dim` 0 the timestep is the whole condition, as in
policies that inpaint, whose chunk itself holds the observations.
"""

from typing import Any

import torch
from torch import Tensor, nn

from specpolicy.errors import SpecpolicyError
from specpolicy.networks.embedding import SinusoidalPosEmb, expand_timestep
from specpolicy.networks.transformer_split import SplitTransformer


class TransformerForDiffusion(nn.Module):
    """Denoiser (N, H, input_dim), timesteps (N,), condition (N, n_obs_steps, cond_dim) -> (N, H, output_dim).

    With `cond_dim` 0 the condition is None.
    """

    mask: Tensor | None
    memory_mask: Tensor | None

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        horizon: int,
        n_obs_steps: int,
        cond_dim: int,
        n_layer: int = 8,
        n_head: int = 4,
        n_emb: int = 256,
        p_drop_emb: float = 0.0,
        p_drop_attn: float = 0.3,
        causal_attn: bool = True,
        n_cond_layers: int = 0,
    ):
        super().__init__()
        if n_emb % n_head:
            raise SpecpolicyError(f"n_emb={n_emb} must be a multiple of n_head={n_head}")
        self.horizon = horizon
        cond_tokens = 1 + (n_obs_steps if cond_dim else 0)
        self.input_emb = nn.Linear(input_dim, n_emb)
        self.pos_emb = nn.Parameter(torch.zeros(1, horizon, n_emb))
        self.drop = nn.Dropout(p_drop_emb)
        self.time_emb = SinusoidalPosEmb(n_emb)
        self.cond_obs_emb = nn.Linear(cond_dim, n_emb) if cond_dim else None
        self.cond_pos_emb = nn.Parameter(torch.zeros(1, cond_tokens, n_emb))
        options: dict[str, Any] = dict(
            d_model=n_emb,
            nhead=n_head,
            dim_feedforward=4 * n_emb,
            dropout=p_drop_attn,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.encoder: nn.Module
        if n_cond_layers > 0:
            layer = nn.TransformerEncoderLayer(**options)
            self.encoder = nn.TransformerEncoder(layer, n_cond_layers, enable_nested_tensor=False)
        else:
            self.encoder = nn.Sequential(nn.Linear(n_emb, 4 * n_emb), nn.Mish(), nn.Linear(4 * n_emb, n_emb))
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**options), n_layer)
        if causal_attn:
            # Action token i sees the actions up to i, the timestep and the observations up to its own frame.
            rows, columns = torch.arange(horizon)[:, None], torch.arange(cond_tokens)[None, :]
            self.register_buffer("mask", _additive(rows >= torch.arange(horizon)[None, :]))
            self.register_buffer("memory_mask", _additive(rows >= columns - 1) if cond_dim else None)
        else:
            self.mask = self.memory_mask = None
        self.ln_f = nn.LayerNorm(n_emb)
        self.head = nn.Linear(n_emb, output_dim)
        self._dummy_variable = nn.Parameter(torch.empty(0))  # kept for the names of existing state dicts
        self.apply(_initialise)
        nn.init.normal_(self.pos_emb, std=0.02)
        nn.init.normal_(self.cond_pos_emb, std=0.02)

    def check_horizon(self, horizon: int) -> None:
        """Raise a clear error if the chunk is longer than the learned positions."""
        if horizon > self.horizon:
            raise SpecpolicyError(
                f"this transformer has positions for {self.horizon} actions, got a horizon of {horizon}"
            )

    def split_denoiser(self, horizon: int, rows: int) -> SplitTransformer | None:
        """Return the same function in two parts, see there; None if an encoder mixes timestep and observations. It is
        the same for all `rows`."""
        return SplitTransformer(self, horizon) if isinstance(self.encoder, nn.Sequential) else None

    def forward(self, sample: Tensor, timestep: Tensor | int, cond: Tensor | None = None) -> Tensor:
        """Denoise `sample` (N, H, D) at `timestep` (N,), one value per row."""
        horizon = sample.shape[1]
        self.check_horizon(horizon)
        tokens = self.time_emb(expand_timestep(timestep, sample.shape[0], sample.device))[:, None].to(sample.dtype)
        if self.cond_obs_emb is not None:
            tokens = torch.cat([tokens, self.cond_obs_emb(cond)], dim=1)
        memory = self.encoder(self.drop(tokens + self.cond_pos_emb[:, : tokens.shape[1]]))
        x = self.drop(self.input_emb(sample) + self.pos_emb[:, :horizon])
        mask = None if self.mask is None else self.mask[:horizon, :horizon]
        memory_mask = None if self.memory_mask is None else self.memory_mask[:horizon, : tokens.shape[1]]
        # With the causal hint the decoder need not inspect the mask, for which it would wait for a GPU.
        x = self.decoder(x, memory, tgt_mask=mask, memory_mask=memory_mask, tgt_is_causal=mask is not None)
        return self.head(self.ln_f(x))


def _additive(allowed: Tensor) -> Tensor:
    """Return 0 where attention is allowed, minus infinity elsewhere."""
    return torch.zeros(allowed.shape).masked_fill(~allowed, float("-inf"))


def _initialise(module: nn.Module) -> None:
    """Set small normal weights, as in minGPT, from which the original derives."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.MultiheadAttention):
        nn.init.normal_(module.in_proj_weight, std=0.02)
        nn.init.zeros_(module.in_proj_bias)
