"""The towers of CLIP (Radford et al. 2021), for images and for text. State-dict names are those of transformers."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from specpolicy.errors import SpecpolicyError
from specpolicy.networks.vision_options import ClipOptions, LanguageOptions, TowerOptions

EPSILON = 1e-5  # of the layer norms


class ClipTower(nn.Module):
    """Layers of attention and MLP."""

    def __init__(self, options: TowerOptions, causal: bool):
        super().__init__()
        self.layers = nn.ModuleList([ClipLayer(options, causal) for _ in range(options.layers)])

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, L, width) -> (N, L, width)."""
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens


class ClipLayer(nn.Module):
    """Attention and MLP behind layer norms."""

    def __init__(self, options: TowerOptions, causal: bool):
        super().__init__()
        width = options.width
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width, EPSILON), nn.LayerNorm(width, EPSILON)
        self.self_attn, self.mlp = ClipAttention(width, options.heads, causal), ClipMlp(options)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, width) -> (N, L, width)."""
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class ClipAttention(nn.Module):
    """Self-attention; a token of a text sees none behind it."""

    def __init__(self, width: int, heads: int, causal: bool):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, width) -> (N, L, width)."""
        query, key, value = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        return self.out_proj(seen.transpose(1, 2).flatten(2))


class ClipMlp(nn.Module):
    """Two layers."""

    def __init__(self, options: TowerOptions):
        super().__init__()
        self.quick = options.activation == "quick_gelu"
        self.fc1 = nn.Linear(options.width, options.hidden)
        self.fc2 = nn.Linear(options.hidden, options.width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, width) -> (N, L, width)."""
        hidden = self.fc1(x)
        return self.fc2(hidden * torch.sigmoid(1.702 * hidden) if self.quick else functional.gelu(hidden))


class PatchEmbedding(nn.Module):
    """Tokens of an image: one that stands for the whole, and one a patch."""

    def __init__(self, options: ClipOptions):
        super().__init__()
        width, patch = options.width, options.patch
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.patch_embedding = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.position_embedding = nn.Embedding((options.size // patch) ** 2 + 1, width)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, size, size) -> (N, tokens, width)."""
        patches = self.patch_embedding(images).flatten(2).transpose(1, 2)
        whole = self.class_embedding.expand(images.shape[0], 1, -1)  # `len` would fix the number for exporters
        return torch.cat([whole, patches], dim=1) + self.position_embedding.weight


class ClipVision(nn.Module):
    """Images (N, 3, size, size) -> (N, width): the last state of the token that stands for the whole image, before the
    tower's last layer norm."""

    def __init__(self, options: ClipOptions):
        super().__init__()
        self.embeddings = PatchEmbedding(options)
        self.pre_layrnorm = nn.LayerNorm(options.width, EPSILON)
        self.encoder = ClipTower(options, causal=False)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return self.encoder(self.pre_layrnorm(self.embeddings(images)))[:, 0]


class TextEmbedding(nn.Module):
    """Tokens of a text, with their positions."""

    def __init__(self, options: LanguageOptions):
        super().__init__()
        self.token_embedding = nn.Embedding(options.vocabulary, options.width)
        self.position_embedding = nn.Embedding(options.positions, options.width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, L) -> (N, L, width)."""
        return self.token_embedding(tokens) + self.position_embedding.weight[: tokens.shape[1]]


class ClipText(nn.Module):
    """Tokens (N, L), whole numbers -> (N, width): the state of the token that ends the text. It is the largest one, and
    what pads a text stands behind it and is seen by none before."""

    def __init__(self, options: LanguageOptions):
        super().__init__()
        self.embeddings = TextEmbedding(options)
        self.encoder = ClipTower(options, causal=True)
        self.final_layer_norm = nn.LayerNorm(options.width, EPSILON)

    def forward(self, tokens: Tensor) -> Tensor:
        """See the class."""
        states = self.final_layer_norm(self.encoder(self.embeddings(tokens)))
        return states[torch.arange(len(tokens), device=tokens.device), tokens.argmax(dim=1)]


class LanguageEncoder(nn.Module):
    """Texts as tokens (N, L) in any number type -> (N, features)."""

    def __init__(self, options: LanguageOptions):
        super().__init__()
        self.options, self.tower = options, ClipText(options)
        self.projection = nn.Linear(options.width, options.features)

    def forward(self, tokens: Tensor) -> Tensor:
        """Encode one batch of texts.

        Raises:
            SpecpolicyError: numbers that are no tokens.
        """
        whole = tokens.long()
        if not bool(((whole == tokens) & (whole >= 0) & (whole < self.options.vocabulary)).all()):
            raise SpecpolicyError(
                f"observation '{self.options.key}' holds numbers that are no tokens: give whole numbers from 0 to "
                f"{self.options.vocabulary - 1}, as the tokenizer of the policy's text tower makes them"
            )
        return self.projection(self.tower(whole))
