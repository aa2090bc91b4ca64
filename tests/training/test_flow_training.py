"""Flow policies: their loss by its definition, and a small one that is trained, saved, loaded and sampled."""

import json

import numpy as np
import pytest
import torch
from toy_windows import Curve, windows

from specpolicy import Committed, SpecpolicyError, flow_denoiser, load_policy
from specpolicy.policy import DiffusionPolicy
from specpolicy.policy.config import PolicyOptions
from specpolicy.training import TrainingOptions, train
from specpolicy.training.flowing import Flowing
from specpolicy.training.objectives import make_objective

FLOW = {"times": 20, "steps": 10}
OBSERVED = {"position": torch.zeros(2, 2), "object": torch.zeros(2, 3)}


@pytest.fixture
def flow_config(policy_config):
    return {**policy_config, "chain": None, "flow": FLOW}


def made(config, **flow):
    torch.manual_seed(0)
    return DiffusionPolicy.from_config({**config, "flow": {**config["flow"], **flow}})


@pytest.mark.parametrize("noise_at", (0, 1))
@pytest.mark.parametrize("sigma_min", (0.0, 0.1))
def test_the_loss_is_that_of_the_velocity_at_the_noised_chunk(flow_config, noise_at, sigma_min):
    policy = made(flow_config, noise_at=noise_at, sigma_min=sigma_min)
    objective, generator = Flowing(policy), torch.Generator().manual_seed(1)
    target = torch.randn(32, 8, 2, generator=generator)
    draws = objective.draw(target.shape, generator)
    t = draws["progress"][:, None, None]
    x = t * target + (1 - (1 - sigma_min) * t) * draws["noise"]
    velocity = (target - (1 - sigma_min) * draws["noise"]) * (1 if noise_at == 0 else -1)
    seen = []

    def network(state, time, cond):
        seen.append((state, time))
        return velocity + 0.5

    denoiser = flow_denoiser(network, policy.chain)
    loss = objective.loss(denoiser, target, torch.zeros(32, 1), draws, half=False)
    assert float(loss) == pytest.approx(0.25, rel=1e-5)
    torch.testing.assert_close(seen[0][0], x, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen[0][1], (1 - t if noise_at else t).flatten(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("sampling", "mean", "largest"), (("uniform", 0.5, 1.0), ("beta", 0.999 * 0.4, 0.999)))
def test_times_of_training_have_their_distribution(flow_config, sampling, mean, largest):
    """Beta(1.5, 1) has the mean 0.6 and the deviation 0.26, so t has the mean 0.999 (1 - 0.6)."""
    objective = Flowing(made(flow_config, time_sampling=sampling))
    t = objective.draw(torch.Size((40_000, 1, 1)), torch.Generator().manual_seed(0))["progress"]
    assert float(t.mean()) == pytest.approx(mean, abs=0.005)
    assert 0 <= float(t.min()) < 0.01 and largest - 0.01 < float(t.max()) <= largest


def test_a_flow_policy_learns_and_comes_back_the_same(flow_config, tmp_path):
    curve = Curve()
    options = TrainingOptions(steps=60, batch_size=32, log_every=20, warmup_steps=5, save_every=60)
    policy = train(made(flow_config), windows(), None, options, tmp_path, curve)
    assert curve.losses[-1] < 0.8 * curve.losses[0]
    assert json.loads((tmp_path / "config.json").read_text())["flow"]["times"] == 20
    loaded = load_policy(tmp_path)
    assert loaded.fingerprint == policy.fingerprint and repr(loaded.chain) == repr(policy.chain)
    assert (loaded.best_sampler, loaded.quick_sampler, loaded.steps) == ("block", "euler-10", 10)
    for sampler in ("ddpm", "block", "recycled", "ddim-5", "picard", "euler-7", "midpoint-5", "rk4-3"):
        drawn = [
            one.predict(OBSERVED, sampler=sampler, generator=torch.Generator().manual_seed(0)).actions
            for one in (policy.eval(), loaded)
        ]
        assert torch.equal(*drawn) and bool(drawn[0].isfinite().all()) and drawn[0].shape == (1, 8, 2)


def test_the_kind_of_policy_decides_its_loss(flow_config, small_policy):
    assert isinstance(make_objective(made(flow_config)), Flowing)
    assert not isinstance(make_objective(small_policy), Flowing)


@pytest.mark.parametrize(
    ("changed", "message"),
    (
        ({"chain": {"steps": 20}}, "chain and flow are both there: leave one out"),
        ({"flow": None}, "chain is missing .*flow, of a flow policy"),
        ({"flow": {"noise_at": 2}}, "'flow.noise_at' is 2"),
        ({"flow": {"times": 10, "steps": 11}}, "steps is 11: it must be a number from 1 to 10"),
        ({"flow": {"time_sampling": "betta"}}, "did you mean 'beta'"),
        ({"conditioning": "inpainting"}, "flow: inpainting conditioning is of diffusion policies alone"),
        ({"prefix": 2}, "prefix=2: flow policies learn to continue no actions"),
    ),
)
def test_configurations_that_are_refused(flow_config, changed, message):
    with pytest.raises(SpecpolicyError, match=message):
        DiffusionPolicy.from_config({**flow_config, **changed})


def test_a_policy_of_tokens_learns_no_flow():
    network = {"kind": "masked_transformer"}
    with pytest.raises(SpecpolicyError, match="objective=flow: a policy of action tokens"):
        from specpolicy.parsing import parse

        options = {"network": network, "horizon": 8, "n_obs_steps": 2, "n_action_steps": 4, "objective": "flow"}
        parse(PolicyOptions, {**options, "tokens": {}}, "here")


@pytest.mark.parametrize("way", ("inpaint", "rtc", "guided", "gradient"))
def test_committed_actions_are_continued_at_the_times_of_the_grid(flow_config, way):
    """A conditioned chain is another denoiser's, so block draws what ddpm does; the ODE takes the same way."""
    policy = made(flow_config)
    given = np.array([[0.1, 4.2], [0.2, 4.4]])
    for sampler in ("ddpm", "block", "euler-10", "euler-20", "midpoint-10"):
        out = policy.predict(
            OBSERVED, sampler=sampler, committed=Committed(given, 2, way), generator=torch.Generator().manual_seed(0)
        )
        kept = out.actions[0, policy.first_action : policy.first_action + 2]
        assert bool(out.actions.isfinite().all())
        if way == "inpaint" and sampler in ("ddpm", "block"):
            torch.testing.assert_close(kept.double(), torch.from_numpy(given), rtol=1e-4, atol=1e-4)
    with pytest.raises(SpecpolicyError, match="use euler with a number of steps that divides 20"):
        policy.predict(OBSERVED, sampler="euler-7", committed=Committed(given, 2, way))
