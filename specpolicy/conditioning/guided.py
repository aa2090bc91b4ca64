"""Pseudo-inverse guidance towards the previous plan (real-time chunking in its guided form)."""

import torch
from torch import Tensor

from specpolicy.conditioning.given import Given
from specpolicy.conditioning.rtc import soft_weights
from specpolicy.conditioning.ways import Predict, Way, held
from specpolicy.diffusion import TrainingProcess

MOST = 5.0  # bound on the strength, in the paper's experiments
STEP = 0.05  # of the difference, in units of the noise of the state


class Guided(Way):
    """x0' = x0 + c J W (v - x0), then the committed actions themselves (Black et al. 2025, equations 2 to 5).

    J is the derivative of x0 by the state, W the soft weights, and c = min(1 / sqrt(abar), most). The paper's strength
    for flows, min(most, (1 - t) / (t r^2)), is in these terms min(1 / sqrt(abar), most sqrt(1 - abar)). It vanishes
    where the noise does, which is harmless in five steps of a flow but not in the many last ones of a diffusion chain;
    hence the form without that factor, and the committed actions in their places.

    The paper takes the product with J from the left, by backward differentiation: see `Gradient`. For the score of a
    distribution J is symmetric, and the product from the right is a difference of two predictions. It needs no
    gradients, so every engine has it, at the price of a second evaluation after the first. J of a trained network is
    not quite symmetric, so the two products differ.
    """

    name = "guided"
    evaluations = 2

    def __init__(self, process: TrainingProcess, most: float | None = None):
        super().__init__(process)
        self.most = MOST if most is None else most

    def weights(self, count: int, known: int) -> Tensor:
        """See `Way.weights`."""
        return soft_weights(count, known)

    def touched(self, given: Given) -> Tensor:
        """See `Way.touched`: the whole chunk."""
        return (given.count > 0).expand(given.values.shape)

    def __call__(self, x0: Tensor, predict: Predict, state: Tensor, timestep: Tensor, given: Given) -> Tensor:
        """See `Way`."""
        abar = self.alpha_bar(timestep, state)
        pull = given.weights * (given.values - self.process.clipped(x0))
        along = self.product(x0, predict, state, pull, STEP * (1 - abar).sqrt())
        return held(self.process.clipped(x0 + abar.rsqrt().clamp(max=self.most) * along), given)

    def product(self, x0: Tensor, predict: Predict, state: Tensor, pull: Tensor, step: Tensor) -> Tensor:
        """Return J pull (..., d) at `state`, where the prediction is `x0`; `step`: (..., 1) length of a difference."""
        length = torch.linalg.vector_norm(pull, dim=-1, keepdim=True).clamp(min=1e-6)
        return (predict(state + step / length * pull) - x0) * (length / step)


class Gradient(Guided):
    """The same with the paper's product, pull J, by backward differentiation of the network.

    Its drafters guess with the difference of `Guided`: any function fixed before sampling drafts exactly.
    """

    name = "gradient"
    evaluations = 2  # the network, and back through it
    fixed_shapes = False
    differentiates = True

    def product(self, x0: Tensor, predict: Predict, state: Tensor, pull: Tensor, step: Tensor) -> Tensor:
        """See `Guided.product`."""
        (along,) = torch.autograd.grad(x0, state, pull)
        return along

    @property
    def of_guesses(self) -> Way:
        """See `Way`."""
        return Guided(self.process, self.most)
