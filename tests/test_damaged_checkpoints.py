"""A damaged checkpoint loads to a policy that plans, or is refused on one line that names the file. Nothing else."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parent))
from damage import FILES, TENSORS, VALUES, damage_tensor, damaged_json, fields

from specpolicy import SpecpolicyError, load_policy
from specpolicy.policy import DiffusionPolicy, PolicyConfig, TokenPolicy
from specpolicy.policy.draft_models import DraftModels, read_draft_models
from specpolicy.policy.histories import read_histories, write_histories
from specpolicy.samplers import Calibration
from specpolicy.samplers.recycled.calibration.calibration import Plan, read_calibration
from specpolicy.samplers.recycled.surrogates import GaussianSurrogate, StudentSurrogate
from specpolicy.tokens.calibration import DecoderCalibration, TokenCalibration, read_token_calibration
from specpolicy.tokens.graph import DraftGraph

SIZES = {"position": 2, "object": 1}
COMMON = {
    "observation": SIZES,
    "action_dim": 7,
    "horizon": 4,
    "n_obs_steps": 2,
    "n_action_steps": 2,
    "first_action": 1,
    "normaliser": {
        "position": {"scale": [2.0, 0.5], "offset": [0.0, 1.0], "shift": [0.0, 0.5]},
        "object": {"scale": [1.0], "offset": [0.0]},
        "action": {"scale": [0.5] * 7, "offset": [0.0] * 7},
    },
    "task": {"name": "toy", "kwargs": {}},
    "command": "specpolicy train",
    "source": {"project": "lerobot"},
}
CHAIN = {
    "train_steps": 3,
    "steps": 3,
    "beta_schedule": "linear",
    "variance": "fixed_small",
    "prediction": "epsilon",
    "clip": 1.0,
    "spacing": "trailing",
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "offset": 0,
}
UNET = {
    "kind": "unet",
    "diffusion_step_embed_dim": 4,
    "down_dims": [8],
    "kernel_size": 3,
    "n_groups": 8,
    "cond_predict_scale": True,
}
ATTENTION = {"n_layer": 1, "n_head": 1, "n_emb": 4, "p_drop_emb": 0.0, "p_drop_attn": 0.0, "causal_attn": True}
DIT = {
    "kind": "dit",
    "hidden_dim": 4,
    "num_layers": 1,
    "num_heads": 1,
    "timestep_embed_dim": 4,
    "use_positional_encoding": True,
    "use_rope": True,
    "rope_base": 100.0,
    "dropout": 0.0,
}
CONFIGS = {
    "unet": {
        **COMMON,
        "network": UNET,
        "chain": {**CHAIN, "ddim": {"eta": 1.0, "reuse_epsilon": True}},
        "conditioning": "global",
        "rotations": {"1": "axis_angle"},
    },
    "inpainting": {**COMMON, "network": UNET, "chain": CHAIN, "conditioning": "inpainting"},
    "transformer": {**COMMON, "network": {"kind": "transformer", **ATTENTION, "n_cond_layers": 1}, "chain": CHAIN},
    "encoder_transformer": {**COMMON, "network": {"kind": "encoder_transformer", **ATTENTION}, "chain": CHAIN},
    "dit": {**COMMON, "network": DIT, "chain": CHAIN},
    "tokens": {
        **COMMON,
        "network": {"kind": "masked_transformer", "n_layer": 1, "n_head": 1, "n_emb": 4, "dropout": 0.0},
        "tokens": {
            "kind": "quantile",
            "bins": 2,
            "centres": [[0.0, 1.0]] * 7,
            "low": [0.0] * 7,
            "high": [1.0] * 7,
        },
    },
}


def save(kind, directory, beside=""):
    """A small valid checkpoint, and what the file `beside` belongs to."""
    torch.manual_seed(0)
    policy = (TokenPolicy if kind == "tokens" else DiffusionPolicy).from_config(CONFIGS[kind])
    policy.save(directory)
    write_histories(directory / "observations.safetensors", histories())
    if beside == "drafts.json":
        graphs = {28: DraftGraph((((0, 0),), ((0, 0), (1, 1))), (1.0, 0.5))}
        found = DecoderCalibration("graph", {"cpu": 2}, graphs, {"calls": {"0": 28.0}})
        decoders, costs = {"max_probability, 1 a step, sampled": found}, {"cpu": {1: 0.1}}
        TokenCalibration(28, 2, decoders, costs, {}, policy.fingerprint).save(directory)
    if beside.startswith("speculation"):
        alpha_bar, shape = policy.chain.process.alpha_bar, policy.sample_shape
        student = StudentSurrogate(alpha_bar, shape, 6, width=4, context=2, hidden=4, observation=128, blocks=1)
        plans = {"cpu": {3: Plan([2, 1, 1], 1, True, 2.0, 0.1)}}
        prior = GaussianSurrogate(alpha_bar, shape, 6)
        Calibration(prior, student, 2, plans, {"a": 1}, policy.fingerprint).save(directory)
        weights = load_file(directory / "speculation.safetensors")
        assert {torch.int8, torch.float16, torch.bfloat16} <= {value.dtype for value in weights.values()}
        weights["directions"] = torch.eye(28)[:2].half().clone()  # as in older files, where nothing uses it any more
        save_file(weights, directory / "speculation.safetensors")
    if beside.startswith("drafters"):
        models = DraftModels(fingerprint=policy.fingerprint)
        models.add("independent", action_dim=7, cond_dim=6, down_dims=[8], embed_dim=4)
        models.add("corrected", horizon=4, action_dim=7, cond_dim=6, train_steps=3, width=4)
        models.save(directory)


def histories(count=2):
    return {key: torch.linspace(0, 1, count * 2 * size).view(count, 2, size).numpy() for key, size in SIZES.items()}


READERS = {"speculation": read_calibration, "drafters": read_draft_models, "drafts": read_token_calibration}


def use(directory, file, policy):
    """What the policy in a directory plans, and of what shape that must be.

    Of a file beside it, its reader alone is asked: `load_policy` asks it, too, and has read the policy before.
    """
    reader = READERS.get(file.partition(".")[0])
    if reader is None:
        policy = load_policy(directory)
    elif reader is read_draft_models:
        policy.draft_models = reader(directory)
    else:
        policy.calibration = reader(directory)
    seen = read_histories(directory / "observations.safetensors", policy) if file in MODEL else histories()
    sampler = "confidence" if isinstance(policy, TokenPolicy) else "ddpm" if policy.calibration is None else "recycled"
    chunk = policy.predict(seen, sampler, torch.Generator().manual_seed(0)).actions
    return chunk, (2, policy.horizon, policy.action_dim)


def problem(directory, file, policy, what):
    """What is wrong with how a damage is met; None if nothing is."""
    try:
        actions, shape = use(directory, file, policy)
    except SpecpolicyError as error:
        text = str(error)
        named = str(directory) in text or "not finite" in text or "calibration" in text
        return None if named and text.isprintable() and len(text) < 1000 else f"{what}: {text!r}"
    except Exception as error:
        return f"{what}: {type(error).__name__}: {error}"
    if tuple(actions.shape) != shape or not torch.isfinite(actions).all():
        return f"{what}: loads, and plans {tuple(actions.shape)}, finite: {torch.isfinite(actions).all()}"
    return None


def restore(path, content):
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def check(directory, file, damage, cases):
    """Damage a file in each way; list what is not met as it should be."""
    policy = load_policy(directory)
    whole, wrong = (directory / file).read_bytes(), []
    for name, case in cases:
        if damage(directory / file, case) is not False:
            wrong.append(problem(directory, file, policy, f"{file}, {name}"))
            restore(directory / file, whole)
    assert problem(directory, file, policy, "whole") is None
    assert not any(wrong), "\n" + "\n".join(filter(None, wrong))


MODEL = ("config.json", "model.safetensors", "observations.safetensors")
BESIDE = ("speculation.json", "speculation.safetensors", "drafters.json", "drafters.safetensors")
# What is read alike, whatever the network, and how deep it is looked into.
LEVELS = {"task": 2, "command": 2, "source": 2, "normaliser": 9}
JSON = [
    *((kind, "config.json") for kind in CONFIGS),
    ("unet", "speculation.json"),
    ("unet", "drafters.json"),
    ("tokens", "drafts.json"),
]
WEIGHTS = [
    *((kind, "model.safetensors") for kind in CONFIGS),
    ("unet", "speculation.safetensors"),
    ("unet", "drafters.safetensors"),
    ("unet", "observations.safetensors"),
]


@pytest.mark.parametrize("kind, file", JSON)
def test_every_value_of_a_json_file(kind, file, tmp_path):
    save(kind, tmp_path, beside=file)
    content = json.loads((tmp_path / file).read_text())
    paths = [
        path for path in fields(content) if path[0] not in LEVELS or (kind == "unet" and len(path) < LEVELS[path[0]])
    ]

    def damage(path, case):
        text = damaged_json(content, *case)
        return False if text is None else path.write_text(text)

    cases = [(f"{'.'.join(map(str, path))} {how}", (path, how)) for path in paths for how in VALUES]
    check(tmp_path, file, damage, cases)


@pytest.mark.parametrize("kind, file", WEIGHTS)
def test_every_tensor(kind, file, tmp_path):
    save(kind, tmp_path, beside=file)
    with safe_open(tmp_path / file, "pt") as tensors:
        names = list(tensors.keys())
    # Every tensor is looked at; in all ways those of a few kinds: the first ones, and masks, which hold infinities.
    thorough = [*names[:2], *(name for name in names if "mask" in name)]
    cases = [(f"{name} {how}", (name, how)) for name in names for how in (TENSORS if name in thorough else ("NaN",))]
    check(tmp_path, file, lambda path, case: damage_tensor(path, *case), [*cases, ("one more", (None, ""))])


@pytest.mark.parametrize("file", (*MODEL, *BESIDE, "drafts.json"))
def test_a_file_that_is_none(file, tmp_path):
    kind = "tokens" if file == "drafts.json" else "unet"
    save(kind, tmp_path, beside=file)
    check(tmp_path, file, lambda path, case: FILES[case](path), [(name, name) for name in FILES])


def normalised(**changes):
    return {"normaliser": {**COMMON["normaliser"], **changes}}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"first_action": -1}, "first_action is -1: it must be a number from 0"),
        ({"n_action_steps": 0}, "n_action_steps is 0: it must be a number from 1"),
        ({"n_action_steps": -3}, "n_action_steps is -3"),
        ({"horizon": 10**9}, "horizon is 1000000000"),
        ({"horizon": 3, "first_action": 2}, "horizon=3 is too short"),
        ({"format": "1"}, "'format' is '1': it must be 1"),
        ({"format": True}, "'format' is True: it must be 1"),
        ({"format": 2}, "has format 2, this specpolicy reads up to 1: upgrade it"),
        ({"horison": 4}, "unknown key 'horison'; did you mean 'horizon'?"),
        ({"network": {**UNET, "down_dims": [10**9]}}, "down_dims is 1000000000"),
        ({"network": {**UNET, "down_dims": [65536]}}, "the weights do not fit the configuration"),
        ({"network": {**UNET, "kind": "unit"}}, "'network.kind' is 'unit'; did you mean 'unet'?"),
        ({"rotations": {"3": "euler_xyz"}}, "rotations: entries 3 to 8 of an action of 7 numbers do not exist"),
        ({"rotations": {"1": "euler"}}, "'rotations.1' is 'euler'; did you mean 'euler_xyz'?"),
        ({"vision": {}}, "vision is there, but no image among the observations"),
        ({"observation": {"position": [3, 9, 9], "object": 1}}, "vision is missing"),
        ({"observation": {"position": 2}}, "the normaliser has 'object'"),
        ({"conditioning": "tokens"}, "a unet network has no conditioning 'tokens'"),
        ({"tokens": {"kind": "uniform", "bins": 4}}, "chain and tokens are both there"),
        ({"chain": {**CHAIN, "steps": 4}}, "steps is 4: it must be a number from 1 to 3"),
        ({"chain": {**CHAIN, "clip": -1.0}}, "clip is -1"),
        (normalised(object={"scale": [0.0], "offset": [0.0]}), "scale holds 0.0"),
        (normalised(object={"scale": [1.0, 1.0], "offset": [0.0]}), "has the shape [2]"),
        ({"normaliser": {"action": COMMON["normaliser"]["action"]}}, "the normaliser lacks 'position'"),
    ],
)
def test_what_is_wrong_is_named(change, message, tmp_path):
    save("unet", tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(SpecpolicyError) as error:
        load_policy(tmp_path)
    assert message in str(error.value) and str(tmp_path) in str(error.value)


IMAGES = {**COMMON, "network": UNET, "chain": CHAIN, "observation": {"position": [3, 32, 40], "object": 1}}
IMAGES |= {"normaliser": {**COMMON["normaliser"], "position": {"scale": [[[2.0]]], "offset": [-1.0]}}}
VISION = {
    "layers": 18,
    "group_norm": True,
    "keypoints": 4,
    "features": 8,
    "resize": [36, 40],
    "crop": [32, 32],
    "crop_offset": "floor",
    "shared": False,
}


def test_every_value_of_a_policy_with_images():
    content, wrong = {**IMAGES, "vision": VISION}, []
    assert DiffusionPolicy.expected_weights(PolicyConfig.parse(content))
    for path in fields({"vision": VISION, **{name: content[name] for name in ("observation", "normaliser")}}):
        for how in VALUES:
            text = damaged_json(content, path, how)
            if text is None:
                continue
            try:
                DiffusionPolicy.expected_weights(PolicyConfig.parse(json.loads(text), "config.json"))
            except SpecpolicyError as error:
                wrong += [] if str(error).isprintable() else [f"{path} {how}: {error!r}"]
            except Exception as error:
                wrong.append(f"{path} {how}: {type(error).__name__}: {error}")
    assert not wrong, "\n" + "\n".join(wrong)
