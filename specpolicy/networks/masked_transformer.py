"""A bidirectional transformer over the tokens of an action chunk, some of them masked, the observation in front."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from specpolicy.errors import SpecpolicyError


class Block(nn.Module):
    """A pre-norm transformer block without a mask."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, E) -> (N, T, E)."""
        rows, tokens, width = x.shape
        qkv = self.qkv(self.norm_1(x)).view(rows, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        x = x + self.drop(self.out(mixed.transpose(1, 2).reshape(rows, tokens, width)))
        return x + self.drop(self.mlp(self.norm_2(x)))


class MaskedTransformer(nn.Module):
    """Tokens (N, H, D), of which `vocabulary` stands for a masked one, to logits (N, H, D, V) for all of them.

    Each action dimension has its own bins, and so its own embeddings. The network sees how many tokens are masked, so
    it needs no timestep. The observation is To tokens in front, which attend to the action tokens as these do to them.
    So their keys and values change with every state, and cannot be kept from call to call.
    """

    def __init__(
        self,
        vocabulary: int,
        horizon: int,
        action_dim: int,
        cond_dim: int,
        n_obs_steps: int,
        n_layer: int = 4,
        n_head: int = 4,
        n_emb: int = 128,
        dropout: float = 0.1,
    ):
        super().__init__()
        if n_emb % n_head:
            raise SpecpolicyError(f"n_emb={n_emb} must be a multiple of n_head={n_head}")
        self.vocabulary, self.horizon, self.action_dim = vocabulary, horizon, action_dim
        self.token = nn.Embedding(action_dim * (vocabulary + 1), n_emb)
        self.observation = nn.Linear(cond_dim, n_emb)
        self.frame = nn.Parameter(0.02 * torch.randn(n_obs_steps, n_emb))
        self.time = nn.Parameter(0.02 * torch.randn(horizon, 1, n_emb))
        self.dimension = nn.Parameter(0.02 * torch.randn(1, action_dim, n_emb))
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(n_emb, n_head, dropout) for _ in range(n_layer)))
        self.norm = nn.LayerNorm(n_emb)
        self.head = nn.Linear(n_emb, vocabulary)
        nn.init.normal_(self.token.weight, std=0.02)
        first = torch.arange(action_dim) * (vocabulary + 1)
        self.register_buffer("first", first, persistent=False)

    first: Tensor

    def forward(self, tokens: Tensor, timestep: Tensor, cond: Tensor) -> Tensor:
        """Return logits of `tokens` (N, H, D) int64, cond (N, To, F); `timestep`, an argument of denoisers, is not
        used."""
        rows = len(tokens)
        actions = (self.token(tokens + self.first) + self.time + self.dimension).flatten(1, 2)
        frames = self.observation(cond) + self.frame
        x = self.blocks(self.drop(torch.cat([frames, actions], dim=1)))
        logits = self.head(self.norm(x[:, frames.shape[1] :]))
        return logits.view(rows, self.horizon, self.action_dim, self.vocabulary)
