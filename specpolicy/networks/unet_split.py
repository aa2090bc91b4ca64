"""`ConditionalUnet1D` in two parts: the features of timestep and condition for its blocks, and the convolutions.

FiLM is linear in Mish(timestep embedding, condition), so it is a sum of two parts. The part of the timestep can be a
table. The part of the condition is computed once a chunk.

Rows go through the convolutions side by side: chunks (H, N, C) are one image of height H and width N, which is
convolved along its height alone. The inner products then run over all rows, and weights are read once for all of them,
not once a row. At four actions, to which a U-Net halves sixteen, reading weights takes most of the time.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from specpolicy.networks.unet import ConditionalUnet1D, Upsample1d

# At levels of more actions a row has enough inner products, and the detour of group norm costs more.
SIDE_BY_SIDE = 16


class SplitUnet(nn.Module):
    """Chunks (N, H, D) and features (N, F) -> (N, H, D). Features are `time_features` plus `condition_features`.

    Shares its weights with the network, except those for the features and the upsampling, which are copies.
    """

    time_weight: Tensor
    condition_weight: Tensor
    bias: Tensor

    def __init__(self, unet: "ConditionalUnet1D", horizon: int, rows: int):
        """`rows`: 1, or any larger number: the same function, arranged for one row or for several."""
        super().__init__()
        unet.check_horizon(horizon)
        self.unet, self.horizon = unet, horizon
        self.tallest = SIDE_BY_SIDE if rows > 1 else 0
        blocks: list[Any] = unet.residual_blocks()
        layers = [block.cond_encoder[1] for block in blocks]
        self.widths = [layer.out_features for layer in layers]
        weight = torch.cat([layer.weight.detach() for layer in layers])
        seen = unet.embedding_dim
        self.register_buffer("time_weight", weight[:, :seen].contiguous(), persistent=False)
        self.register_buffer("condition_weight", weight[:, seen:].contiguous(), persistent=False)
        self.register_buffer("bias", torch.cat([layer.bias.detach() for layer in layers]), persistent=False)
        stages: list[Any] = list(unet.up_modules)
        self.upsampling = nn.ModuleList([_Doubling(stage[2]) for stage in stages])

    def time_features(self, timestep: Tensor) -> Tensor:
        """(N,) -> (N, F)."""
        hidden = functional.mish(self.unet.diffusion_step_encoder(timestep))
        return functional.linear(hidden, self.time_weight, self.bias)

    def condition_features(self, cond: Tensor | None) -> Tensor:
        """(M, C) -> (M, F); (1, F) of zeros without a condition."""
        if cond is None:
            return self.bias.new_zeros(1, len(self.bias))
        return functional.linear(functional.mish(cond), self.condition_weight)

    def forward(self, sample: Tensor, features: Tensor) -> Tensor:
        """See the class."""
        films, skips, horizon = iter(features.split(self.widths, dim=1)), [], self.horizon
        x = sample.transpose(0, 1) if self._beside(horizon) else sample.transpose(1, 2)
        for stage in self.unet.down_modules:
            first, second, downsample = stage.children()
            x = self._blocks(x, (first, second), films, horizon)
            skips.append(x)
            if not isinstance(downsample, nn.Identity):
                x = self._convolve(x, downsample.conv, horizon)
                x, horizon = self._rearrange(x, horizon, horizon // 2), horizon // 2
        x = self._blocks(x, tuple(self.unet.mid_modules), films, horizon)
        for stage, double in zip(self.unet.up_modules, self.upsampling, strict=True):
            first, second, _ = stage.children()
            x = torch.cat((x, skips.pop()), dim=2 if self._beside(horizon) else 1)
            x = self._blocks(x, (first, second), films, horizon)
            x = double(x, horizon, self._beside(horizon))
            x, horizon = self._rearrange(x, horizon, horizon * 2), horizon * 2
        block, last = self.unet.final_conv.children()
        x = self._convolve(self._activate(x, block, horizon), last, horizon)
        return x.transpose(0, 1) if self._beside(horizon) else x.transpose(1, 2)

    def _beside(self, horizon: int) -> bool:
        """Whether x is (H, N, C) at this level, rows side by side, or (N, C, H)."""
        return horizon <= self.tallest

    def _rearrange(self, x: Tensor, before: int, after: int) -> Tensor:
        """Convert from one level's arrangement to another's."""
        if self._beside(before) == self._beside(after):
            return x
        return x.permute(2, 0, 1) if self._beside(after) else x.permute(1, 2, 0)

    def _blocks(self, x: Tensor, blocks: tuple[Any, ...], films: Iterator[Tensor], horizon: int) -> Tensor:
        """Apply residual blocks, each with the next FiLM (N, 2 channels)."""
        beside = self._beside(horizon)
        for block in blocks:
            film = next(films)
            film = film[None] if beside else film[..., None]
            hidden = self._activate(x, block.blocks[0], horizon)
            if block.predicts_scale:
                scale, shift = film.chunk(2, dim=2 if beside else 1)
                hidden = scale * hidden + shift
            else:
                hidden = hidden + film
            across = isinstance(block.residual_conv, nn.Identity)
            kept = x if across else self._convolve(x, block.residual_conv, horizon)
            x = self._activate(hidden, block.blocks[1], horizon) + kept
        return x

    def _activate(self, x: Tensor, block: Any, horizon: int) -> Tensor:
        """Apply convolution, group norm and Mish."""
        convolution, norm, _ = block.block
        x, groups = self._convolve(x, convolution, horizon), norm.num_groups
        if not self._beside(horizon):
            return functional.mish(functional.group_norm(x, groups, norm.weight, norm.bias, norm.eps))
        width = norm.num_channels // groups
        x = x.reshape(horizon, -1, groups, width).permute(1, 2, 0, 3).reshape(-1, groups, horizon * width)
        x = functional.layer_norm(x, (horizon * width,), eps=norm.eps)
        x = x.reshape(-1, groups, horizon, width).permute(2, 0, 1, 3).reshape(horizon, -1, norm.num_channels)
        return functional.mish(x * norm.weight + norm.bias)

    def _convolve(self, x: Tensor, layer: Any, horizon: int) -> Tensor:
        beside, stride, padding = self._beside(horizon), layer.stride[0], layer.padding[0]
        if beside and layer.kernel_size[0] == 1:
            return functional.linear(x, layer.weight[..., 0], layer.bias)
        return _convolve(x, layer.weight, layer.bias, stride, padding, beside)


class _Doubling(nn.Module):
    """A transposed convolution (kernel 4, stride 2, padding 1) as one convolution whose even and odd actions are
    different channels: action 2i sees i - 1 and i, action 2i + 1 sees i and i + 1."""

    weight: Tensor
    bias: Tensor

    def __init__(self, upsample: "Upsample1d"):
        super().__init__()
        weight, bias = upsample.conv.weight.detach(), upsample.conv.bias
        assert bias is not None
        self.channels = weight.shape[1]
        both = torch.cat([weight[..., [3, 1]], weight[..., [2, 0]]], dim=1)
        self.register_buffer("weight", both.transpose(0, 1).contiguous(), persistent=False)
        self.register_buffer("bias", bias.detach().repeat(2), persistent=False)

    def forward(self, x: Tensor, horizon: int, beside: bool) -> Tensor:
        """(H, N, C) -> (2 H, N, C) if `beside`, else (N, C, H) -> (N, C, 2 H)."""
        channels = self.channels
        x = _convolve(x, self.weight, self.bias, 1, 1, beside)
        if beside:
            pairs = torch.stack((x[:-1, :, :channels], x[1:, :, channels:]), dim=1)
            return pairs.reshape(2 * horizon, -1, channels)
        return torch.stack((x[:, :channels, :-1], x[:, channels:, 1:]), dim=3).reshape(-1, channels, 2 * horizon)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, beside: bool) -> Tensor:
    """Convolve along the actions: (H, N, C) -> (H', N, C') if `beside`, else (N, C, H) -> (N, C', H')."""
    if not beside:
        return functional.conv1d(x, weight, bias, stride, padding)
    image = functional.conv2d(x[None].permute(0, 3, 1, 2), weight[..., None], bias, (stride, 1), (padding, 0))
    return image.permute(0, 2, 3, 1)[0]
