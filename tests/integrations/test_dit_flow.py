"""LeRobot's multi_task_dit with the objective flow_matching: in memory, and from its directory."""

from types import SimpleNamespace

import pytest
import torch
from dit_files import ACTIONS, FRAMES, HORIZON, write_alone
from test_wrap_dit import COND, Changed, Network, Policy, batch, chunk, seeded
from torch import nn

from specpolicy import SpecpolicyError, fingerprints, load_policy
from specpolicy.integrations import lerobot
from specpolicy.samplers import Calibration
from specpolicy.samplers.recycled.surrogates import GaussianSurrogate

STEPS = 10


class Objective(nn.Module):
    """LeRobot's objective `flow_matching`, with loops of its own."""

    def __init__(self, method="euler", sigma_min=0.0):
        super().__init__()
        self.horizon, self.action_dim = HORIZON, ACTIONS
        self.config = SimpleNamespace(
            num_integration_steps=STEPS, integration_method=method, sigma_min=sigma_min, n_obs_steps=FRAMES
        )

    def conditional_sample(self, model, batch_size, conditioning_vec):
        x, size = torch.randn(batch_size, self.horizon, self.action_dim), 1 / STEPS
        times = torch.linspace(0, 1, STEPS + 1)[:-1]

        def slope(x, t):
            return model(x, t.expand(batch_size), conditioning_vec=conditioning_vec)

        for t in times:
            first = slope(x, t)
            if self.config.integration_method == "euler":
                x = x + size * first
                continue
            second = slope(x + 0.5 * size * first, t + 0.5 * size)
            third = slope(x + 0.5 * size * second, t + 0.5 * size)
            x = x + size / 6 * (first + 2 * second + 2 * third + slope(x + size * third, t + size))
        return x


def of(method="euler", **options):
    return Policy(objective=Objective(method, **options))


@pytest.mark.parametrize(("method", "calls"), (("euler", STEPS), ("rk4", 4 * STEPS)))
@pytest.mark.parametrize("sigma_min", (0.0, 0.05, 1.0))
def test_it_selects_what_it_did(method, calls, sigma_min):
    policy = of(method, sigma_min=sigma_min)
    before = chunk(policy)
    lerobot.wrap(policy)
    torch.testing.assert_close(chunk(policy), before, rtol=1e-4, atol=1e-4)
    assert policy.last_stats.calls.tolist() == [calls] * 2
    assert policy._kept.network is not None  # it is drawn by our network on its parameters


@pytest.mark.parametrize("kind", (Network, Changed), ids=("ours", "another"))
def test_steps_and_method_may_change_between_two_chunks(kind):
    policy = lerobot.wrap(Policy(kind, Objective()))
    for steps, method, calls in ((STEPS, "euler", STEPS), (4, "euler", 4), (3, "rk4", 12)):
        policy.objective.config.num_integration_steps, policy.objective.config.integration_method = steps, method
        chunk(policy)
        assert policy.last_stats.calls.tolist() == [calls] * 2
    policy = lerobot.wrap(policy, "euler-5")  # a sampler that is named stays
    chunk(policy)
    assert policy.last_stats.calls.tolist() == [5] * 2


def test_samplers_of_the_ancestral_chain_serve_it():
    """Another distribution than the ODE's. DDIM without noise is Euler's method again."""
    policy, before = of(), chunk(of())
    torch.testing.assert_close(chunk(lerobot.wrap(policy, "ddim-10")), before, rtol=1e-4, atol=1e-4)
    for sampler, most in (("ddpm", STEPS), ("block", STEPS), ("recycled", STEPS - 1)):
        drawn = chunk(lerobot.wrap(of(), sampler, seeded()))
        assert float((drawn - before).abs().max()) > 1e-2
        wrapped = lerobot.wrap(of(), sampler, seeded())
        wrapped.select_action(batch())
        assert int(wrapped.last_stats.calls.max()) <= most


def test_solvers_of_an_ode_refuse_the_objective_diffusion():
    with pytest.raises(SpecpolicyError, match="solves the equation of a flow policy"):
        chunk(lerobot.wrap(Policy(), "euler"))


@pytest.mark.parametrize("method", ("euler", "rk4"))
def test_its_directory_is_read(method, tmp_path):
    changed = {"objective": "flow_matching", "integration_method": method, "num_integration_steps": STEPS}
    directory, network = write_alone(tmp_path / "theirs", COND, {**changed, "sigma_min": 0.01})
    policy = load_policy(directory)
    options = policy.config.flow
    assert (options.times, options.steps, options.sigma_min, options.time_scale) == (400, STEPS, 0.01, 1.0)
    assert policy.config.source["sampler"] == f"{method}-{STEPS}" and policy.best_sampler == "block"
    seen = {"condition": torch.randn(2, FRAMES, COND // FRAMES, generator=seeded(1))}
    drawn = policy.predict(seen, policy.config.source["sampler"], seeded(3)).actions
    torch.manual_seed(3)
    expected = Objective(method, 0.01).conditional_sample(
        lambda x, t, conditioning_vec: network(x, t, conditioning_vec), 2, seen["condition"].flatten(1)
    )
    with torch.no_grad():
        torch.testing.assert_close(drawn, expected, rtol=1e-4, atol=1e-4)
    kept = load_policy(policy.save(tmp_path / "ours"))
    assert torch.equal(kept.predict(seen, "block", seeded()).actions, policy.predict(seen, "block", seeded()).actions)


def test_a_flow_that_cannot_be_is_refused(tmp_path):
    directory, _ = write_alone(tmp_path, COND, {"objective": "flow_matching", "sigma_min": 1.5})
    with pytest.raises(SpecpolicyError, match=r"sigma_min is 1\.5: it must be a number from 0 to 1"):
        load_policy(directory)


def calibration_of(policy):
    """A calibration as it is made for a loaded policy."""
    prior = GaussianSurrogate(policy.chain.process.alpha_bar, policy.sample_shape, COND)
    return Calibration(prior, fingerprint=policy.fingerprint)


@pytest.mark.parametrize("kind", (Network, Changed), ids=("ours", "another"))
def test_a_calibration_of_the_loaded_policy_serves_the_one_in_memory(kind, tmp_path, monkeypatch):
    """By our network on its parameters, and by another network with its weights, whose names are no flow's."""
    changed = {"objective": "flow_matching", "num_integration_steps": STEPS}
    loaded = load_policy(write_alone(tmp_path, COND, changed)[0])
    computed, own = [], fingerprints.add_weights
    monkeypatch.setattr(fingerprints, "add_weights", lambda *given: computed.append(1) or own(*given))
    policy = Policy(kind, Objective())
    lerobot.wrap(policy, "recycled", seeded(), calibration_of(loaded))
    del computed[:]
    assert chunk(policy).shape == (3, 2, ACTIONS) and (policy._kept.network is None) == (kind is Changed)
    chunk(policy)
    assert len(computed) == 1  # weights are compared once, not for every chunk
    with torch.no_grad():
        loaded.denoiser.network.output_proj.bias += 1
    lerobot.wrap(policy, "recycled", seeded(), calibration_of(loaded))
    with pytest.raises(SpecpolicyError, match="made for another policy"):
        chunk(policy)
