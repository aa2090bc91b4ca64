"""A chain's steps in numpy, for one chunk on the CPU."""

import numpy as np

from specpolicy.diffusion import GaussianChain
from specpolicy.diffusion.steps import StepTables, transfer_of
from specpolicy.samplers.speculative.coupling import Floats

At = np.ndarray | slice | int  # one or several steps


class HostChain:
    """A chain's steps in numpy, (K, 1) float64 each, and its `transfer` (K, K). Made once for a sampler."""

    def __init__(self, chain: GaussianChain):
        self.chain, self.clip = chain, chain.process.clip
        self.tables = StepTables(*(table.numpy()[:, None] for table in chain.tables))
        self.transfer, self.timesteps = transfer_of(chain.state_weight).numpy(), chain.timesteps.numpy()

    def __len__(self) -> int:
        """Number of steps K."""
        return len(self.timesteps)

    def x0(self, output: Floats, states: Floats, at: At) -> Floats:
        """See `GaussianChain.x0`, for outputs and states (n, d) of steps (n,)."""
        return self.clipped(self.tables.from_state[at] * states + self.tables.from_output[at] * output)

    def clipped(self, x0: Floats) -> Floats:
        """See `GaussianChain.clip`."""
        return x0 if self.chain.uses_raw or self.clip is None else x0.clip(-self.clip, self.clip)

    def drift(self, x0: Floats, at: At) -> Floats:
        """See `GaussianChain.drift`."""
        if not self.chain.uses_raw:
            return self.tables.x0_weight[at] * x0
        clipped = x0 if self.clip is None else x0.clip(-self.clip, self.clip)
        return self.tables.x0_weight[at] * clipped + self.tables.raw_x0_weight[at] * x0

    def gap(self, x0: Floats, other: Floats, at: At) -> Floats:
        """See `GaussianChain.gap`."""
        if not self.chain.uses_raw:
            return self.tables.gap_weight[at] * (x0 - other)
        return (self.drift(x0, at) - self.drift(other, at)) / self.tables.gap_scale[at]

    def rollout(self, root: Floats, additions: Floats, at: slice) -> Floats:
        """See `GaussianChain.rollout`: states (W, d) after each of the steps, from `root` (d,)."""
        additions = additions.copy()
        additions[:1] += self.tables.state_weight[at][:1] * root
        return self.transfer[at, at] @ additions
