"""A chain's steps in the order they are walked, as tensors on one device: how to roll many steps out at once."""

from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from specpolicy.diffusion.chain import GaussianChain


class ChainPath:
    """Step n = 0 is the noisiest (level K-1), step K-1 the last (level 0).

    One step is y_next = state_weight_n y + drift_n + sigma_n xi, where drift_n = B_n clip(x0) + C_n x0 (see
    `GaussianChain`). All steps are linear in y, drift and xi, so a path whose drifts are known is one triangular
    matrix product: `transfer[i, j]` (K, K) says how much of what step j adds is left after step i.
    """

    def __init__(self, chain: "GaussianChain", device: torch.device, dtype: torch.dtype):
        self.chain = chain
        weight = chain.state_weight.flip(0)
        transfer = torch.eye(len(chain), dtype=torch.float64)
        for step in range(1, len(chain)):
            transfer[step, :step] = weight[step] * transfer[step - 1, :step]
        self.timesteps = chain.timesteps.flip(0).to(device)
        self.transfer = transfer.to(device, dtype)
        self.state_weight, self.x0_weight, self.raw_x0_weight, self.sigma = (
            table.flip(0).to(device, dtype)
            for table in (chain.state_weight, chain.x0_weight, chain.raw_x0_weight, chain.sigma)
        )
        # What gaps are divided by. Where the last step has no noise there is no gap either.
        self.gap_scale = torch.where(self.sigma > 0, self.sigma, torch.ones_like(self.sigma))
        self.signal = chain.alpha_bar.sqrt().flip(0).to(device, dtype)
        self._from_state, self._from_output = (
            table.flip(0).to(device, dtype) for table in (chain.state_coefficient, chain.output_coefficient)
        )
        self.uses_raw = bool((chain.raw_x0_weight != 0).any())

    def __len__(self) -> int:
        """Number of steps K."""
        return len(self.timesteps)

    def x0(self, output: Tensor, states: Tensor, steps: Tensor) -> Tensor:
        """x0 (..., H, D) from network outputs at `states`, `steps` (...), as far clipped as the chain allows."""
        if self.chain.process.prediction != "sample":
            output = (
                self._from_state[steps][..., None, None] * states + self._from_output[steps][..., None, None] * output
            )
        return self.clip(output)

    def clip(self, x0: Tensor) -> Tensor:
        """x0 clipped, unless this chain also needs it unclipped (DDIM that keeps the network's epsilon)."""
        return x0 if self.uses_raw else self.chain.clip(x0)

    def drift(self, x0: Tensor, steps: Tensor) -> Tensor:
        """What x0 (..., H, D) adds to the next state at `steps` (...)."""
        return self.segment(steps).drift(x0)

    def mean(self, states: Tensor, x0: Tensor, steps: Tensor) -> Tensor:
        """Mean of the states after `steps` (...), from `states` and their x0 (..., H, D)."""
        return self.state_weight[steps][..., None, None] * states + self.drift(x0, steps)

    def roll(self, root: Tensor, additions: Tensor, steps: Tensor) -> Tensor:
        """States (B, W, H, D) after each of `steps` (B, W), consecutive, from `root` (B, H, D).

        `additions` (B, W, H, D) is what each step adds: drift + sigma xi. States after a step depend on the additions
        of that step and of the steps before it, bit for bit.
        """
        return self.segment(steps).roll(root, additions)

    def segment(self, steps: Tensor) -> "Segment":
        """Some steps (...) of the path, for whoever rolls them out more than once."""
        return Segment(self, steps)


class Segment:
    """Steps (...) of a path, whose coefficients are looked up once: `timesteps` and `sigma`, of the shape of `steps`,
    and what `ChainPath` says of `drift` and `roll`."""

    def __init__(self, path: ChainPath, steps: Tensor):
        self.path, self.steps = path, steps
        self.timesteps, self.sigma = path.timesteps[steps], path.sigma[steps]
        self._x0_weight = path.x0_weight[steps][..., None, None]
        self._raw_x0_weight = path.raw_x0_weight[steps][..., None, None] if path.uses_raw else None

    def drift(self, x0: Tensor) -> Tensor:
        """See `ChainPath.drift`."""
        if self._raw_x0_weight is None:
            return self._x0_weight * x0
        return self._x0_weight * self.path.chain.clip(x0) + self._raw_x0_weight * x0

    def roll(self, root: Tensor, additions: Tensor) -> Tensor:
        """See `ChainPath.roll`."""
        if self.steps.shape[1] == 0:
            return additions
        start = self._state_weight * root
        flat = torch.cat([(additions[:, 0] + start)[:, None], additions[:, 1:]], dim=1).flatten(2)
        return (self._transfer @ flat).view_as(additions)

    @cached_property
    def _state_weight(self) -> Tensor:
        return self.path.state_weight[self.steps[:, 0]][:, None, None]

    @cached_property
    def _transfer(self) -> Tensor:
        return self.path.transfer[self.steps[:, :, None], self.steps[:, None, :]]
