"""Checkpoints of real-stanford/diffusion_policy: each variant predicts what the original algorithm predicts."""

import pytest
import torch
from foreign_files import DDIM, DDPM, lowdim_cfg, normaliser_weights, transformer, unet, write_workspace
from originals import lowdim_policy

from specpolicy import SpecpolicyError, load_policy, make_sampler

OBS, ACTION = 5, 2
BOTH = OBS + ACTION
CAUSAL = {"n_layer": 2, "n_head": 2, "n_emb": 16, "causal_attn": True, "p_drop_attn": 0.3}


def state_dict(network):
    weights = {f"model.{name}": value for name, value in network.state_dict().items()}
    return weights | normaliser_weights({"obs": OBS, "action": ACTION})


def observations(batch=2):
    return torch.randn(batch, 2, OBS, generator=torch.Generator().manual_seed(3))


def written(path, cfg, network):
    """A checkpoint whose averaged weights are those of `network`, the others of another network."""
    weights = state_dict(network)
    other = {name: value + 1 if value.is_floating_point() else value for name, value in weights.items()}
    if cfg["training"]["use_ema"]:
        return write_workspace(path, cfg, other, weights)
    return write_workspace(path, cfg, weights)


UNETS = {
    "first action after the newest frame": ({}, {}),
    "oa_step_convention": ({"oa_step_convention": True}, {}),
    "no averaged weights": ({"use_ema": False, "oa_step_convention": True}, {}),
    "sample prediction": ({"scheduler": {**DDPM, "prediction_type": "sample"}}, {}),
    "velocity prediction": ({"scheduler": {**DDPM, "prediction_type": "v_prediction"}}, {}),
    "linear schedule, large variance, no clip": (
        {"scheduler": {**DDPM, "beta_schedule": "linear", "variance_type": "fixed_large", "clip_sample": False}},
        {},
    ),
    "log variance": ({"scheduler": {**DDPM, "variance_type": "fixed_small_log"}}, {}),
    "ddpm of fewer steps": ({"num_inference_steps": 10}, {}),
    "ddim": ({"scheduler": DDIM, "num_inference_steps": 8}, {}),
    "ddim with noise": ({"scheduler": DDIM, "num_inference_steps": 10, "eta": 0.7}, {}),
    "ddim, sample prediction": (
        {"scheduler": {**DDIM, "prediction_type": "sample"}, "num_inference_steps": 5},
        {},
    ),
    "chunk of executed actions only": ({"pred_action_steps_only": True, "n_action_steps": 4}, {}),
    "no scale in FiLM": ({}, {"cond_predict_scale": False}),
    "other group count": ({"model": {"n_groups": 4}}, {"n_groups": 4}),
}


@pytest.mark.parametrize("variant", UNETS)
def test_unet_policies(variant, tmp_path):
    options, network_options = UNETS[variant]
    cfg = lowdim_cfg(**options)
    check(tmp_path, cfg, unet(ACTION, global_cond_dim=2 * OBS, **network_options))


@pytest.mark.parametrize("scheduler, steps", ((DDPM, 20), (DDIM, 8), ({**DDPM, "prediction_type": "sample"}, 20)))
def test_inpainting(scheduler, steps, tmp_path):
    cfg = lowdim_cfg(scheduler=scheduler, num_inference_steps=steps, obs_as_global_cond=False, oa_step_convention=True)
    policy = check(tmp_path, cfg, unet(BOTH))
    assert policy.sample_shape == (8, BOTH) and policy.action_dim == ACTION


def test_local_condition(tmp_path):
    cfg = lowdim_cfg(obs_as_global_cond=False, obs_as_local_cond=True)
    check(tmp_path, cfg, unet(ACTION, local_cond_dim=OBS))


@pytest.mark.parametrize(
    "options",
    (
        {},
        {"causal_attn": False},
        {"n_cond_layers": 2},
        {"inpaint": True},
        {"inpaint": True, "time_as_cond": False},
        {"inpaint": True, "time_as_cond": False, "causal_attn": False},
    ),
    ids=str,
)
def test_transformer_policies(options, tmp_path):
    options = dict(options)
    inpaint = options.pop("inpaint", False)
    model = {**CAUSAL, **options}
    cfg = lowdim_cfg("transformer", model=model, obs_as_cond=not inpaint)
    check(tmp_path, cfg, transformer(BOTH if inpaint else ACTION, 0 if inpaint else OBS, **model))


def check(tmp_path, cfg, network):
    """The loaded policy predicts what the original does, and so does its converted copy."""
    weights, obs = state_dict(network), observations()
    torch.manual_seed(11)
    action, plan = lowdim_policy(network, cfg, weights, obs)
    policy = load_policy(written(tmp_path / "latest.ckpt", cfg, network))
    for candidate in (policy, load_policy(policy.save(tmp_path / "converted"))):
        torch.manual_seed(11)
        out = candidate.predict({"obs": obs}, "ddpm")
        torch.testing.assert_close(out.actions, plan, rtol=2e-5, atol=2e-5)
        torch.testing.assert_close(candidate.executable(out.actions), action, rtol=2e-5, atol=2e-5)
    return policy


def test_inpainting_works_with_exact_samplers(tmp_path):
    """The known coordinates must not cost anything: where the network is certain, a round accepts every draft."""
    cfg = lowdim_cfg(scheduler={**DDPM, "prediction_type": "sample"}, obs_as_global_cond=False)
    network = unet(BOTH)
    for parameter in network.final_conv[1].parameters():
        torch.nn.init.zeros_(parameter)  # predicts zero everywhere; for known coordinates, that would be wrong
    policy = load_policy(written(tmp_path / "latest.ckpt", cfg, network))
    out = policy.predict(
        {"obs": observations()}, sampler=make_sampler("asd", window=None), generator=torch.Generator().manual_seed(0)
    )
    assert out.stats.calls.tolist() == [2, 2]
    cond = policy.encode({"obs": observations()})
    x, t = torch.randn(2, 8, BOTH), torch.tensor([3, 19])
    from_state, from_output = (part.float() for part in policy.chain.process.x0_coefficients(t[:, None, None]))
    x0 = from_state * x + from_output * policy.denoiser(x, t, cond)
    torch.testing.assert_close(x0[:, :2, ACTION:], cond)


@pytest.mark.parametrize("mark", ("_orig_mod.", "module."))
def test_names_left_by_compile_and_data_parallel(mark, tmp_path):
    network, cfg = unet(ACTION, global_cond_dim=2 * OBS), lowdim_cfg()
    weights = {name.replace("model.", f"model.{mark}", 1): value for name, value in state_dict(network).items()}
    policy = load_policy(write_workspace(tmp_path / "latest.ckpt", cfg, weights, weights))
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in policy.denoiser.state_dict().items())


def test_an_unresolved_configuration(tmp_path):
    """As a workspace file saves it that is run itself."""
    cfg = lowdim_cfg(oa_step_convention=True)
    cfg |= {"horizon": 8, "n_obs_steps": 2, "latency": 1, "obs_as_global_cond": True, "action_dim": ACTION}
    cfg["policy"] |= {
        "horizon": "${horizon}",
        "n_action_steps": "${eval:'2+${latency}'}",
        "action_dim": "${eval: ${action_dim} if ${obs_as_global_cond} else ${action_dim} + 5}",
        "obs_as_global_cond": "${obs_as_global_cond}",
    }
    cfg["name"] = "${now:%H.%M.%S}_train"
    network = unet(ACTION, global_cond_dim=2 * OBS)
    policy = load_policy(written(tmp_path / "latest.ckpt", cfg, network))
    assert (policy.horizon, policy.n_action_steps, policy.action_dim) == (8, 3, ACTION)


def test_the_output_directory_of_a_training(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    written(tmp_path / "checkpoints" / "latest.ckpt", lowdim_cfg(), unet(ACTION, global_cond_dim=2 * OBS))
    written(tmp_path / "checkpoints" / "epoch=1.ckpt", lowdim_cfg(), unet(ACTION, global_cond_dim=2 * OBS, seed=9))
    assert load_policy(tmp_path).config.source["task"] == "pusht_lowdim"
    with pytest.raises(SpecpolicyError, match=r"holds 2 checkpoints: name one of them"):
        load_policy(tmp_path / "checkpoints")


def bad(change):
    """(cfg, weights) after a change."""
    cfg, weights = lowdim_cfg(), state_dict(unet(ACTION, global_cond_dim=2 * OBS))
    change(cfg, weights)
    return cfg, weights


@pytest.mark.parametrize(
    "change, words",
    (
        (lambda c, w: c["policy"].update(_target_="diffusion_policy.policy.bet.BETLowdimPolicy"), "BETLowdimPolicy"),
        (lambda c, w: c["policy"].pop("horizon"), "lacks 'policy.horizon'"),
        (lambda c, w: c["policy"].pop("noise_scheduler"), "lacks 'policy.noise_scheduler"),
        (lambda c, w: c["policy"]["noise_scheduler"].update(_target_="diffusers.PNDMScheduler"), "PNDMScheduler"),
        (lambda c, w: c["policy"]["noise_scheduler"].update(thresholding=True), "thresholding=True"),
        (lambda c, w: c["policy"]["noise_scheduler"].update(beta_schedule="sigmoid"), "beta_schedule' is 'sigmoid'"),
        (lambda c, w: c["policy"]["noise_scheduler"].update(variance_type="learned"), "'learned'"),
        (lambda c, w: w.pop("model.final_conv.1.weight"), "final_conv.1.weight is missing"),
        (lambda c, w: w.pop("model.diffusion_step_encoder.3.weight"), "lacks the weight 'diffusion_step_encoder.3"),
        (lambda c, w: w.update({"model.extra": torch.ones(1)}), "extra has no place"),
        (lambda c, w: w.pop("normalizer.params_dict.obs.scale"), "normalizer.params_dict.obs.scale"),
        (lambda c, w: w.update({"normalizer.params_dict.obs.scale": torch.ones(4)}), "4 numbers"),
        (lambda c, w: c["policy"].update(obs_dim=6), "has the size 6"),
        (lambda c, w: c["policy"].update(horizon="${horizon}"), "lacks 'policy.horizon'"),
        (lambda c, w: c["policy"].update(horizon="${eval:'__import__(\"os\")'}"), "cannot calculate"),
        (lambda c, w: c["policy"].update(a="${policy.b}", b="${policy.a}", horizon="${policy.a}"), "never ends"),
    ),
)
def test_what_cannot_be_run_is_one_clear_line(change, words, tmp_path):
    cfg, weights = bad(change)
    path = write_workspace(tmp_path / "latest.ckpt", cfg, weights, weights)
    with pytest.raises(SpecpolicyError) as error:
        load_policy(path)
    assert words in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)


def test_missing_averaged_weights(tmp_path):
    path = write_workspace(tmp_path / "latest.ckpt", *bad(lambda c, w: None))
    with pytest.raises(SpecpolicyError, match="lacks the state dict 'ema_model'"):
        load_policy(path)
