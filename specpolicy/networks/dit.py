"""Diffusion transformer over action tokens, conditioned by adaptive layer norms (Peebles and Xie 2023).

Module structure and state-dict names are those of LeRobot's policy `multi_task_dit`. Timestep and condition enter each
block as shift, scale and gate of its attention and of its MLP. These are one linear layer a block of SiLU([time,
condition]), which holds most of the network's weights. So they are a sum of a part of the timestep and a part of the
condition, and the second is the same for a whole chunk: see `split_denoiser`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from specpolicy.errors import SpecpolicyError
from specpolicy.networks.embedding import SinusoidalPosEmb, expand_timestep

EPSILON = 1e-6  # of the layer norms


class RotaryAttention(nn.Module):
    """Self-attention whose queries and keys are rotated by their positions (Su et al. 2021)."""

    cosines: Tensor
    sines: Tensor

    def __init__(self, width: int, heads: int, horizon: int, base: float):
        super().__init__()
        self.width, self.heads, self.size = width, heads, width // heads
        self.qkv_proj, self.out_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        frequencies = 1.0 / (base ** (torch.arange(0, self.size, 2).float() / self.size))
        angles = torch.outer(torch.arange(horizon).float(), frequencies)
        self.register_buffer("cosines", angles.cos(), persistent=False)
        self.register_buffer("sines", angles.sin(), persistent=False)

    def forward(self, x: Tensor, horizon: int, dropout: float) -> Tensor:
        """(N, H, width) -> (N, H, width)."""
        query, key, value = _heads(self.qkv_proj(x), horizon, self.heads, self.size)
        query, key = self._rotated(query, horizon), self._rotated(key, horizon)
        return self.out_proj(_attend(query, key, value, horizon, self.width, dropout))

    def _rotated(self, x: Tensor, horizon: int) -> Tensor:
        """Rotate (N, heads, H, size): each number of the first half is a pair with its like in the second."""
        cosines, sines = self.cosines[:horizon], self.sines[:horizon]
        first, second = x.chunk(2, dim=3)
        return torch.cat((first * cosines - second * sines, second * cosines + first * sines), dim=3)


class DiffusionBlock(nn.Module):
    """Attention and MLP between adaptive layer norms."""

    def __init__(self, width: int, heads: int, horizon: int, cond_dim: int, rope_base: float | None, dropout: float):
        """`rope_base`: None for attention without rotation. `cond_dim`: of timestep and condition together."""
        super().__init__()
        self.width, self.dropout = width, dropout
        if rope_base is None:
            self.multihead_attn = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        else:
            self.attn = RotaryAttention(width, heads, horizon, rope_base)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(cond_dim, 6 * width))

    @property
    def modulation(self) -> nn.Linear:
        """The layer from SiLU([time, condition]) to the numbers that modulate."""
        _, layer = self.adaLN_modulation.children()
        assert isinstance(layer, nn.Linear)
        return layer

    def forward(self, x: Tensor, features: Tensor, horizon: int) -> Tensor:
        """Chunks (N, H, width), features (N, 6 width) or (1, 6 width) -> (N, H, width)."""
        shift, scale, gate, late_shift, late_scale, late_gate = features[:, None].chunk(6, dim=2)
        x = x + gate * self._attention(self._norm(x) * (scale + 1.0) + shift, horizon)
        return x + late_gate * self.mlp(self._norm(x) * (late_scale + 1.0) + late_shift)

    def _norm(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, (self.width,), eps=EPSILON)

    def _attention(self, x: Tensor, horizon: int) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        if hasattr(self, "attn"):
            return self.attn(x, horizon, dropout)
        own = self.multihead_attn
        projected = functional.linear(x, own.in_proj_weight, own.in_proj_bias)
        query, key, value = _heads(projected, horizon, own.num_heads, own.head_dim)
        return own.out_proj(_attend(query, key, value, horizon, self.width, dropout))


class DiffusionTransformer(nn.Module):
    """Denoiser (N, H, input_dim), timesteps (N,), condition (N, cond_dim) -> (N, H, output_dim).

    Attributes:
        costly_condition: most weights see the condition alone, so a call in two parts is faster in torch itself, too.
    """

    costly_condition = True
    pos_embedding: nn.Parameter | None

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        horizon: int,
        cond_dim: int,
        hidden_dim: int = 512,
        num_layers: int = 6,
        num_heads: int = 8,
        timestep_embed_dim: int = 256,
        use_positional_encoding: bool = False,
        use_rope: bool = True,
        rope_base: float = 10000.0,
        dropout: float = 0.1,
    ):
        """`use_positional_encoding`: learnt positions, added to the action tokens. `use_rope`: rotary attention."""
        super().__init__()
        self.horizon, self.time_dim, self.hidden_dim = horizon, timestep_embed_dim, hidden_dim
        self.time_mlp = nn.Sequential(
            SinusoidalPosEmb(timestep_embed_dim),
            nn.Linear(timestep_embed_dim, 2 * timestep_embed_dim),
            nn.GELU(),
            nn.Linear(2 * timestep_embed_dim, timestep_embed_dim),
            nn.GELU(),
        )
        self.input_proj = nn.Linear(input_dim, hidden_dim)
        positions = nn.Parameter(torch.empty(1, horizon, hidden_dim)) if use_positional_encoding else None
        if positions is not None:
            nn.init.normal_(positions, std=0.02)
        self.register_parameter("pos_embedding", positions)
        self.transformer_blocks = nn.ModuleList(
            [
                DiffusionBlock(
                    hidden_dim,
                    num_heads,
                    horizon,
                    timestep_embed_dim + cond_dim,
                    rope_base if use_rope else None,
                    dropout,
                )
                for _ in range(num_layers)
            ]
        )
        self.output_proj = nn.Linear(hidden_dim, output_dim)
        for layer in self._modulations():  # each block begins as the identity
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def check_horizon(self, horizon: int) -> None:
        """Raise a clear error if the network has no positions for so many actions."""
        if horizon > self.horizon:
            raise SpecpolicyError(f"horizon={horizon} exceeds the {self.horizon} actions of this transformer")

    def split_denoiser(self, horizon: int, rows: int) -> "SplitDiffusionTransformer":
        """Return the same function in two parts, see there. It is the same for all `rows`."""
        return SplitDiffusionTransformer(self, horizon)

    def forward(self, sample: Tensor, timestep: Tensor | int, cond: Tensor) -> Tensor:
        """Denoise `sample` (N, H, D) at `timestep` (N,), one value per row, whole or not."""
        rows, horizon = sample.shape[:2]
        self.check_horizon(horizon)
        seen = cond[:1] if rows > 1 and cond.stride(0) == 0 else cond  # rows that share a condition
        times = expand_timestep(timestep, rows, sample.device)
        return self.denoise(sample, self.time_features(times) + self.condition_features(seen), horizon)

    def time_features(self, timestep: Tensor) -> Tensor:
        """(N,) -> (N, F), with the biases: the blocks' shifts, scales and gates, one after the other."""
        hidden, size = functional.silu(self.time_mlp(timestep)), self.time_dim
        layers = self._modulations()
        return torch.cat([functional.linear(hidden, layer.weight[:, :size], layer.bias) for layer in layers], dim=1)

    def condition_features(self, cond: Tensor) -> Tensor:
        """(M, C) -> (M, F)."""
        hidden, size = functional.silu(cond), self.time_dim
        return torch.cat([functional.linear(hidden, layer.weight[:, size:]) for layer in self._modulations()], dim=1)

    def denoise(self, sample: Tensor, features: Tensor, horizon: int) -> Tensor:
        """Chunks (N, H, D) and features (N, F) -> (N, H, D). `horizon`: H, as what stands for tensors where an engine
        is made tells no shapes."""
        x = self.input_proj(sample)
        if self.pos_embedding is not None:
            x = x + self.pos_embedding[:, :horizon]
        parts = features.chunk(len(self.transformer_blocks), dim=1)
        for block, part in zip(self.transformer_blocks, parts, strict=True):
            x = block(x, part, horizon)
        return self.output_proj(x)

    def _modulations(self) -> list[Any]:
        return [block.modulation for block in self.transformer_blocks]


class SplitDiffusionTransformer(nn.Module):
    """Chunks (N, H, D) and features (N, F) -> (N, H, D). Features are `time_features` plus `condition_features`. Shares
    its weights with the network."""

    def __init__(self, network: DiffusionTransformer, horizon: int):
        super().__init__()
        network.check_horizon(horizon)
        self.network, self.horizon = network, horizon
        self.time_features, self.condition_features = network.time_features, network.condition_features

    def forward(self, sample: Tensor, features: Tensor) -> Tensor:
        """See the class."""
        return self.network.denoise(sample, features, self.horizon)


def _heads(projected: Tensor, horizon: int, heads: int, size: int) -> list[Tensor]:
    """Return queries, keys and values (N, heads, H, size) of (N, H, 3 heads size)."""
    return [part.view(-1, horizon, heads, size).transpose(1, 2) for part in projected.chunk(3, dim=2)]


def _attend(query: Tensor, key: Tensor, value: Tensor, horizon: int, width: int, dropout: float) -> Tensor:
    """(N, heads, H, size), three times -> (N, H, width)."""
    options: dict[str, Any] = {"dropout_p": dropout} if dropout else {}
    seen = functional.scaled_dot_product_attention(query, key, value, **options)
    return seen.transpose(1, 2).reshape(-1, horizon, width)
