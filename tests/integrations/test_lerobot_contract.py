"""What LeRobot says beside the numbers: each field and each step is applied, does nothing, or is refused by name.

The fields are those of all its versions, the steps those that its versions register.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from foreign_files import write_lerobot
from safetensors.torch import load_file, save_file
from test_lerobot import BUFFERS, CONFIG, ENVIRONMENT, STATE, WRITTEN, tensors

from specpolicy import SpecpolicyError, load_policy

BEFORE, AFTER = "policy_preprocessor.json", "policy_postprocessor.json"
NORMALISE = {BEFORE: 3, AFTER: 0}  # where the step stands in the list
INERT = {
    "drop_n_last_frames": 7,
    "crop_is_random": True,
    "pretrained_backbone_weights": "ResNet18_Weights.IMAGENET1K_V1",
    "do_mask_loss_for_padding": True,
    "gradient_checkpointing": True,
    "compile_model": True,
    "compile_mode": "max-autotune",
    "optimizer_lr": 3e-4,
    "optimizer_betas": [0.9, 0.99],
    "optimizer_eps": 1e-6,
    "optimizer_weight_decay": 0.1,
    "scheduler_name": "constant",
    "scheduler_warmup_steps": 0,
    "device": "cuda",
    "use_amp": True,
    "push_to_hub": True,
    "repo_id": "somebody/policy",
    "private": True,
    "tags": ["robot"],
    "license": "mit",
    "pretrained_path": "somewhere",
    "pretrained_revision": "main",
    "use_relative_actions": False,
    "relative_exclude_joints": ["gripper"],
    "action_feature_names": ["x", "y"],
    "use_peft": False,
}


@pytest.fixture
def directory(tmp_path):
    shutil.copytree(WRITTEN, tmp_path / "policy")
    return tmp_path / "policy"


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def refused(directory):
    with pytest.raises(SpecpolicyError) as error:
        load_policy(directory)
    assert "\n" not in str(error.value) and str(directory) in str(error.value)
    return str(error.value)


def plan(directory, state=STATE):
    policy = load_policy(directory)
    observation = {state: torch.full((1, 2, 3), 0.3), ENVIRONMENT: torch.full((1, 2, 4), 0.2)}
    return policy.predict(observation, generator=torch.Generator().manual_seed(0)).actions


# -- config.json ---------------------------------------------------------------------------------------------------


def test_what_says_how_it_was_trained_changes_nothing(directory):
    before = plan(directory)
    edit(directory / "config.json", lambda config: config.update(INERT))
    assert torch.equal(plan(directory), before)


@pytest.mark.parametrize(
    "field, value",
    (
        ("use_relative_actions", True),
        ("use_peft", True),
        ("use_ema", True),
        ("variance_type", "fixed_large"),
        ("variance_type", "learned"),
        ("timestep_spacing", "trailing"),
        ("set_alpha_to_one", False),
        ("thresholding", True),
        ("rescale_betas_zero_snr", True),
        ("steps_offset", 1),
        ("temporal_ensemble_coeff", 0.01),
        ("rtc_config", {"enabled": True}),
        ("somebodys_own", 1),
        ("somebodys_own", None),
        ("horizons", 8),
        ("kernel_size", 3),
        ("down_dims", [8, 16]),
        ("diffusion_step_embed_dim", 16),
        ("use_film_scale_modulation", False),
        ("horizon", "eight"),
        ("clip_sample", "yes"),
        ("num_inference_steps", 2.5),
        ("normalization_mapping", {"STATE": "LOG"}),
        ("normalization_mapping", {"STATES": "MIN_MAX"}),
        ("input_shapes", {"observation.state": [3]}),
    ),
    ids=str,
)
def test_a_field_of_config_that_is_not_reproduced_is_refused_by_name(field, value, directory):
    edit(directory / "config.json", lambda config: config.update({field: value}))
    name = {"normalization_mapping": "LOG" if value == {"STATE": "LOG"} else "STATES"}.get(field, field)
    assert name in refused(directory)


@pytest.mark.parametrize(
    "key, feature, words",
    (
        (STATE, {"type": "ENV", "shape": [3]}, "type ENV"),
        ("observation.goal", {"type": "ENV", "shape": [4]}, "observation.goal"),
        (STATE, {"type": "STATE", "shape": [3, 1]}, "shape [3, 1]"),
        (STATE, {"type": "STATE", "shape": []}, "shape []"),
        ("observation.image", {"type": "VISUAL", "shape": [96, 96]}, "shape [96, 96]"),
        ("observation.text", {"type": "WORDS", "shape": [1]}, "observation.text"),
        (STATE, {"type": "STATE", "shape": [3], "relative_to": "base"}, "relative_to"),
    ),
    ids=str,
)
def test_a_feature_that_is_not_understood_is_refused_by_name(key, feature, words, directory):
    edit(directory / "config.json", lambda config: config["input_features"].update({key: feature}))
    assert words in refused(directory)


def test_the_first_versions_with_their_own_fields(tmp_path):
    """Of April and May 2024, before there were types of features."""
    config = {key: value for key, value in CONFIG.items() if not key.endswith("_features") and key != "type"}
    del config["normalization_mapping"]
    config |= {
        "input_shapes": {STATE: [3], ENVIRONMENT: [4]},
        "output_shapes": {"action": [2]},
        "input_normalization_modes": {STATE: "min_max"},
        "output_normalization_modes": {"action": "min_max"},
        "use_ema": False,
        "ema_power": 0.75,
        "lr": 1e-4,
        "lr_scheduler": "cosine",
        "adam_betas": [0.95, 0.999],
        "utd": 1,
    }
    load_policy(write_lerobot(tmp_path / "policy", config, tensors()[1], BUFFERS))
    edit(tmp_path / "policy" / "config.json", lambda c: c.update(use_ema=True))
    assert "use_ema" in refused(tmp_path / "policy")


@pytest.mark.parametrize("kind", ([], {}, 3, None, ["diffusion"], "act", "smolvla"), ids=str)
def test_a_policy_of_another_type(kind, directory):
    edit(directory / "config.json", lambda config: config.update(type=kind))
    assert "no diffusion policy" in refused(directory)


@pytest.mark.parametrize("executed, used", ((3, 3), (7, 7), (8, 7), (32, 7)))
def test_no_more_actions_are_executed_than_a_plan_has(executed, used, directory):
    """LeRobot cuts n_action_steps entries from the newest frame on out of its plan, and takes what there is."""
    edit(directory / "config.json", lambda config: config.update(n_action_steps=executed))
    assert load_policy(directory).n_action_steps == used


def test_weights_of_parts_that_are_not_known(tmp_path):
    weights = {**tensors()[1], "ema_diffusion.unet.final_conv.1.bias": torch.ones(2)}
    assert "ema_diffusion" in refused(write_lerobot(tmp_path, CONFIG, weights, BUFFERS))


# -- processors ----------------------------------------------------------------------------------------------------


def step(name, **config):
    return {"registry_name": name, "config": config}


def added(entry, file, at):
    def change(directory):
        edit(directory / file, lambda content: content["steps"].insert(at, entry))

    return change


def setting(file, **values):
    def change(directory):
        edit(directory / file, lambda content: content["steps"][NORMALISE[file]]["config"].update(values))

    return change


NO_STEPS = {  # in LeRobot they change nothing of a diffusion policy
    "relative actions off": (
        step("relative_actions_processor", enabled=False, exclude_joints=[], action_names=None),
        3,
    ),
    "their first name": (step("delta_actions_processor", enabled=False, exclude_joints=["g"], action_names=["g"]), 3),
    "off by default": (step("relative_actions_processor"), 3),
    "an axis for a batch": (step("to_batch_processor_observation"), 1),
    "nothing": ({"class": "lerobot.processor.pipeline.IdentityProcessorStep", "config": {}}, 0),
    "without settings": ({"registry_name": "to_batch_processor"}, 0),
    "another device": (step("device_processor", device="cuda", float_dtype="float32"), 4),
}


@pytest.mark.parametrize("name", NO_STEPS)
def test_a_step_that_does_nothing_changes_nothing(name, directory):
    before = plan(directory)
    added(NO_STEPS[name][0], BEFORE, NO_STEPS[name][1])(directory)
    assert torch.equal(plan(directory), before)


def test_absolute_actions_that_are_off_change_nothing(directory):
    before = plan(directory)
    added(step("absolute_actions_processor", enabled=False), AFTER, 1)(directory)
    assert torch.equal(plan(directory), before)


def test_settings_that_are_written_out_change_nothing(directory):
    before = plan(directory)
    setting(BEFORE, normalize_observation_keys=None, device="cpu", stats=None, dtype=None)(directory)
    assert torch.equal(plan(directory), before)


@pytest.mark.parametrize("file", (BEFORE, AFTER))
@pytest.mark.parametrize(
    "name",
    (
        "tokenizer_processor",
        "action_tokenizer_processor",
        "render_messages_processor",
        "smolvla_new_line_processor",
        "observation_processor",
        "image_crop_resize_processor",
        "libero_processor",
        "map_tensor_to_delta_action_dict",
        "map_delta_action_to_robot_action",
        "torch2numpy_action_processor",
        "gripper_penalty_processor",
        "joint_velocity_processor",
        "current_processor",
        "ee_reference_and_delta",
        "inverse_kinematics_ee_to_joints",
        "xvla_rotation_6d_to_axis_angle",
        "evo1_pad_state_processor",
        "molmoact2_clamp_action",
        "somebodys_own_processor",
    ),
)
def test_a_step_that_is_not_known_is_refused_by_name(name, file, directory):
    added(step(name), file, 1)(directory)
    message = refused(directory)
    assert f"'{name}'" in message and file in message


@pytest.mark.parametrize(
    "change, words",
    (
        (added(step("relative_actions_processor", enabled=True), BEFORE, 3), "relative_actions_processor.enabled"),
        (added(step("delta_actions_processor", enabled=True), BEFORE, 3), "delta_actions_processor.enabled"),
        (added(step("absolute_actions_processor", enabled=True), AFTER, 1), "absolute_actions_processor.enabled"),
        (
            added(step("absolute_actions_processor", enabled=False, by="base"), AFTER, 1),
            "absolute_actions_processor.by",
        ),
        (added(step("to_batch_processor", size=2), BEFORE, 1), "to_batch_processor.size"),
        (added(step("device_processor", float_dtype="float16"), BEFORE, 1), "device_processor.float_dtype"),
        (added(step("device_processor", float_dtype="bfloat16"), AFTER, 1), "device_processor.float_dtype"),
        (added(step("rename_observations_processor", rename_map={}), BEFORE, 1), "stands there twice"),
        (
            added(step("rename_observations_processor", rename_map={"a": "b"}), AFTER, 0),
            "rename_observations_processor",
        ),
        (added(step("unnormalizer_processor"), BEFORE, 1), "unnormalizer_processor"),
        (added(step("normalizer_processor"), AFTER, 1), "normalizer_processor"),
        (added({"class": "their.module.Step", "config": {}}, BEFORE, 0), "their.module.Step"),
        (added({"config": {}}, BEFORE, 0), "step 0"),
        (added("to_batch_processor", BEFORE, 0), "step 0"),
        (added({**step("to_batch_processor"), "artifacts": {"a": "b"}}, BEFORE, 0), "artifacts"),
        (added({**step("to_batch_processor"), "state_file": "x.safetensors"}, BEFORE, 0), "state file"),
        (setting(BEFORE, stats={STATE: {"min": [0.0]}}), "stats"),
        (setting(BEFORE, eps="small"), "eps"),
        (setting(BEFORE, clip=True), "normalizer_processor.clip"),
        (setting(AFTER, norm_map={"ACTION": "LOG"}), "norm_map.ACTION"),
        (setting(AFTER, norm_map={"ACTIONS": "MIN_MAX"}), "ACTIONS"),
        (setting(AFTER, dtype="float16"), "dtype"),
        (lambda d: edit(d / BEFORE, lambda c: c.update(version=2)), "version"),
        (lambda d: edit(d / BEFORE, lambda c: c.update(steps={})), "list of steps"),
        (lambda d: edit(d / BEFORE, lambda c: c["steps"][3].update(state_file="../x.safetensors")), "../x.safetensors"),
        (lambda d: edit(d / BEFORE, lambda c: c["steps"].reverse()), "behind"),
        (lambda d: edit(d / BEFORE, lambda c: c["steps"].pop(3)), "normalizer_processor"),
        (lambda d: edit(d / AFTER, lambda c: c["steps"].pop(0)), "unnormalizer_processor"),
        (lambda d: (d / AFTER).write_text("{"), "not valid JSON"),
    ),
)
def test_a_setting_of_a_step_that_is_not_reproduced_is_refused_by_name(change, words, directory):
    change(directory)
    assert words in refused(directory)


def renamed(directory, **names):
    edit(directory / BEFORE, lambda content: content["steps"][0]["config"].update(rename_map=names))


def test_observations_are_renamed_as_the_processor_says(directory):
    before = plan(directory)
    renamed(directory, joints=STATE, **{ENVIRONMENT: ENVIRONMENT, "observation.images.left": "observation.images.up"})
    policy = load_policy(directory)
    assert policy.observation_keys == ("joints", ENVIRONMENT)
    assert torch.equal(plan(directory, state="joints"), before)
    assert load_policy(policy.save(directory.parent / "ours")).observation_keys == ("joints", ENVIRONMENT)


@pytest.mark.parametrize("names", ({"a": STATE, "b": STATE}, {STATE: "elsewhere"}, {"a": 3}), ids=str)
def test_a_renaming_that_leaves_no_single_name(names, directory):
    renamed(directory, **names)
    assert "rename_map" in refused(directory)


def test_what_the_processor_does_not_know_passes_as_it_is(directory):
    """LeRobot normalises the features of the step, by the types that it has there, not those of config.json."""
    step_config = json.loads((directory / BEFORE).read_text())["steps"][3]["config"]
    features = {**step_config["features"], ENVIRONMENT: {"type": "STATE", "shape": [4]}}
    del features[STATE]
    setting(BEFORE, features=features)(directory)
    file = directory / "policy_preprocessor_step_3_normalizer_processor.safetensors"
    statistics = {f"{ENVIRONMENT}.min": torch.zeros(4), f"{ENVIRONMENT}.max": torch.full((4,), 4.0)}
    save_file(load_file(file) | statistics, file)
    cond = load_policy(directory).encode({STATE: torch.full((1, 2, 3), 5.0), ENVIRONMENT: torch.ones(1, 2, 4)})
    torch.testing.assert_close(cond, torch.tensor([[*[5.0] * 3, *[-0.5] * 4] * 2]))


def test_actions_are_multiplied_by_the_deviation_alone(directory):
    """LeRobot adds epsilon where it divides, not where it multiplies."""
    setting(AFTER, norm_map={"ACTION": "MEAN_STD"}, eps=0.5)(directory)
    file = directory / "policy_postprocessor_step_0_unnormalizer_processor.safetensors"
    save_file(load_file(file) | {"action.mean": torch.tensor([1.0, 2.0]), "action.std": torch.tensor([0.5, 0.0])}, file)
    raw = load_policy(directory).normaliser.unnormalise("action", torch.tensor([[1.0, 1.0], [-3.0, 0.0]]))
    torch.testing.assert_close(raw, torch.tensor([[1.5, 2.0], [-0.5, 2.0]]))


@pytest.mark.parametrize(
    "values", (torch.ones(2), torch.tensor([0.0, float("nan"), 1.0]), torch.ones(3, dtype=torch.int64)), ids=str
)
def test_statistics_that_do_not_fit(values, directory):
    file = directory / "policy_preprocessor_step_3_normalizer_processor.safetensors"
    save_file(load_file(file) | {f"{STATE}.min": values}, file)
    assert STATE in refused(directory)


# -- files that are missing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ((BEFORE,), (AFTER,), (BEFORE, AFTER)), ids=str)
def test_a_missing_processor_is_named_with_what_writes_it(missing, directory):
    for name in missing:
        (directory / name).unlink()
    message = refused(directory)
    assert all(name in message for name in missing)
    assert all(words in message for words in ("lerobot-train", "push_to_hub", "migrate_policy_normalization"))
    assert not any(f"no {name}" in message for name in {BEFORE, AFTER} - set(missing))


@pytest.mark.parametrize("missing", (BEFORE, AFTER))
def test_half_of_the_processors_beside_statistics_among_the_weights(missing, directory):
    write_lerobot(directory, CONFIG, tensors()[1], BUFFERS)
    (directory / missing).unlink()
    assert f"no {missing}" in refused(directory)


# -- output directories --------------------------------------------------------------------------------------------


def trained(root, use_for_eval=None, raw=True):
    """An output directory with averaged weights, which are those of `WRITTEN`, beside other ones."""
    checkpoint = root / "checkpoints" / "000100"
    shutil.copytree(WRITTEN, checkpoint / "pretrained_model_ema")
    if raw:
        shutil.copytree(WRITTEN, checkpoint / "pretrained_model")
        weights = load_file(checkpoint / "pretrained_model" / "model.safetensors")
        other = {name: value + 1 for name, value in weights.items()}
        save_file(other, checkpoint / "pretrained_model" / "model.safetensors")
    settings = {"enable": True} | ({} if use_for_eval is None else {"use_for_eval": use_for_eval})
    for directory in checkpoint.iterdir():
        (directory / "train_config.json").write_text(json.dumps({"ema": settings}))
    (checkpoint / "training_state").mkdir()
    torch.save({"decay": 0.9}, checkpoint / "training_state" / "ema_state.pt")
    (root / "checkpoints" / "last").symlink_to("000100")
    return root


@pytest.mark.parametrize("path", ("", "checkpoints/last", "checkpoints/000100"))
@pytest.mark.parametrize("use_for_eval", (None, True, False))
def test_the_weights_that_lerobot_evaluates_are_taken(path, use_for_eval, tmp_path):
    policy = load_policy(trained(tmp_path, use_for_eval) / path)
    averaged = use_for_eval is not False
    assert policy.config.source["weights"] == ("pretrained_model_ema" if averaged else "pretrained_model")
    same = torch.equal(policy.denoiser.final_conv[1].bias, load_policy(WRITTEN).denoiser.final_conv[1].bias)
    assert same == averaged


@pytest.mark.parametrize("name", ("pretrained_model", "pretrained_model_ema"))
def test_a_path_to_one_of_the_two_is_taken_as_it_is(name, tmp_path):
    path = trained(tmp_path) / "checkpoints" / "last" / name
    for given in (path, path / "model.safetensors", path / "config.json"):
        assert load_policy(given).config.source["weights"] == name


def test_convert_says_which_weights_it_took(tmp_path):
    from specpolicy.cli.convert import describe

    assert "'pretrained_model_ema'" in describe(load_policy(trained(tmp_path)))


def test_averaged_weights_alone(tmp_path):
    policy = load_policy(trained(tmp_path, use_for_eval=False, raw=False))
    assert policy.config.source["weights"] == "pretrained_model_ema"


@pytest.mark.parametrize(
    "damage, words",
    (
        (lambda d: (d / "config.json").unlink(), "config.json"),
        (lambda d: (d / "model.safetensors").unlink(), "model.safetensors"),
        (lambda d: (d / "train_config.json").write_text("{"), "train_config.json"),
        (lambda d: (d / "train_config.json").write_text('{"ema": {"use_for_eval": "no"}}'), "use_for_eval"),
    ),
)
def test_damaged_averaged_weights_are_not_replaced_by_the_others(damage, words, tmp_path):
    checkpoint = Path(trained(tmp_path)) / "checkpoints" / "last"
    damage(checkpoint / "pretrained_model_ema")
    assert words in refused(checkpoint)
