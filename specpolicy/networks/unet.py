"""ConditionalUnet1D of Diffusion Policy (Chi et al. 2023): a one-dimensional U-Net over the action horizon.

Module structure and state-dict names are those of real-stanford/diffusion_policy, so its weights load unchanged. The
condition (timestep embedding and observation) enters each residual block by FiLM (Perez et al. 2018).
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from specpolicy.errors import SpecpolicyError
from specpolicy.networks.embedding import SinusoidalPosEmb, expand_timestep
from specpolicy.networks.unet_split import SplitUnet


class Conv1dBlock(nn.Module):
    """Conv1d, GroupNorm, Mish."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int, n_groups: int = 8):
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv1d(inputs, outputs, kernel_size, padding=kernel_size // 2),
            nn.GroupNorm(n_groups, outputs),
            nn.Mish(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H) -> (N, outputs, H)."""
        return self.block(x)


class ConditionalResidualBlock1D(nn.Module):
    """Two convolution blocks with FiLM between them and a residual connection around them."""

    def __init__(self, inputs: int, outputs: int, cond_dim: int, kernel_size: int, n_groups: int, scale: bool):
        super().__init__()
        self.blocks = nn.ModuleList(
            [
                Conv1dBlock(inputs, outputs, kernel_size, n_groups),
                Conv1dBlock(outputs, outputs, kernel_size, n_groups),
            ]
        )
        self.predicts_scale = scale
        self.cond_encoder = nn.Sequential(nn.Mish(), nn.Linear(cond_dim, outputs * (2 if scale else 1)))
        self.residual_conv = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """(N, inputs, H), (N, cond_dim) -> (N, outputs, H)."""
        hidden = self.blocks[0](x)
        film = self.cond_encoder(cond)[..., None]
        if self.predicts_scale:
            scale, bias = film.chunk(2, dim=1)
            hidden = scale * hidden + bias
        else:
            hidden = hidden + film
        return self.blocks[1](hidden) + self.residual_conv(x)


class Downsample1d(nn.Module):
    """Halves the horizon."""

    def __init__(self, dim: int):
        super().__init__()
        self.conv = nn.Conv1d(dim, dim, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, dim, H) -> (N, dim, H / 2)."""
        return self.conv(x)


class Upsample1d(nn.Module):
    """Doubles the horizon."""

    def __init__(self, dim: int):
        super().__init__()
        self.conv = nn.ConvTranspose1d(dim, dim, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, dim, H) -> (N, dim, 2 H)."""
        return self.conv(x)


class ConditionalUnet1D(nn.Module):
    """Denoiser (N, H, input_dim), timesteps (N,), condition (N, global_cond_dim) -> (N, H, output_dim)."""

    def __init__(
        self,
        input_dim: int,
        local_cond_dim: int | None = None,
        global_cond_dim: int | None = None,
        diffusion_step_embed_dim: int = 256,
        down_dims: Sequence[int] = (256, 512, 1024),
        kernel_size: int = 5,
        n_groups: int = 8,
        cond_predict_scale: bool = True,
        output_dim: int | None = None,
    ):
        """`output_dim`: numbers of an action in the output; None: those of the input."""
        super().__init__()
        widths = [input_dim, *down_dims]
        pairs = list(itertools.pairwise(widths))
        self.embedding_dim = embed = diffusion_step_embed_dim
        cond_dim = embed + (global_cond_dim or 0)
        self.horizon_multiple = 2 ** (len(down_dims) - 1)
        if any(width % n_groups for width in down_dims):
            raise SpecpolicyError(f"down_dims {list(down_dims)} must be multiples of n_groups={n_groups}")

        def block(inputs: int, outputs: int) -> ConditionalResidualBlock1D:
            return ConditionalResidualBlock1D(inputs, outputs, cond_dim, kernel_size, n_groups, cond_predict_scale)

        self.diffusion_step_encoder = nn.Sequential(
            SinusoidalPosEmb(embed), nn.Linear(embed, embed * 4), nn.Mish(), nn.Linear(embed * 4, embed)
        )
        self.local_cond_encoder = None
        if local_cond_dim is not None:
            width = down_dims[0]
            self.local_cond_encoder = nn.ModuleList([block(local_cond_dim, width), block(local_cond_dim, width)])
        self.down_modules = nn.ModuleList()
        for index, (inputs, outputs) in enumerate(pairs):
            last = index == len(pairs) - 1
            down = nn.Identity() if last else Downsample1d(outputs)
            self.down_modules.append(nn.ModuleList([block(inputs, outputs), block(outputs, outputs), down]))
        middle = widths[-1]
        self.mid_modules = nn.ModuleList([block(middle, middle), block(middle, middle)])
        self.up_modules = nn.ModuleList()
        for inputs, outputs in reversed(pairs[1:]):
            self.up_modules.append(
                nn.ModuleList([block(outputs * 2, inputs), block(inputs, inputs), Upsample1d(inputs)])
            )
        self.final_conv = nn.Sequential(
            Conv1dBlock(down_dims[0], down_dims[0], kernel_size), nn.Conv1d(down_dims[0], output_dim or input_dim, 1)
        )

    def check_horizon(self, horizon: int) -> None:
        """Raise a clear error if the U-Net cannot halve `horizon` at each of its levels."""
        if horizon % self.horizon_multiple:
            levels = len(self.down_modules)
            raise SpecpolicyError(
                f"a U-Net with {levels} levels halves the horizon {levels - 1} times: "
                f"horizon={horizon} must be a multiple of {self.horizon_multiple}"
            )

    def residual_blocks(self) -> list[nn.Module]:
        """Return the blocks in the order in which a chunk passes them; without those of a local condition."""
        stages = [*self.down_modules, self.mid_modules, *self.up_modules]
        return [block for stage in stages for block in list(stage.children())[:2]]

    def split_denoiser(self, horizon: int, rows: int) -> SplitUnet | None:
        """Return the same function in two parts, see there; None with a local condition, which goes through
        convolutions."""
        return SplitUnet(self, horizon, rows) if self.local_cond_encoder is None else None

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | int,
        global_cond: Tensor | None = None,
        local_cond: Tensor | None = None,
    ) -> Tensor:
        """Denoise `sample` (N, H, D) at `timestep` (N,), one value per row; local_cond: (N, H, local_cond_dim)."""
        self.check_horizon(sample.shape[1])
        x = sample.transpose(1, 2)
        cond = self.diffusion_step_encoder(expand_timestep(timestep, x.shape[0], x.device))
        if global_cond is not None:
            cond = torch.cat([cond, global_cond], dim=-1)
        skips = []
        for index, stage in enumerate(self.down_modules):
            first, second, downsample = stage.children()
            x = first(x, cond)
            if index == 0 and local_cond is not None and self.local_cond_encoder is not None:
                # The second encoder's output is not used in the original either; its weights still load.
                x = x + self.local_cond_encoder[0](local_cond.transpose(1, 2), cond)
            x = second(x, cond)
            skips.append(x)
            x = downsample(x)
        for block in self.mid_modules:
            x = block(x, cond)
        for stage in self.up_modules:
            first, second, upsample = stage.children()
            x = first(torch.cat((x, skips.pop()), dim=1), cond)
            x = upsample(second(x, cond))
        return self.final_conv(x).transpose(1, 2)
