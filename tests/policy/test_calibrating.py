"""`specpolicy.calibrate(policy, observations)`: a whole policy, its encoder and its condition."""

import pytest
import torch
from torch import nn

import specpolicy
from specpolicy import GaussianChain, SpecpolicyError
from specpolicy.policy import DiffusionPolicy
from specpolicy.policy.calibrating import INVENTED_BYTES, fitting
from specpolicy.samplers.recycled.calibration import Calibration, Distillation, Effort

SMALL = Effort(
    chains=24,
    repeated=4,
    repeats=2,
    invented=16,
    scattered=2,
    rounds=8,
    steps=(),
    passes=(Distillation(8),),
    tests=4,
    options={"width": 8, "context": 2, "hidden": 8, "observation": 8, "blocks": 1},
)
IDENTITY = {"scale": [1.0], "offset": [0.0]}
CONFIG = {
    "network": {"kind": "dit", "hidden_dim": 16, "num_layers": 2, "num_heads": 2, "timestep_embed_dim": 8},
    "observation": {"state": 3},
    "action_dim": 2,
    "horizon": 4,
    "n_obs_steps": 2,
    "n_action_steps": 2,
    "chain": {"train_steps": 12, "steps": 12},
    "normaliser": {"state": IDENTITY, "action": IDENTITY},
}


@pytest.fixture
def policy():
    torch.manual_seed(0)
    made = DiffusionPolicy.from_config(CONFIG)
    for parameter in made.denoiser.parameters():
        nn.init.normal_(parameter, std=0.2)
    return made


def observations(count=30):
    return {"state": torch.randn(count, 2, 3, generator=torch.Generator().manual_seed(1)).numpy()}


def test_a_policy_is_calibrated_on_observations(policy, tmp_path):
    source = torch.Generator().manual_seed(0)
    found = specpolicy.calibrate(policy, observations(), generator=source, effort=SMALL)
    assert isinstance(found, Calibration) and policy.calibration is found and policy.best_sampler == "recycled"
    assert found.student is not None and found.fingerprint == policy.fingerprint
    out = policy.predict({"state": observations(1)["state"]}, generator=torch.Generator().manual_seed(2))
    assert out.actions.shape == (1, 4, 2) and int(out.stats.calls) < 12
    found.save(policy.save(tmp_path))
    kept = specpolicy.load_policy(tmp_path)
    again = kept.predict({"state": observations(1)["state"]}, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(
        again.actions, out.actions, rtol=0, atol=5e-3
    )  # what is stored is rounded to half precision
    plans = specpolicy.calibrate(kept, observations=observations(20), known=kept.calibration)
    assert plans.student is kept.calibration.student


@pytest.mark.parametrize(
    "arguments, options, words",
    (
        ((), {}, "calibrate(policy, observations)"),
        (({"state": torch.zeros(30, 2, 3)},), {"shape": (4, 2)}, "chain, shape and conditions are the policy's"),
        (({"sate": torch.zeros(30, 2, 3)},), {}, "no key 'state'"),
        (({"state": torch.zeros(5, 2, 3)},), {}, "5 conditions are too few"),
    ),
    ids=("nothing", "shape", "key", "few"),
)
def test_observations_that_do_not_do(arguments, options, words, policy):
    with pytest.raises(SpecpolicyError) as error:
        specpolicy.calibrate(policy, *arguments, **options)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_more_observations_of_one_key_than_of_another():
    """Of 100, the 36 behind the first part would be left out."""
    made = DiffusionPolicy.from_config(
        {
            **CONFIG,
            "observation": {"state": 3, "goal": 2},
            "normaliser": {**CONFIG["normaliser"], "goal": IDENTITY},
        }
    )
    given = {"state": torch.zeros(64, 2, 3), "goal": torch.zeros(100, 2, 2)}
    with pytest.raises(SpecpolicyError, match="64 of 'state', 100 of 'goal': give as many of each key"):
        specpolicy.calibrate(made, given)


def test_a_denoiser_is_calibrated_as_before(policy):
    cond = policy.encode(observations())
    source = torch.Generator().manual_seed(0)
    found = specpolicy.calibrate(policy.denoiser, policy.chain, (4, 2), cond, source, SMALL)
    assert found.student is not None
    with pytest.raises(SpecpolicyError, match="give the chain and the shape"):
        specpolicy.calibrate(policy.denoiser, observations())


def test_the_default_effort_fits():
    long, short = GaussianChain.ddpm(100), GaussianChain.ddpm(12)
    assert fitting(torch.zeros(1, 6), long) == Effort()
    assert 0 < 4 * 30_000 * fitting(torch.zeros(1, 3, 10_000), long).invented <= INVENTED_BYTES
    assert fitting(torch.zeros(1, 6), short).steps == ()
