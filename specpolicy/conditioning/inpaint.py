"""Committed actions in place of the predicted ones."""

from torch import Tensor

from specpolicy.conditioning.given import Given
from specpolicy.conditioning.ways import Predict, Way


class Inpaint(Way):
    """x0' is v where v is committed, and x0 elsewhere: hard inpainting of the prediction.

    The committed part of the state is then noised like a chunk that is known: N(sqrt(abar) v, (1 - abar) I) at every
    level. The rest learns of it through the network alone.
    """

    name = "inpaint"

    def __call__(self, x0: Tensor, predict: Predict, state: Tensor, timestep: Tensor, given: Given) -> Tensor:
        """See `Way`."""
        return given.weights * given.values + (1 - given.weights) * self.process.clipped(x0)
