"""A diffusion transformer as a policy of our own learns, continues actions, is a flow, and comes back the same."""

import pytest
import torch
from omegaconf import OmegaConf
from toy_windows import Curve, windows

from specpolicy import load_policy
from specpolicy.cli.configuration import compose_verb
from specpolicy.networks.dit import DiffusionTransformer
from specpolicy.policy import DiffusionPolicy
from specpolicy.training import TrainingOptions, train

OBSERVED = {"position": torch.zeros(2, 2), "object": torch.zeros(2, 3)}
NETWORK = {"kind": "dit", "hidden_dim": 32, "num_layers": 2, "num_heads": 4, "timestep_embed_dim": 16}


def chunk(policy, sampler):
    return policy.predict(OBSERVED, sampler=sampler, generator=torch.Generator().manual_seed(0)).actions


@pytest.mark.parametrize("changed", ({}, {"prefix": 2}, {"chain": None, "flow": {"times": 20, "steps": 10}}))
def test_it_learns_and_comes_back_the_same(policy_config, tmp_path, changed):
    torch.manual_seed(0)
    made = DiffusionPolicy.from_config({**policy_config, "network": NETWORK, **changed})
    curve = Curve()
    options = TrainingOptions(steps=40, batch_size=32, log_every=20, warmup_steps=5, save_every=40, learning_rate=3e-3)
    policy = train(made, windows(), None, options, tmp_path, curve).eval()
    assert curve.losses[-1] < 0.8 * curve.losses[0]
    loaded = load_policy(tmp_path)
    assert loaded.fingerprint == policy.fingerprint
    for sampler in ("ddpm", "recycled"):
        assert torch.equal(chunk(policy, sampler), chunk(loaded, sampler))


def test_the_shipped_options_are_a_small_one():
    options = OmegaConf.to_container(compose_verb("train", ["task=lift", "policy=dit"]).policy)
    assert options["name"] == options["network"]["kind"] == "dit"
    network = {name: value for name, value in options["network"].items() if name != "kind"}
    transformer = DiffusionTransformer(7, 7, options["horizon"], 2 * 23, **network)
    assert 1.5e6 < sum(weights.numel() for weights in transformer.parameters()) < 2.5e6
