"""A calibration of a policy that was read from its file serves the same policy in memory, whose names differ."""

import pytest
import torch
from foreign_files import FRAMES, lerobot_unet_names
from test_wrap import ACTION, HORIZON, OBS, LeRobotStandIn, seeded
from torch import nn

from specpolicy import GaussianChain, SpecpolicyError
from specpolicy.fingerprints import weights_fingerprint
from specpolicy.integrations import lerobot
from specpolicy.samplers import Calibration
from specpolicy.samplers.recycled.surrogates import GaussianSurrogate


class UnderTheirNames(nn.Module):
    """Our U-Net with the names that LeRobot gives its weights."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def state_dict(self, *args, **kwargs):
        return lerobot_unet_names(self.network.state_dict())

    def forward(self, x, t, **conditions):
        return self.network(x, t, **conditions)


def test_a_calibration_belongs_to_weights_by_our_names():
    policy, batch = LeRobotStandIn(), {"x": torch.randn(2, FRAMES * OBS, generator=seeded())}
    network, model = policy.diffusion.unet, policy.diffusion
    model.unet = UnderTheirNames(network)
    assert weights_fingerprint(model.unet) != weights_fingerprint(network)
    chain = GaussianChain.from_diffusers(model.noise_scheduler)
    prior = GaussianSurrogate(chain.process.alpha_bar, (HORIZON, ACTION), FRAMES * OBS)
    lerobot.wrap(policy, "recycled", seeded(), Calibration(prior, fingerprint=weights_fingerprint(network)))
    assert policy.select_action(batch).shape == (2, ACTION)
    kept = Calibration(prior, fingerprint=weights_fingerprint(network))
    with torch.no_grad():
        next(network.parameters()).add_(1)
    lerobot.wrap(policy, "recycled", seeded(), kept)
    policy.queue.clear()
    with pytest.raises(SpecpolicyError, match="made for another policy"):
        policy.select_action(batch)
