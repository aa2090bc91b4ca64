"""`TransformerForDiffusion` in two parts: the layers' keys and values from timestep and condition, and the action
tokens.

The tokens of timestep and observations see neither each other nor the actions, so keys and values of every layer's
cross-attention are known beforehand. Those of the timestep can be a table. Those of the observations are computed once
a chunk.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from specpolicy.networks.transformer import TransformerForDiffusion


class SplitTransformer(nn.Module):
    """Chunks (N, H, D) and features (N, F) -> (N, H, D). Features are `time_features` plus `condition_features`: keys
    and values (layers, tokens, 2 width) of each row, flattened. Shares its weights with the network."""

    def __init__(self, network: "TransformerForDiffusion", horizon: int):
        super().__init__()
        network.check_horizon(horizon)
        self.network, self.horizon = network, horizon
        self.layers: list[Any] = list(network.decoder.layers)
        self.tokens, self.width = network.cond_pos_emb.shape[1:]

    def time_features(self, timestep: Tensor) -> Tensor:
        """(N,) -> (N, F), zero but for the first token."""
        return self._features(self.network.time_emb(timestep)[:, None], 0)

    def condition_features(self, cond: Tensor | None) -> Tensor:
        """(M, To, C) -> (M, F), zero in the first token; (1, F) of zeros without a condition."""
        if cond is None or self.network.cond_obs_emb is None:
            return self.network.cond_pos_emb.new_zeros(1, len(self.layers) * self.tokens * 2 * self.width)
        return self._features(self.network.cond_obs_emb(cond), 1)

    def _features(self, tokens: Tensor, first: int) -> Tensor:
        """Return the features of tokens (N, n, width) at positions from `first` on."""
        behind = self.tokens - first - tokens.shape[1]
        positions = self.network.cond_pos_emb[:, first : first + tokens.shape[1]]
        memory = self.network.encoder(tokens + positions)
        read = [functional.linear(memory, *_keys_and_values(layer.multihead_attn)) for layer in self.layers]
        return functional.pad(torch.stack(read, dim=1), (0, 0, first, behind)).flatten(1)

    def forward(self, sample: Tensor, features: Tensor) -> Tensor:
        """See the class."""
        network, horizon = self.network, self.horizon
        memory = features.view(-1, len(self.layers), self.tokens, 2 * self.width)
        mask = None if network.mask is None else network.mask[:horizon, :horizon]
        memory_mask = None if network.memory_mask is None else network.memory_mask[:horizon]
        x = network.input_emb(sample) + network.pos_emb[:, :horizon]
        for index, layer in enumerate(self.layers):
            own, other = layer.self_attn, layer.multihead_attn
            query, key, value = functional.linear(layer.norm1(x), own.in_proj_weight, own.in_proj_bias).chunk(3, dim=2)
            x = x + own.out_proj(self._attend(query, key, value, mask, horizon, own.num_heads))
            query = functional.linear(
                layer.norm2(x), other.in_proj_weight[: self.width], other.in_proj_bias[: self.width]
            )
            key, value = memory[:, index].chunk(2, dim=2)
            x = x + other.out_proj(self._attend(query, key, value, memory_mask, self.tokens, other.num_heads))
            x = x + layer.linear2(functional.gelu(layer.linear1(layer.norm3(x))))
        return network.head(network.ln_f(x))

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, tokens: int, heads: int
    ) -> Tensor:
        """(N, H, width), twice (N, tokens, width) -> (N, H, width)."""
        size = self.width // heads
        query = query.view(-1, self.horizon, heads, size).transpose(1, 2)
        key, value = (part.view(-1, tokens, heads, size).transpose(1, 2) for part in (key, value))
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return seen.transpose(1, 2).reshape(-1, self.horizon, self.width)


def _keys_and_values(attention: Any) -> tuple[Tensor, Tensor]:
    """Return weight and bias of the projections to key and value, (2 width, width) and (2 width,)."""
    width = attention.embed_dim
    return attention.in_proj_weight[width:], attention.in_proj_bias[width:]
