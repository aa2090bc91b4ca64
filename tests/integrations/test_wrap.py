"""Policies in memory: the user's object keeps its interface and samples through specpolicy."""

import copy
from collections import deque
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from foreign_files import DDIM, DDPM, FRAMES, transformer, unet
from originals import conditional_sample, make_scheduler
from torch import nn

from specpolicy import SpecpolicyError, make_sampler
from specpolicy.integrations import diffusion_policy, lerobot, robomimic

OBS, ACTION, HORIZON, STEPS = 5, 2, 8, 20


class DiffusionPolicyStandIn(nn.Module):
    """The interface of Diffusion Policy's low-dimensional policies, its own sampling loop included."""

    def __init__(self, kind, settings=DDPM, steps=STEPS, **options):
        super().__init__()
        self.kind, self.kwargs = kind, options
        width = ACTION + OBS if kind.startswith("inpaint") else ACTION
        networks = {
            "global": lambda: unet(width, global_cond_dim=FRAMES * OBS),
            "local": lambda: unet(width, local_cond_dim=OBS),
            "tokens": lambda: transformer(width, OBS),
            "inpaint": lambda: unet(width),
            "inpaint by transformer": lambda: transformer(width, 0),
        }
        self.model, self.width = networks[kind](), width
        self.noise_scheduler, self.num_inference_steps = make_scheduler(settings), steps

    def conditional_sample(self, condition_data, condition_mask, generator=None, **kwargs):
        conditions = {name: kwargs.pop(name) for name in ("local_cond", "global_cond", "cond") if name in kwargs}
        return conditional_sample(
            self.model,
            self.noise_scheduler,
            self.num_inference_steps,
            condition_data,
            condition_mask,
            kwargs,
            **conditions,
        )

    @torch.no_grad()
    def predict_action(self, obs_dict):
        nobs, batch = obs_dict["obs"], len(obs_dict["obs"])
        data = torch.zeros(batch, HORIZON, self.width)
        mask = torch.zeros_like(data, dtype=torch.bool)
        conditions = {}
        if self.kind == "global":
            conditions = {"local_cond": None, "global_cond": nobs.reshape(batch, -1)}
        elif self.kind == "local":
            padded = torch.cat([nobs, torch.zeros(batch, HORIZON - FRAMES, OBS)], dim=1)
            conditions = {"local_cond": padded, "global_cond": None}
        elif self.kind == "tokens":
            conditions = {"cond": nobs}
        else:
            data[:, :FRAMES, ACTION:], mask[:, :FRAMES, ACTION:] = nobs, True
        sample = self.conditional_sample(data, mask, **conditions, **self.kwargs)
        sample[:, :, :ACTION] += 0  # user code may change its chunk in place
        return {"action_pred": sample[..., :ACTION], "whole": sample}


def observation(batch=3):
    return {"obs": torch.randn(batch, FRAMES, OBS, generator=torch.Generator().manual_seed(1))}


KINDS = ("global", "local", "tokens", "inpaint", "inpaint by transformer")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "settings, steps, options",
    ((DDPM, STEPS, {}), (DDIM, 5, {}), (DDIM, 10, {"eta": 0.5})),
    ids=("ddpm", "ddim", "eta"),
)
def test_diffusion_policy_predicts_what_it_did(kind, settings, steps, options):
    policy = DiffusionPolicyStandIn(kind, settings, steps, **options)
    torch.manual_seed(3)
    before = policy.predict_action(observation())
    assert diffusion_policy.wrap(policy) is policy and policy.last_stats is None
    torch.manual_seed(3)
    after = policy.predict_action(observation())
    for name in before:
        torch.testing.assert_close(after[name], before[name], rtol=2e-5, atol=2e-5)
    assert policy.last_stats.calls.tolist() == [steps] * 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampler", ("asd", "block"))
def test_exact_samplers_serve_every_kind_of_condition(kind, sampler):
    policy = diffusion_policy.wrap(DiffusionPolicyStandIn(kind), make_sampler(sampler, window=6), seeded())
    chunk = policy.predict_action(observation())
    assert chunk["action_pred"].shape == (3, HORIZON, ACTION) and bool(torch.isfinite(chunk["whole"]).all())
    assert int(policy.last_stats.calls.max()) < STEPS and int(policy.last_stats.rows.min()) > STEPS
    if kind.startswith("inpaint"):
        torch.testing.assert_close(chunk["whole"][:, :FRAMES, ACTION:], observation()["obs"])


def test_a_wrapped_policy_may_still_be_changed_and_copied():
    policy = diffusion_policy.wrap(DiffusionPolicyStandIn("global"), "ddpm", seeded())
    copied = copy.deepcopy(policy)
    policy.num_inference_steps = 10
    policy.predict_action(observation())
    assert policy.last_stats.calls[0] == 10 and copied.last_stats is None
    nn.init.zeros_(copied.model.final_conv[1].weight)
    copied.predict_action(observation())
    assert copied.last_stats.calls[0] == STEPS
    assert not torch.equal(copied.model.final_conv[1].weight, policy.model.final_conv[1].weight)
    policy.noise_scheduler = make_scheduler(DDIM)
    diffusion_policy.wrap(policy, "asd")
    with pytest.raises(SpecpolicyError, match=r"(?i)noise|eta|speculat"):
        policy.predict_action(observation())


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class LeRobotStandIn(nn.Module):
    """The interface of LeRobot's DiffusionPolicy: queues around a model that samples."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.unet = unet(ACTION, global_cond_dim=FRAMES * OBS)
            self.noise_scheduler, self.num_inference_steps = make_scheduler(DDPM), STEPS

        def conditional_sample(self, batch_size, global_cond=None, generator=None, noise=None):
            sample = torch.randn(batch_size, HORIZON, ACTION) if noise is None else noise
            self.noise_scheduler.set_timesteps(self.num_inference_steps)
            for t in self.noise_scheduler.timesteps:
                output = self.unet(sample, torch.full((batch_size,), int(t)), global_cond=global_cond)
                sample = self.noise_scheduler.step(output, t, sample).prev_sample
            return sample

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(horizon=HORIZON, action_feature=SimpleNamespace(shape=(ACTION,)))
        self.diffusion = self.Model()
        self.queue = deque()

    @torch.no_grad()
    def select_action(self, batch, noise=None):
        if not self.queue:
            actions = self.diffusion.conditional_sample(len(batch["x"]), global_cond=batch["x"], noise=noise)
            self.queue.extend(actions[:, 1:4].transpose(0, 1))
        return self.queue.popleft()


def test_lerobot_selects_what_it_did():
    policy, batch = LeRobotStandIn(), {"x": torch.randn(2, FRAMES * OBS, generator=seeded())}
    noise = torch.randn(2, HORIZON, ACTION, generator=seeded(5))
    for start in (None, noise):
        plain = LeRobotStandIn()
        torch.manual_seed(3)
        before = [plain.select_action(batch, noise=start) for _ in range(3)]
        policy.queue.clear()
        assert lerobot.wrap(policy) is policy
        torch.manual_seed(3)
        after = [policy.select_action(batch, noise=start) for _ in range(3)]
        torch.testing.assert_close(torch.stack(after), torch.stack(before), rtol=2e-5, atol=2e-5)
        assert policy.last_stats.calls.tolist() == [STEPS] * 2
    lerobot.wrap(policy, "block", seeded())
    policy.queue.clear()
    assert policy.select_action(batch).shape == (2, ACTION) and int(policy.last_stats.calls.max()) < STEPS


@pytest.mark.parametrize("sampler", ("block", "recycled"))
def test_lerobot_is_told_at_once_what_cannot_be_drawn(sampler):
    """Not when a robot waits for its first chunk."""
    policy = LeRobotStandIn()
    policy.diffusion.noise_scheduler = make_scheduler(DDIM)
    drawn = policy.diffusion.conditional_sample
    with pytest.raises(SpecpolicyError, match=r"(?i)noise|eta|speculat"):
        lerobot.wrap(policy, sampler)
    assert policy.diffusion.conditional_sample == drawn  # it stays as it was
    policy.diffusion.noise_scheduler = DDPMScheduler(STEPS, variance_type="learned")
    with pytest.raises(SpecpolicyError, match="'learned'"):
        lerobot.wrap(policy)


class RobomimicEncoder(nn.Module):
    """robomimic's encoder of low-dimensional observations."""

    def forward(self, obs):
        return torch.cat([obs["object"], obs["position"]], dim=-1)


class RobomimicStandIn:
    """The interface of DiffusionPolicyUNet and of the RolloutPolicy around it."""

    def __init__(self, averaged=True):
        def nets(seed):
            parts = {
                "obs_encoder": RobomimicEncoder(),
                "noise_pred_net": unet(ACTION, global_cond_dim=FRAMES * OBS, seed=seed),
            }
            return nn.ModuleDict({"policy": nn.ModuleDict(parts)})

        self.nets = nets(4)
        self.ema = SimpleNamespace(averaged_model=nets(0)) if averaged else None
        self.noise_scheduler, self.ac_dim = make_scheduler(DDPM), ACTION
        self.obs_shapes = {"object": [2], "position": [3]}
        horizon = SimpleNamespace(observation_horizon=FRAMES, action_horizon=3, prediction_horizon=HORIZON)
        enabled = SimpleNamespace(enabled=True, num_inference_timesteps=STEPS)
        self.algo_config = SimpleNamespace(horizon=horizon, ddpm=enabled, ddim=SimpleNamespace(enabled=False))
        self.queue = deque()

    def _get_action_trajectory(self, obs_dict, goal_dict=None):
        nets = (self.ema.averaged_model if self.ema else self.nets)["policy"]
        cond = torch.cat([obs_dict["object"], obs_dict["position"]], dim=-1).flatten(1)
        data = torch.zeros(len(cond), HORIZON, ACTION)
        chunk = conditional_sample(
            nets["noise_pred_net"], self.noise_scheduler, STEPS, data, data.bool(), global_cond=cond
        )
        return chunk[:, 1:4]

    @torch.no_grad()
    def get_action(self, obs_dict):
        if not self.queue:
            self.queue.extend(self._get_action_trajectory(obs_dict=obs_dict)[0])
        return self.queue.popleft()[None]


class RolloutPolicyStandIn:
    def __init__(self, policy):
        self.policy = policy

    def __call__(self, ob):
        return self.policy.get_action({key: torch.as_tensor(value)[None].float() for key, value in ob.items()})[
            0
        ].numpy()


@pytest.mark.parametrize("averaged", (True, False))
@pytest.mark.parametrize("outer", (True, False))
def test_robomimic_acts_as_it_did(averaged, outer):
    rng = np.random.default_rng(0)
    ob = {"object": rng.normal(size=(FRAMES, 2)), "position": rng.normal(size=(FRAMES, 3))}
    plain = RolloutPolicyStandIn(RobomimicStandIn(averaged))
    torch.manual_seed(3)
    before = [plain(ob) for _ in range(3)]
    policy = RolloutPolicyStandIn(RobomimicStandIn(averaged))
    wrapped = policy if outer else policy.policy
    assert robomimic.wrap(wrapped) is wrapped
    torch.manual_seed(3)
    np.testing.assert_allclose([policy(ob) for _ in range(3)], before, rtol=2e-5, atol=2e-5)
    assert wrapped.last_stats.calls.tolist() == [STEPS]
    robomimic.wrap(wrapped, "block", seeded())
    assert policy(ob).shape == (ACTION,) and int(wrapped.last_stats.calls) < STEPS


def test_lerobots_first_versions_have_shapes_in_place_of_features():
    plain, old = LeRobotStandIn(), LeRobotStandIn()
    old.config = SimpleNamespace(horizon=HORIZON, output_shapes={"action": [ACTION]})
    chunks = []
    for policy in (plain, lerobot.wrap(old, "ddpm")):
        torch.manual_seed(3)
        chunks.append(policy.select_action({"x": torch.ones(2, FRAMES * OBS)}))
    torch.testing.assert_close(chunks[1], chunks[0], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("outer", (False, True))
def test_a_copy_of_robomimics_policy_samples_with_its_own_network(outer):
    algorithm = RobomimicStandIn()
    policy = robomimic.wrap(RolloutPolicyStandIn(algorithm) if outer else algorithm, "ddpm", seeded())
    copied = copy.deepcopy(policy)
    inner = copied.policy if outer else copied
    nn.init.zeros_(inner.ema.averaged_model["policy"]["noise_pred_net"].final_conv[1].weight)
    nn.init.constant_(inner.ema.averaged_model["policy"]["noise_pred_net"].final_conv[1].bias, torch.nan)
    with pytest.raises(SpecpolicyError, match="not finite"):
        inner._get_action_trajectory({"object": torch.zeros(1, 2, 2), "position": torch.zeros(1, 2, 3)})
    algorithm._get_action_trajectory({"object": torch.zeros(1, 2, 2), "position": torch.zeros(1, 2, 3)})
    assert policy.last_stats is not None and copied.last_stats is None


@pytest.mark.parametrize("project", (diffusion_policy, lerobot, robomimic))
def test_something_else_cannot_be_wrapped(project):
    with pytest.raises(SpecpolicyError, match="cannot wrap a Linear: it has no"):
        project.wrap(nn.Linear(1, 1))


def test_a_scheduler_that_is_no_chain_is_one_clear_line():
    from diffusers import DPMSolverMultistepScheduler

    policy = DiffusionPolicyStandIn("global")
    policy.noise_scheduler = DPMSolverMultistepScheduler(num_train_timesteps=STEPS)
    with pytest.raises(SpecpolicyError, match="DPMSolverMultistepScheduler is not supported"):
        diffusion_policy.wrap(policy).predict_action(observation())


class Changed(DDIMScheduler):
    """Somebody's own scheduler."""


def with_other_alphas():
    scheduler = make_scheduler(DDPM)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod * 0.9
    return scheduler


def with_noise_left():
    scheduler = make_scheduler(DDIM)
    scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    return scheduler


@pytest.mark.parametrize(
    "scheduler, options, words",
    (
        (lambda: DDIMScheduler(STEPS, thresholding=True), {}, "thresholding=True"),
        (lambda: DDIMScheduler(STEPS, rescale_betas_zero_snr=True), {}, "rescale_betas_zero_snr=True"),
        (lambda: DDIMScheduler(STEPS, set_alpha_to_one=False), {}, "set_alpha_to_one=False"),
        (lambda: DDIMScheduler(STEPS, trained_betas=[0.1] * STEPS), {}, "trained_betas"),
        (lambda: DDPMScheduler(STEPS, variance_type="learned"), {}, "'learned'"),
        (lambda: DDIMScheduler(STEPS), {"variance_noise": None}, "'variance_noise'"),
        (lambda: make_scheduler(DDPM), {"eta": 0.5}, "DDIMScheduler"),
        (lambda: Changed(STEPS), {}, "Changed is not supported"),
        (with_other_alphas, {}, "alphas_cumprod"),
        (with_noise_left, {}, "final_alpha_cumprod"),
        (lambda: DDPMScheduler(STEPS, trained_betas=np.full(STEPS, 0.1, np.float32)), {}, "trained_betas"),
    ),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_setting_that_is_not_reproduced_is_one_clear_line(scheduler, options, words):
    policy = diffusion_policy.wrap(DiffusionPolicyStandIn("global", **options))
    policy.noise_scheduler = scheduler()
    with pytest.raises(SpecpolicyError) as error:
        policy.predict_action(observation())
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("spacing", ("trailing", "linspace"))
@pytest.mark.parametrize("options", ({}, {"eta": 0.5}, {"eta": 1.0, "use_clipped_model_output": True}), ids=str)
def test_the_spacing_of_a_ddim_policy(spacing, options):
    """Seven steps of twenty: the scheduler's steps do not end where the next ones begin."""
    policy = DiffusionPolicyStandIn("global", {**DDIM, "timestep_spacing": spacing, "steps_offset": 1}, 7, **options)
    torch.manual_seed(3)
    before = policy.predict_action(observation())
    diffusion_policy.wrap(policy)
    torch.manual_seed(3)
    torch.testing.assert_close(policy.predict_action(observation())["whole"], before["whole"], rtol=1e-4, atol=1e-4)
