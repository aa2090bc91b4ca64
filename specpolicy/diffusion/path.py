"""A chain's steps in the order they are walked, as tensors on one device: how to roll many steps out at once."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from specpolicy.diffusion.chain import GaussianChain

Steps = Tensor | slice  # which steps: numbers of any shape, or a range of them that all rows of a batch share


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
        # In float64: no product of float32 is safe from autocast and TF32, and a state that is off by a part of its
        # step's noise has another law.
        self.transfer = transfer.to(device)

        def table(values: Tensor) -> Tensor:
            """(K,) by level -> (K, 1, 1) by step, which broadcasts over states (..., H, D)."""
            return values.flip(0)[:, None, None].to(device, dtype)

        self._state_weight, self._x0_weight, self._raw_x0_weight, self._sigma = map(
            table, (chain.state_weight, chain.x0_weight, chain.raw_x0_weight, chain.sigma)
        )
        self._from_state, self._from_output = map(table, (chain.state_coefficient, chain.output_coefficient))
        # What gaps are divided by. Where the last step has no noise there is no gap either.
        scale = torch.where(chain.sigma > 0, chain.sigma, torch.ones_like(chain.sigma))
        self._gap_scale, self._gap_weight = table(scale), table(chain.x0_weight / scale)
        self.state_weight, self.x0_weight, self.sigma, self.gap_scale = (
            part[:, 0, 0] for part in (self._state_weight, self._x0_weight, self._sigma, self._gap_scale)
        )
        self.signal = chain.alpha_bar.sqrt().flip(0).to(device, dtype)
        self.uses_raw = bool((chain.raw_x0_weight != 0).any())

    def __len__(self) -> int:
        """Number of steps K."""
        return len(self.timesteps)

    def x0(self, output: Tensor, states: Tensor, steps: Steps) -> Tensor:
        """x0 (..., H, D) from network outputs at `states`, `steps` (...), as far clipped as the chain allows."""
        if self.chain.process.prediction != "sample":
            output = self._from_state[steps] * states + self._from_output[steps] * output
        return self.clip(output)

    def clip(self, x0: Tensor) -> Tensor:
        """x0 clipped, unless this chain also needs it unclipped (DDIM that keeps the network's epsilon)."""
        return x0 if self.uses_raw else self.chain.clip(x0)

    def drift(self, x0: Tensor, steps: Steps) -> Tensor:
        """What x0 (..., H, D) adds to the next state at `steps` (...)."""
        if not self.uses_raw:
            return self._x0_weight[steps] * x0
        return self._x0_weight[steps] * self.chain.clip(x0) + self._raw_x0_weight[steps] * x0

    def gap(self, x0: Tensor, other: Tensor, steps: Steps) -> Tensor:
        """By how much the means of two x0 (..., H, D) at the same states differ, in units of the steps' noise.

        Where the last step has no noise the unit is one. Means differ by their drifts alone; a difference of the means
        themselves would lose digits.
        """
        if not self.uses_raw:
            return self._gap_weight[steps] * (x0 - other)
        return (self.drift(x0, steps) - self.drift(other, steps)) / self._gap_scale[steps]

    def mean(self, states: Tensor, x0: Tensor, steps: Steps) -> Tensor:
        """Mean of the states after `steps` (...), from `states` and their x0 (..., H, D)."""
        return self._state_weight[steps] * states + self.drift(x0, steps)

    def shock(self, noise: Tensor, steps: Steps) -> Tensor:
        """What standard normal noise (..., H, D) adds to the next state at `steps` (...)."""
        return self._sigma[steps] * noise

    def roll(self, root: Tensor, additions: Tensor, steps: Steps) -> Tensor:
        """States (B, W, H, D) after each of `steps` (B, W), consecutive, from `root` (B, H, D).

        `additions` (B, W, H, D) is what each step adds: drift + sigma xi. States after a step depend on the additions
        of that step and of the steps before it, bit for bit.
        """
        if additions.shape[1] == 0:
            return additions
        if isinstance(steps, slice):
            transfer, weight = self.transfer[steps, steps], self._state_weight[steps.start]
        else:
            transfer, weight = self.transfer[steps[:, :, None], steps[:, None, :]], self._state_weight[steps[:, 0]]
        flat = torch.cat([(additions[:, 0] + weight * root)[:, None], additions[:, 1:]], dim=1).flatten(2)
        return (transfer @ flat.double()).to(additions.dtype).view_as(additions)
