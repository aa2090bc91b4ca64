"""What Diffusion Policy and robomimic say beside the numbers: each setting is applied, does nothing, or is refused.

The settings are those of their constructors; what others have added may change what actions mean.
"""

import copy
import json

import pytest
import torch
from foreign_files import (
    DDIM,
    DDPM,
    SIZES,
    lowdim_cfg,
    normaliser_weights,
    robomimic_cfg,
    transformer,
    unet,
    write_robomimic,
    write_workspace,
)

from specpolicy import SpecpolicyError, load_policy

OBS, ACTION, FRAMES = 5, 2, 2


def refused(path):
    with pytest.raises(SpecpolicyError) as error:
        load_policy(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)
    return str(error.value)


def bias(policy):
    return policy.denoiser.final_conv[1].bias


# -- Diffusion Policy ----------------------------------------------------------------------------------------------


def workspace(path, cfg, network=None, extra=None):
    network = unet(ACTION, global_cond_dim=FRAMES * OBS) if network is None else network
    weights = {f"model.{name}": value for name, value in network.state_dict().items()}
    weights |= normaliser_weights({"obs": OBS, "action": ACTION}) | (extra or {})
    return write_workspace(path / "latest.ckpt", cfg, weights, weights)


# What real workspaces have beside the policy, and arguments that say nothing new.
AROUND = {
    "name": "train_diffusion_unet_lowdim",
    "exp_name": "default",
    "n_latency_steps": 0,
    "past_action_visible": False,
    "keypoint_visible_rate": 1.0,
    "ema": {"_target_": "diffusion_policy.model.diffusion.ema_model.EMAModel", "power": 0.75},
    "optimizer": {"_target_": "torch.optim.AdamW", "lr": 1e-4, "betas": [0.95, 0.999]},
    "dataloader": {"batch_size": 256},
    "checkpoint": {"topk": {"k": 5}},
    "task": {"name": "pusht", "dataset": {"delta_action": False, "val_ratio": 0.02}},
}


def test_what_says_how_a_workspace_was_trained_changes_nothing(tmp_path):
    cfg = lowdim_cfg(oa_step_convention=True)
    (tmp_path / "a").mkdir()
    plain = load_policy(workspace(tmp_path / "a", copy.deepcopy(cfg)))
    cfg |= AROUND
    cfg["training"] |= {"device": "cuda:0", "seed": 42, "lr_scheduler": "cosine"}
    cfg["policy"] |= {"obs_as_local_cond": False, "pred_action_steps_only": False}
    cfg["policy"]["model"] |= {
        "input_dim": ACTION,
        "local_cond_dim": None,
        "global_cond_dim": FRAMES * OBS,
        "n_groups": 8,
        "cond_predict_scale": True,
        **SIZES,
    }
    policy = load_policy(workspace(tmp_path, cfg))
    assert torch.equal(bias(policy), bias(plain)) and policy.first_action == plain.first_action
    assert policy.config.source["weights"] == "ema_model"


def test_a_configuration_as_it_was_before_hydra_resolved_it(tmp_path):
    """The formulas of diffusion_policy/config/train_diffusion_unet_lowdim_workspace.yaml and of its tasks."""
    cfg = lowdim_cfg(
        horizon="${horizon}",
        obs_dim="${obs_dim}",
        action_dim="${action_dim}",
        n_action_steps="${eval:'${n_action_steps}+${n_latency_steps}'}",
        n_obs_steps="${n_obs_steps}",
        obs_as_local_cond="${obs_as_local_cond}",
        obs_as_global_cond="${obs_as_global_cond}",
        oa_step_convention=True,
        model={
            "input_dim": "${eval: ${task.action_dim} if ${obs_as_local_cond} or ${obs_as_global_cond} else "
            "${task.obs_dim} + ${task.action_dim}}",
            "local_cond_dim": "${eval: ${task.obs_dim} if ${obs_as_local_cond} else None}",
            "global_cond_dim": "${eval: ${task.obs_dim}*${n_obs_steps} if ${obs_as_global_cond} else None}",
            **SIZES,
        },
    )
    cfg |= {"obs_dim": "${task.obs_dim}", "action_dim": "${task.action_dim}", "task_name": "${task.name}"}
    cfg |= {"horizon": 8, "n_obs_steps": FRAMES, "n_action_steps": 3, "n_latency_steps": 0}
    cfg |= {"obs_as_local_cond": False, "obs_as_global_cond": True}
    cfg["task"] = {
        "name": "pusht_lowdim",
        "obs_dim": OBS,
        "action_dim": ACTION,
        "env_runner": {"max_steps": '${eval:\'500 if "${task.name}" == "mh" else 400\'}'},
        "dataset": {"pad_before": "${eval:'${n_obs_steps}-1+${n_latency_steps}'}"},
    }
    policy = load_policy(workspace(tmp_path, cfg))
    assert (policy.horizon, policy.n_action_steps, policy.first_action) == (8, 3, 1)
    assert policy.config.source["task"] == "pusht_lowdim"


@pytest.mark.parametrize(
    "place, value",
    (
        ("policy.relative_actions", True),
        ("policy.action_rep", "relative"),
        ("policy.rotation_rep", "rotation_6d"),
        ("policy.input_pertub", 0.1),
        ("policy.predict_epsilon", True),
        ("policy.variance_noise", None),
        ("policy.thresholding", True),
        ("policy.n_actions_steps", 3),
        ("policy.horizon", "eight"),
        ("policy.eta", "much"),
        ("policy.obs_as_global_cond", "yes"),
        ("policy.obs_as_local_cond", True),
        ("policy.model.kernel_size", 5),
        ("policy.model.down_dims", [8]),
        ("policy.model.diffusion_step_embed_dim", 16),
        ("policy.model.cond_predict_scale", False),
        ("policy.model.attention", True),
        ("policy.noise_scheduler.timestep_spacing", "dense"),
        ("policy.noise_scheduler.thresholding", True),
        ("policy.noise_scheduler.rescale_betas_zero_snr", True),
        ("policy.noise_scheduler.trained_betas", [0.1, 0.2]),
        ("policy.noise_scheduler.set_alpha_to_one", False),
        ("policy.noise_scheduler.use_karras_sigmas", True),
        ("policy._target_", "umi.policy.DiffusionUnetLowdimPolicy"),
        ("policy._target_", "diffusion_policy.policy.diffusion_unet_timm_policy.DiffusionUnetTimmPolicy"),
        ("n_latency_steps", 2),
        ("task.dataset.delta_action", True),
        ("training.use_ema", "yes"),
    ),
    ids=str,
)
def test_a_setting_of_diffusion_policy_that_is_not_reproduced_is_refused_by_name(place, value, tmp_path):
    cfg = lowdim_cfg()
    *parents, name = place.split(".")
    target = cfg
    for parent in parents:
        target = target.setdefault(parent, {})
    target[name] = value
    message = refused(workspace(tmp_path, cfg))
    assert (value.rpartition(".")[2] if name == "_target_" else str(value) if name == "timestep_spacing" else name) in (
        message
    )


@pytest.mark.parametrize(
    "name, value",
    (("n_emb", 32), ("causal_attn", True), ("rope", True), ("n_layer", "two"), ("time_as_cond", "no")),
)
def test_a_setting_of_a_transformer_that_is_not_reproduced(name, value, tmp_path):
    network = transformer(ACTION, OBS, causal_attn=False)
    cfg = lowdim_cfg("transformer", model={"n_layer": 2, "n_head": 2, "n_emb": 16, "p_drop_attn": 0.3})
    load_policy(workspace(tmp_path, cfg, network))
    cfg["policy"]["model"][name] = value
    assert name in refused(workspace(tmp_path, cfg, network))


@pytest.mark.parametrize(
    "name",
    ("obs_encoder.obs_nets.camera.backbone.weight", "normalizer.extra", "language.weight", "kp_projector.weight"),
)
def test_a_weight_of_diffusion_policy_without_a_place(name, tmp_path):
    assert name in refused(workspace(tmp_path, lowdim_cfg(), extra={name: torch.ones(2)}))


@pytest.mark.parametrize("scheduler", (DDPM, DDIM), ids=("ddpm", "ddim"))
def test_options_of_the_step(scheduler, tmp_path):
    cfg = lowdim_cfg(scheduler=scheduler, eta=0.5, use_clipped_model_output=True)
    if scheduler is DDPM:
        assert "DDIMScheduler" in refused(workspace(tmp_path, cfg))
        return
    chain = load_policy(workspace(tmp_path, cfg)).chain
    assert chain.eta == 0.5 and not chain.uses_raw


def test_a_file_with_other_parts_is_no_workspace_of_theirs(tmp_path):
    path = workspace(tmp_path, lowdim_cfg())
    content = torch.load(path, weights_only=False)
    torch.save({**content, "action_transform": "relative"}, path)
    assert "'action_transform'" in refused(path)


# -- robomimic -----------------------------------------------------------------------------------------------------

SHAPES = {"object": [4], "position": [3]}
TEMPLATE = {  # the rest of robomimic's own templates
    "optim_params": {"policy": {"optimizer_type": "adamw", "learning_rate": {"initial": 1e-4}}},
    "unet": {
        "enabled": True,
        "diffusion_step_embed_dim": 256,
        "down_dims": [256, 512, 1024],
        "kernel_size": 5,
        "n_groups": 8,
    },
    "ema": {"enabled": True, "power": 0.75},
}
TRAIN = {
    "data": [{"path": "low_dim.hdf5"}],
    "seq_length": 16,
    "frame_stack": FRAMES,
    "pad_frame_stack": True,
    "goal_mode": None,
    "hdf5_normalize_obs": False,
    "action_keys": ["actions"],
    "action_config": {"actions": {"normalization": None}},
    "batch_size": 100,
}


def archive(tmp_path, change=lambda cfg: None, extra=None, **rest):
    network = unet(3, global_cond_dim=FRAMES * 7)
    nets = {f"noise_pred_net.{name}": value for name, value in network.state_dict().items()} | (extra or {})
    cfg = robomimic_cfg(SHAPES, train=dict(TRAIN))
    cfg["algo"] |= copy.deepcopy(TEMPLATE)
    cfg |= {"algo_name": "diffusion_policy", "experiment": {"rollout": {"n": 50}}, "meta": {"hp_keys": []}}
    cfg["observation"]["modalities"]["goal"] = {"low_dim": [], "rgb": []}
    cfg["observation"]["encoder"]["depth"] = {"core_class": "VisualCore", "core_kwargs": {}}
    change(cfg)
    return write_robomimic(tmp_path / "model.pth", json.loads(json.dumps(cfg)), nets, SHAPES, **rest)


def test_robomimics_own_template(tmp_path):
    policy = load_policy(archive(tmp_path))
    assert policy.config.source["weights"] == "nets" and len(policy.chain) == 20


def put(place, value):
    def change(cfg):
        *parents, name = place.split(".")
        for parent in parents:
            cfg = cfg.setdefault(parent, {})
        cfg[name] = value

    return change


@pytest.mark.parametrize(
    "place, value, words",
    (
        ("algo.relative_actions", True, "algo.relative_actions"),
        ("algo.language_conditioned", True, "algo.language_conditioned"),
        ("algo.ddpm.beta_end", 0.5, "algo.ddpm.beta_end"),
        ("algo.ddpm.variance_type", "fixed_large", "algo.ddpm.variance_type"),
        ("algo.ddpm.clip_sample_range", 2.0, "algo.ddpm.clip_sample_range"),
        ("algo.ddpm.num_inference_timesteps", "ten", "algo.ddpm.num_inference_timesteps"),
        ("algo.ddim.eta", 0.5, "algo.ddim.eta"),
        ("algo.unet.attention", True, "algo.unet.attention"),
        ("algo.unet.enabled", False, "algo"),
        ("algo.horizon.latency_horizon", 2, "algo.horizon.latency_horizon"),
        ("algo.horizon.action_horizon", 1.5, "algo.horizon.action_horizon"),
        ("train.frame_stack", 4, "train.frame_stack"),
        ("train.hdf5_normalize_obs", True, "obs_normalization_stats"),
        ("train.action_config", {"actions": {"format": "delta"}}, "train.action_config.actions.format"),
        ("train.action_config", {"actions": {"format": "rot_6d"}}, "action_normalization_stats"),
        ("train.action_config", {"actions": {"relative": True}}, "train.action_config.actions.relative"),
        ("observation.modalities.goal", {"low_dim": ["object"]}, "goal"),
        ("observation.modalities.subgoal", {"rgb": ["camera"]}, "goal"),
        ("observation.modalities.obs.low_dim", ["object", "position", "velocity"], "velocity"),
        ("observation.encoder.low_dim.core_class", "MLP", "by a network"),
        ("observation.encoder.low_dim.obs_randomizer_class", "CropRandomizer", "CropRandomizer"),
        ("observation.encoder.low_dim.scale", 2.0, "observation.encoder.low_dim.scale"),
    ),
)
def test_a_setting_of_robomimic_that_is_not_reproduced_is_refused_by_name(place, value, words, tmp_path):
    assert words in refused(archive(tmp_path, put(place, value)))


@pytest.mark.parametrize(
    "place, value",
    (
        ("observation.encoder.low_dim.obs_randomizer_class", ["GaussianNoiseRandomizer"]),
        ("observation.encoder.low_dim.core_kwargs", {}),
        ("algo.transformer", {"enabled": False}),
        ("observation.modalities.goal", None),
        ("observation.modalities.goal", {"low_dim": None}),
        ("train.action_config", {"actions": {"format": "rot_axis_angle"}}),
        ("train.action_config", {"actions": {}, "elsewhere": {"format": "rot_6d", "relative": True}}),
        ("experiment.anything", 1),
        ("train.seq_length", 32),
        ("meta.hp_values", [1]),
    ),
)
def test_what_says_how_robomimic_trained_changes_nothing(place, value, tmp_path):
    (tmp_path / "plain").mkdir()
    plain = load_policy(archive(tmp_path / "plain"))
    assert torch.equal(bias(load_policy(archive(tmp_path, put(place, value)))), bias(plain))


@pytest.mark.parametrize(
    "metadata, hz, task",
    (
        ({"env_name": "Lift", "env_kwargs": {"control_freq": 20}}, 20.0, "Lift"),
        ({"env_name": "Lift", "env_kwargs": {"control_freq": 12.5}}, 12.5, "Lift"),
        ({"env_name": "Lift", "env_kwargs": {}}, None, "Lift"),
        ({"env_name": "Lift", "env_kwargs": None}, None, "Lift"),
        (None, None, None),
        # Trained on several files.
        ([{"env_name": "Lift", "env_kwargs": {"control_freq": 20}}] * 2, 20.0, "Lift"),
        (
            [{"env_name": name, "env_kwargs": {"control_freq": hz}} for name, hz in (("A", 20), ("B", 10))],
            None,
            "A, B",
        ),
        ([{"env_name": "A", "env_kwargs": {"control_freq": 20}}, {"env_name": "B"}], None, "A, B"),
    ),
    ids=str,
)
def test_the_rate_of_robomimics_environment_is_that_of_the_policy(metadata, hz, task, tmp_path):
    policy = load_policy(archive(tmp_path, env_metadata=metadata))
    assert policy.control_hz == hz and policy.config.source["task"] == task
    assert load_policy(policy.save(tmp_path / "converted")).control_hz == hz


@pytest.mark.parametrize("hz", (0, -20, "fast", True, float("nan")))
def test_a_rate_that_is_none(hz, tmp_path):
    metadata = {"env_name": "Lift", "env_kwargs": {"control_freq": hz}}
    assert "control_freq" in refused(archive(tmp_path, env_metadata=metadata))


@pytest.mark.parametrize("widths", ([(1, 2), (2, 1)], [(2, 2), (2, 2)]), ids=str)
def test_statistics_of_parts_that_do_not_fit(widths, tmp_path):
    names = ("a", "b")
    found = {
        name: {"scale": [[1.0] * scale], "offset": [[0.0] * offset]}
        for name, (scale, offset) in zip(names, widths, strict=True)
    }
    change = put("train.action_keys", list(names))
    assert "numbers" in refused(archive(tmp_path, change, action_normalization_stats=found))


def test_a_rotation_of_another_width(tmp_path):
    found = {name: {"scale": [[1.0] * width], "offset": [[0.0] * width]} for name, width in (("a", 1), ("b", 2))}

    def change(cfg):
        cfg["train"] |= {"action_keys": ["a", "b"], "action_config": {"a": {"format": "rot_6d"}}}

    assert "'a' is rot_6d and has 1 numbers" in refused(archive(tmp_path, change, action_normalization_stats=found))


def test_robomimic_executes_no_more_actions_than_a_plan_has(tmp_path):
    policy = load_policy(archive(tmp_path, put("algo.horizon.action_horizon", 16)))
    assert (policy.horizon, policy.first_action, policy.n_action_steps) == (8, 1, 7)


def test_a_weight_of_robomimic_without_a_place(tmp_path):
    extra = {"obs_encoder.nets.goal.obs_nets.object.weight": torch.ones(2)}
    assert "goal" in refused(archive(tmp_path, extra=extra))


def test_a_file_with_other_parts_is_none_of_robomimics(tmp_path):
    assert "'action_transform'" in refused(archive(tmp_path, action_transform="relative"))


@pytest.mark.parametrize(
    "core, words",
    (
        ({"pool_class": "SpatialMeanPool"}, "pool_class"),
        ({"pool_class": None}, "pool_class"),
        ({"backbone_class": "ResNet50Conv"}, "backbone_class"),
        ({"backbone_kwargs": {"input_coord_conv": True}}, "input_coord_conv"),
        ({"backbone_kwargs": {"dilation": 2}}, "dilation"),
        ({"pool_kwargs": {"output_variance": True}}, "output_variance"),
        ({"pool_kwargs": {"num_kp": 9}}, "num_kp"),
        ({"feature_dimension": 17}, "feature_dimension"),
        ({"feature_dimension": None}, "feature_dimension"),
        ({"flatten": False}, "flatten"),
        ({"dropout": 0.1}, "dropout"),
    ),
    ids=str,
)
def test_an_image_encoder_that_is_not_reproduced(core, words, tmp_path):
    path = seeing(tmp_path, core_kwargs=core)
    assert words in refused(path)


@pytest.mark.parametrize(
    "encoder, words",
    (
        ({"core_class": "VisualCoreLanguageConditioned"}, "core_class"),
        ({"obs_randomizer_class": "CropRandomizer", "obs_randomizer_kwargs": {"pos_enc": True}}, "pos_enc"),
        ({"obs_randomizer_class": "CropRandomizer", "obs_randomizer_kwargs": {"zoom": 2}}, "zoom"),
        ({"obs_randomizer_class": "ShiftRandomizer"}, "ShiftRandomizer"),
        (
            {
                "obs_randomizer_class": ["CropRandomizer", "CropRandomizer"],
                "obs_randomizer_kwargs": [{"crop_height": 36, "crop_width": 37}] * 2,
            },
            "CropRandomizer",
        ),
        # robomimic pairs the two lists, so that what is left over is no randomiser at all.
        (
            {
                "obs_randomizer_class": ["ColorRandomizer", "CropRandomizer"],
                "obs_randomizer_kwargs": {"crop_height": 36, "crop_width": 37},
            },
            "obs_randomizer_kwargs has 1 entries",
        ),
        # Other positions of the keypoints are among its weights.
        (
            {
                "obs_randomizer_class": "CropRandomizer",
                "obs_randomizer_kwargs": {"crop_height": 30, "crop_width": 30},
            },
            "camera.pool.pos_x",
        ),
        ({"brightness": 2}, "brightness"),
    ),
    ids=str,
)
def test_images_that_are_not_treated_as_robomimic_does(encoder, words, tmp_path):
    assert words in refused(seeing(tmp_path, **encoder))


def test_an_image_encoder_with_all_its_settings_said(tmp_path):
    core = {
        "backbone_class": "ResNet18Conv",
        "backbone_kwargs": {"pretrained": True, "input_coord_conv": False, "freeze": True},
        "pool_class": "SpatialSoftmax",
        "pool_kwargs": {"num_kp": 8, "learnable_temperature": False, "temperature": 1.0, "noise_std": 0.1},
        "feature_dimension": 16,
        "flatten": True,
    }
    randomisers = {
        "obs_randomizer_class": ["CropRandomizer", "ColorRandomizer"],
        "obs_randomizer_kwargs": [{"crop_height": 36, "crop_width": 37, "num_crops": 4, "pos_enc": False}, {}],
    }
    assert load_policy(seeing(tmp_path, core_kwargs=core, **randomisers)).config.vision.crop == (36, 37)


def seeing(tmp_path, **encoder):
    """A policy that sees one camera."""
    from originals_images import observation_encoder

    shapes = {"camera": [3, 40, 44]}
    vision = observation_encoder(shapes)
    nets = {
        f"noise_pred_net.{name}": value for name, value in unet(3, global_cond_dim=FRAMES * 16).state_dict().items()
    }
    nets |= {f"obs_encoder.nets.obs.{name}": value for name, value in vision.state_dict().items()}
    return write_robomimic(tmp_path / "model.pth", robomimic_cfg(shapes, **encoder), nets, shapes)
