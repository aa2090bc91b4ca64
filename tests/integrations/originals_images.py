"""Image encoders as the other projects build them: from robomimic's and torchvision's own modules."""

import pytest
import torch
from torch import nn

pytest.importorskip("robomimic", reason="needs specpolicy[dev]")
try:
    import torchvision
except RuntimeError:
    # PyPI's torchvision is built for CUDA and lacks its operators beside a CPU build of torch; none is called here.
    for operator in ("nms", "qnms"):
        torch.library.define(f"torchvision::{operator}", "(Tensor a, Tensor b, float c) -> Tensor")
    import torchvision

from robomimic.models.obs_core import CropRandomizer
from robomimic.models.obs_nets import ObservationEncoder
from robomimic.utils import obs_utils


class CenterCrop(CropRandomizer):
    """Diffusion Policy's crop when it is evaluated: torchvision's in the middle."""

    def forward_in(self, inputs):
        return torchvision.transforms.functional.center_crop(inputs, [self.crop_height, self.crop_width])

    def forward_out(self, inputs):
        return inputs


def with_group_norm(module):
    """Every batch norm in a module becomes a group norm, 16 channels a group."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, nn.GroupNorm(child.num_features // 16, child.num_features))
        else:
            with_group_norm(child)
    return module


def shaken(module, seed=0):
    """Weights and statistics away from their initial values, the same for a seed; ready to be evaluated."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point() and value.dim() <= 1 and "pos_" not in name:
                value += 0.2 * torch.rand(value.shape, generator=generator)
    return module.eval()


def observation_encoder(shapes, group_norm=True, crop=None, crop_class=CenterCrop, keypoints=8, features=16):
    """robomimic's encoder of observations {key: shape}."""
    modalities = {kind: [key for key in shapes if len(shapes[key]) == n] for kind, n in (("rgb", 3), ("low_dim", 1))}
    obs_utils.initialize_obs_utils_with_obs_specs({"obs": modalities})
    torch.manual_seed(0)
    encoder = ObservationEncoder()
    for key, shape in shapes.items():
        if len(shape) == 1:
            encoder.register_obs_key(key, shape)
            continue
        size = [shape[0], *(crop or shape[1:])]
        core = {
            "input_shape": size,
            "backbone_class": "ResNet18Conv",
            "backbone_kwargs": {"pretrained": False, "input_coord_conv": False},
            "pool_class": "SpatialSoftmax",
            "pool_kwargs": {"num_kp": keypoints, "learnable_temperature": False, "temperature": 0.7, "noise_std": 0.0},
            "feature_dimension": features,
        }
        randomiser = None if crop is None else crop_class(shape, *crop)
        encoder.register_obs_key(key, shape, net_class="VisualCore", net_kwargs=core, randomizer=randomiser)
    encoder.make()
    return shaken(with_group_norm(encoder) if group_norm else encoder)
