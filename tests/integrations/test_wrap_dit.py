"""LeRobot's MultiTaskDiTPolicy in memory: it keeps interface, encoders and queues, and samples through specpolicy."""

import copy
from collections import deque
from types import SimpleNamespace

import pytest
import torch
from dit_files import ACTIONS, HORIZON, SIZES, STEPS, denoiser, write_alone
from foreign_files import DDIM, DDPM
from originals import make_scheduler
from torch import nn

from specpolicy import SpecpolicyError, load_policy, make_sampler
from specpolicy.integrations import lerobot
from specpolicy.networks import DiffusionTransformer
from specpolicy.samplers import NoiseSource

COND = 22


class Network(DiffusionTransformer):
    """LeRobot's network as it is called there."""

    def forward(self, x, timestep, conditioning_vec):
        return super().forward(x, timestep, conditioning_vec)


class Changed(Network):
    """A network of the same weights that computes something else."""

    def forward(self, x, timestep, conditioning_vec):
        return 0.5 * super().forward(x, timestep, conditioning_vec)


class Objective(nn.Module):
    """LeRobot's objective `diffusion`, with its own loop."""

    def __init__(self, settings=DDPM, steps=STEPS):
        super().__init__()
        self.horizon, self.action_dim = HORIZON, ACTIONS
        self.noise_scheduler, self.num_inference_steps = make_scheduler(settings), steps

    def conditional_sample(self, model, batch_size, conditioning_vec):
        like = next(model.parameters())
        sample = torch.randn(size=(batch_size, self.horizon, self.action_dim), dtype=like.dtype)
        self.noise_scheduler.set_timesteps(self.num_inference_steps)
        for t in self.noise_scheduler.timesteps:
            times = torch.full(sample.shape[:1], int(t), dtype=torch.long)
            output = model(sample, times, conditioning_vec=conditioning_vec)
            sample = self.noise_scheduler.step(output, t, sample).prev_sample
        return sample


class Encoder(nn.Module):
    """Stands for LeRobot's encoder of state, images and text."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def encode(self, batch):
        return self.scale * batch["x"].flatten(1)


class Policy(nn.Module):
    """The interface of LeRobot's MultiTaskDiTPolicy."""

    def __init__(self, kind=Network, objective=None, **options):
        super().__init__()
        self.config = SimpleNamespace(num_heads=2, rope_base=10000.0, n_obs_steps=2, n_action_steps=3)
        self.observation_encoder, self.objective = Encoder(), objective or Objective()
        self.noise_predictor = kind(ACTIONS, ACTIONS, HORIZON, COND, **{**SIZES, **options})
        self.noise_predictor.load_state_dict(denoiser(COND, **options).state_dict())
        self.queue = deque()

    def _generate_actions(self, batch):
        cond = self.observation_encoder.encode(batch)
        actions = self.objective.conditional_sample(self.noise_predictor, len(batch["x"]), cond)
        return actions[:, 1:4]

    @torch.no_grad()
    def select_action(self, batch):
        self.eval()
        if not self.queue:
            self.queue.extend(self._generate_actions(batch).transpose(0, 1))
        return self.queue.popleft()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(rows=2):
    return {"x": torch.randn(rows, 2, COND // 2, generator=seeded(1))}


def chunk(policy, seed=3):
    policy.queue.clear()
    torch.manual_seed(seed)
    return torch.stack([policy.select_action(batch()) for _ in range(3)])


@pytest.mark.parametrize("options", ({}, {"use_rope": False, "use_positional_encoding": True}), ids=str)
@pytest.mark.parametrize("settings, steps", ((DDPM, STEPS), (DDIM, 5)), ids=("ddpm", "ddim"))
def test_it_selects_what_it_did(options, settings, steps):
    policy = Policy(objective=Objective(settings, steps), **options)
    before, names = chunk(policy), set(policy.state_dict())
    assert lerobot.wrap(policy) is policy and policy.last_stats is None
    torch.testing.assert_close(chunk(policy), before, rtol=2e-5, atol=2e-5)
    assert policy.last_stats.calls.tolist() == [steps] * 2
    assert set(policy.state_dict()) == names  # what is kept beside is no part of it


@pytest.mark.parametrize("sampler", ("asd", "block"))
def test_exact_samplers_serve_it_and_work_conditions_out_once(sampler, monkeypatch):
    policy = lerobot.wrap(Policy(), make_sampler(sampler, window=6), seeded())
    policy.select_action(batch())  # makes what it keeps
    seen, own = [], DiffusionTransformer.condition_features
    monkeypatch.setattr(
        DiffusionTransformer, "condition_features", lambda self, cond: seen.append(len(cond)) or own(self, cond)
    )
    chunk(policy)
    assert seen == [2] and int(policy.last_stats.calls.max()) < STEPS


def test_parameters_are_the_policys_own_and_copies_have_theirs():
    policy = lerobot.wrap(Policy(), "ddpm")
    chunk(policy)
    copied = copy.deepcopy(policy)
    with torch.no_grad():
        policy.noise_predictor.output_proj.weight.mul_(0.5)
    plain = Policy()
    before = chunk(plain)
    torch.testing.assert_close(chunk(copied), before, rtol=2e-5, atol=2e-5)
    plain.noise_predictor.load_state_dict(policy.noise_predictor.state_dict())
    torch.testing.assert_close(chunk(policy), chunk(plain), rtol=2e-5, atol=2e-5)
    assert (chunk(policy) - before).abs().max() > 1e-3
    other = denoiser(COND)
    with torch.no_grad():
        other.output_proj.weight.mul_(-0.5)
    policy.noise_predictor.load_state_dict(other.state_dict(), assign=True)
    plain.noise_predictor.load_state_dict(other.state_dict())
    torch.testing.assert_close(chunk(policy), chunk(plain), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("kind", (Changed, Network))
def test_a_network_that_computes_something_else_is_called_as_it_is(kind):
    policy = Policy(kind)
    if kind is Network:  # with one weight more
        policy.noise_predictor.bias = nn.Parameter(torch.zeros(1))
    before = chunk(policy)
    lerobot.wrap(policy)
    torch.testing.assert_close(chunk(policy), before, rtol=2e-5, atol=2e-5)
    assert policy._kept.network is None


def test_a_policy_that_was_converted_is_drawn_anew():
    """`Module.to` keeps the objects of the parameters, and our network is one of float32."""
    policy = lerobot.wrap(Policy(), "ddpm")
    first = chunk(policy)
    assert policy._kept.network is not None
    double = policy.double().objective.conditional_sample(policy.noise_predictor, 2, torch.ones(2, COND))
    assert policy._kept.network is None and double.dtype == torch.float64
    torch.testing.assert_close(chunk(policy.float()), first)
    assert policy._kept.network is not None
    policy.objective.horizon = HORIZON - 2
    assert policy.objective.conditional_sample(policy.noise_predictor, 2, torch.ones(2, COND)).shape[1] == HORIZON - 2


@pytest.mark.parametrize("sampler", ("ddpm", "block", "recycled"))
def test_a_single_chunk_under_autocast(sampler):
    """As LeRobot plays policies with `use_amp`: their networks then answer in bfloat16."""
    policy = lerobot.wrap(Policy(), make_sampler(sampler), seeded())
    with torch.autocast("cpu", torch.bfloat16):
        action = policy.select_action(batch(1))
    assert action.dtype == torch.float32 and bool(action.isfinite().all())


@pytest.mark.parametrize("rows", (1, 2))
def test_states_of_a_policy_in_half_precision_are_float32(rows, monkeypatch):
    """Else rounding would be part of every step, and the distribution another one."""
    policy, seen = lerobot.wrap(Policy().bfloat16(), "block", seeded()), []
    own = NoiseSource.normal
    monkeypatch.setattr(NoiseSource, "normal", lambda *given, **more: seen.append(own(*given, **more)) or seen[-1])
    action = policy.select_action({"x": batch(rows)["x"].bfloat16()})
    assert {noise.dtype for noise in seen} == {torch.float32} and action.dtype == torch.bfloat16


def test_parts_that_are_frozen_stay_in_their_mode():
    policy = lerobot.wrap(Policy(), "ddpm")
    policy.train()
    policy.noise_predictor.transformer_blocks[0].eval()
    before = [module.training for module in policy.modules()]
    with torch.no_grad():
        policy.objective.conditional_sample(policy.noise_predictor, 2, torch.ones(2, COND))
    assert [module.training for module in policy.modules()] == before and len(set(before)) == 2


def test_parameters_that_do_not_learn_stay_so():
    policy = Policy()
    policy.noise_predictor.requires_grad_(False)
    chunk(lerobot.wrap(policy))
    assert not any(parameter.requires_grad for parameter in policy.noise_predictor.parameters())


def test_a_calibration_of_another_denoiser_is_refused(tmp_path):
    from specpolicy.samplers import Calibration
    from specpolicy.samplers.recycled.surrogates import GaussianSurrogate

    directory, _ = write_alone(tmp_path)
    loaded = load_policy(directory)
    prior = GaussianSurrogate(loaded.chain.process.alpha_bar, loaded.sample_shape, COND)
    calibration = Calibration(prior, fingerprint=loaded.fingerprint)
    policy = lerobot.wrap(Policy(), "recycled", seeded(), calibration)
    assert chunk(policy).shape == (3, 2, ACTIONS)  # the file has the weights of the policy in memory
    other = Policy()
    with torch.no_grad():
        other.noise_predictor.output_proj.bias += 1
    lerobot.wrap(other, "recycled", seeded(), calibration)
    with pytest.raises(SpecpolicyError, match="calibration"):
        chunk(other)


def test_what_is_no_such_policy():
    policy = Policy()
    del policy.objective.num_inference_steps
    with pytest.raises(SpecpolicyError, match="no 'num_inference_steps', expected its objective"):
        lerobot.wrap(policy)
    with pytest.raises(SpecpolicyError, match=r"calibration='lift': give what specpolicy\.calibrate"):
        lerobot.wrap(Policy(), "recycled", calibration="lift")
