"""The networks in training, as one module: windows and random numbers in, their loss out."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from specpolicy.images import unit_images
from specpolicy.policy import Policy
from specpolicy.training.loss import Draws, Objective
from specpolicy.training.views import jittered


class Learner(nn.Module):
    """Encoder, denoiser and loss of a policy.

    Args:
        policy: whose networks learn, or are measured.
        objective: their loss.
        reduced: compute in bfloat16; weights, and the loss, stay float32.
        colour_jitter: see `TrainingOptions`.
        compiled: run the denoiser compiled.
    """

    def __init__(
        self,
        policy: Policy,
        objective: Objective,
        reduced: bool = False,
        colour_jitter: float = 0.0,
        compiled: bool = False,
    ):
        super().__init__()
        self.encoder, self.normaliser = policy.encoder, policy.normaliser
        self.denoiser: nn.Module = torch.compile(policy.denoiser) if compiled else policy.denoiser  # type: ignore[assignment]
        self.images = {key: policy.frame_shape(key)[1:] for key in policy.config.cameras}
        self.objective, self.reduced, self.colour_jitter = objective, reduced, colour_jitter

    def forward(self, observed: Mapping[str, Tensor], target: Tensor, draws: Draws) -> Tensor:
        """Return the mean loss.

        Args:
            observed: vectors (N, To, D), and images (N, To, H, W, C) as bytes.
            target: (N, ...) as `Objective.prepare` makes it.
            draws: of `Objective.draw` and `draw_views`; without the latter images are seen as a policy in use sees
                them.
        """
        frames, views = {}, {}
        for key in self.encoder.keys:
            value = observed[key]
            if key in self.images:
                value = unit_images(key, value, self.images[key])
                if f"crop/{key}" in draws:
                    value = jittered(value, draws[f"colour/{key}"], self.colour_jitter)
                    views[key] = draws[f"crop/{key}"]
            frames[key] = self.normaliser.normalise(key, value)
        # Vectors are not rounded: without images the encoder only puts them side by side.
        with torch.autocast(target.device.type, torch.bfloat16, enabled=self.reduced and bool(self.images)):
            cond = self.encoder(frames, views)
        return self.objective.loss(self.denoiser, target, cond.float(), draws, self.reduced)
