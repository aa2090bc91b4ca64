"""The policy as users meet it: observations in, chunks in the environment's units out, saved and loaded."""

import copy
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import specpolicy
from specpolicy import Calibration, SpecpolicyError, load_policy, make_sampler
from specpolicy.policy import DiffusionPolicy
from specpolicy.policy.normaliser import Normaliser
from specpolicy.samplers.recycled.surrogates import GaussianSurrogate


def observation(batch=None, frames=2, seed=0):
    rng = np.random.default_rng(seed)
    lead = (frames,) if batch is None else (batch, frames)
    return {"position": rng.normal(size=(*lead, 2)), "object": rng.normal(size=(*lead, 3)).astype(np.float32)}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_predict_returns_chunks_in_the_units_of_the_environment(small_policy):
    out = small_policy.predict(observation(5), "ddpm", generator=seeded(), return_states=True)
    assert out.actions.shape == (5, 8, 2) and out.stats.calls.tolist() == [20] * 5
    low, high = torch.tensor([-2.0, 0.0]), torch.tensor([2.0, 8.0])  # where [-1, 1] lies in raw units
    assert bool((out.actions >= low - 1e-5).all() and (out.actions <= high + 1e-5).all())
    torch.testing.assert_close(small_policy.normaliser.normalise("action", out.actions), out.states[-1])


def test_one_observation_needs_no_batch_axis(small_policy):
    single = observation()
    batched = {key: value[None] for key, value in single.items()}
    first = small_policy.predict(single, generator=seeded()).actions
    assert torch.equal(first, small_policy.predict(batched, generator=seeded()).actions)
    tensors = {key: torch.as_tensor(value) for key, value in single.items()}
    assert torch.equal(first, small_policy.predict(tensors, generator=seeded()).actions)


def test_the_parts_make_the_whole(small_policy):
    cond = small_policy.encode(observation(2))
    parts = specpolicy.sample(small_policy.denoiser, small_policy.chain, (2, 8, 2), cond, generator=seeded())
    whole = small_policy.predict(observation(2), "ddpm", generator=seeded())
    torch.testing.assert_close(small_policy.normaliser.unnormalise("action", parts.actions), whole.actions)


def test_a_sampler_is_bound_once_and_anew_when_the_policy_changes(small_policy):
    recycled = make_sampler("recycled", window=[3] * 20)
    bound = {sampler: small_policy.bound(sampler) for sampler in ("ddpm", "recycled")}
    own = small_policy.bound(recycled)
    for _ in range(2):
        small_policy.predict(observation(), "recycled", seeded())
        assert all(small_policy.bound(sampler) is one for sampler, one in bound.items())
        assert small_policy.bound(make_sampler("recycled", window=[3] * 20)) is own
    for other in (copy.copy(small_policy), pickle.loads(pickle.dumps(small_policy))):
        assert other.bound("ddpm") is not bound["ddpm"] and small_policy.bound("ddpm") is bound["ddpm"]
    faster = small_policy.with_engine("eager")
    assert faster.bound("ddpm").setting.model.denoiser is faster.engine
    assert small_policy.bound("ddpm").setting.model.denoiser is small_policy.denoiser
    small_policy.calibration = Calibration(
        GaussianSurrogate(small_policy.chain.process.alpha_bar, small_policy.sample_shape, 10)
    )
    assert small_policy.bound("recycled") is not bound["recycled"]
    assert small_policy.bound("recycled").setting.calibration is small_policy.calibration
    for window in range(1, 40):  # not without end
        small_policy.bound(make_sampler("asd", window=window))
    assert small_policy.bound("recycled").setting.calibration is small_policy.calibration


@pytest.mark.parametrize("engine", (None, "eager"))
def test_a_sampler_of_a_policy_draws_what_the_policy_predicts(small_policy, engine):
    seen = observation()
    for name, options in (("recycled", {"window": 4}), ("block", {}), ("ddim", {"steps": 3}), (None, {})):
        bound = small_policy.sampler(name, engine=engine, **options)
        sampler = make_sampler(name or "block", **options)
        expected = small_policy.predict(seen, sampler, seeded(1), return_states=True)
        found = bound(seen, generator=seeded(1), return_states=True)
        assert torch.equal(found.actions, expected.actions) and torch.equal(found.states, expected.states)
        assert bound.options == sampler and bound.name == sampler.name
        assert bound.engine == small_policy.engine_name == "eager"
        assert small_policy.sampler(sampler, engine=engine).options == sampler


def test_a_sampler_of_a_policy_is_refused_by_name_option_or_engine(small_policy):
    for arguments, options, word in (
        (("recycld",), {}, "did you mean 'recycled'"),
        (("recycled",), {"windw": 3}, "did you mean 'window'"),
        ((make_sampler("block"),), {"window": 3}, "options are given with a name"),
        (("block",), {"engine": "opnvino"}, "did you mean 'openvino'"),
        (("recycled",), {"eta": 0.0, "steps": 4}, "adds no noise"),
    ):
        with pytest.raises(SpecpolicyError, match=word):
            small_policy.sampler(*arguments, **options)


def test_the_executed_part_starts_at_the_newest_observation(small_policy):
    chunk = torch.arange(8.0).reshape(1, 8, 1).expand(1, 8, 2)
    assert small_policy.executable(chunk)[0, :, 0].tolist() == [1, 2, 3, 4]
    assert torch.equal(small_policy.executable(chunk[0]), small_policy.executable(chunk)[0])
    for wrong in (chunk[0, :, 0], chunk[:, :4]):
        with pytest.raises(SpecpolicyError, match="no chunks of 8 actions"):
            small_policy.executable(wrong)


def test_observations_of_different_batch_sizes_are_refused(small_policy):
    keys = small_policy.observation_keys
    mixed = {key: value[: 2 - (key == keys[0])] for key, value in observation(2).items()}
    with pytest.raises(SpecpolicyError, match="one batch size"):
        small_policy.predict(mixed)


@pytest.mark.parametrize("device", ("abacus", "cuda:77"))
def test_a_device_that_is_not_there(small_policy, tmp_path, device):
    small_policy.save(tmp_path)
    with pytest.raises(SpecpolicyError, match=f"device={device} cannot be used here"):
        specpolicy.load_policy(tmp_path, device)


@pytest.mark.parametrize("dtype, tolerance", ((torch.float32, 0.0), (torch.float16, 2e-3)))
def test_save_and_load(small_policy, tmp_path, dtype, tolerance):
    small_policy.save(tmp_path / "policy", dtype)
    loaded = load_policy(tmp_path / "policy")
    for name, value in small_policy.denoiser.state_dict().items():
        torch.testing.assert_close(loaded.denoiser.state_dict()[name], value, rtol=tolerance, atol=tolerance)
    assert loaded.config.task == {"name": "toy"} and loaded.observation_keys == ("position", "object")
    if dtype is torch.float32:
        ours, theirs = (p.predict(observation(), generator=seeded()).actions for p in (small_policy, loaded))
        assert torch.equal(ours, theirs)
    assert sorted(path.name for path in (tmp_path / "policy").iterdir()) == ["config.json", "model.safetensors"]


def test_transformer_policies_work_too(policy_config, tmp_path):
    policy_config["network"] = {"kind": "transformer", "n_layer": 1, "n_head": 2, "n_emb": 16}
    policy = DiffusionPolicy.from_config(policy_config)
    policy.save(tmp_path)
    out = load_policy(tmp_path).predict(observation(3), sampler="ddim", generator=seeded())
    assert out.actions.shape == (3, 8, 2)


@pytest.mark.parametrize(
    "change, word",
    (
        (lambda o: o.pop("object"), "no key 'object'"),
        (lambda o: o.update(object=np.zeros((2, 4))), "shape"),
        (lambda o: o.update(object=np.zeros((1, 3, 3))), "shape"),
    ),
)
def test_a_bad_observation_is_one_clear_line(small_policy, change, word):
    bad = observation()
    change(bad)
    with pytest.raises(SpecpolicyError, match=word):
        small_policy.predict(bad)


@pytest.mark.parametrize(
    "change, word",
    (
        (
            lambda c: c["network"].update(down_dims=[16, 32, 48, 64], kind="unet") or c.update(horizon=12),
            "multiple of 8",
        ),
        (lambda c: c["network"].update(kind="mlp"), "network.kind. is .mlp."),
        (lambda c: c["network"].update(depth=3), "depth"),
        (lambda c: c.update(n_action_steps=8), "too short"),
    ),
)
def test_an_impossible_configuration_is_one_clear_line(policy_config, change, word):
    change(policy_config)
    with pytest.raises(SpecpolicyError, match=word):
        DiffusionPolicy.from_config(policy_config)


def damage(directory, how):
    config, weights = directory / "config.json", directory / "model.safetensors"
    if how == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif how == "no weights":
        weights.unlink()
    elif how == "no config":
        config.unlink()
    elif how == "bad json":
        config.write_text("{")
    elif how == "no chain":
        config.write_text(json.dumps({k: v for k, v in json.loads(config.read_text()).items() if k != "chain"}))
    elif how == "other network":
        changed = json.loads(config.read_text())
        changed["network"]["down_dims"] = [16, 48]
        config.write_text(json.dumps(changed))
    elif how == "newer format":
        config.write_text(json.dumps({**json.loads(config.read_text()), "format": 99}))


@pytest.mark.parametrize(
    "how", ("truncated", "no weights", "no config", "bad json", "no chain", "other network", "newer format")
)
def test_a_damaged_checkpoint_is_one_clear_line(small_policy, tmp_path, how):
    small_policy.save(tmp_path)
    damage(tmp_path, how)
    with pytest.raises(SpecpolicyError) as error:
        load_policy(tmp_path)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_no_checkpoint_there(tmp_path):
    with pytest.raises(SpecpolicyError, match="no policy at"):
        load_policy(tmp_path / "absent")


@given(st.lists(st.tuples(st.floats(-100, 100), st.floats(1e-2, 100)), min_size=1, max_size=5))
def test_min_max_maps_the_range_to_plus_minus_one_and_back(dimensions):
    low = torch.tensor([start for start, _ in dimensions], dtype=torch.float64)
    high = low + torch.tensor([width for _, width in dimensions], dtype=torch.float64)
    normaliser = Normaliser.min_max({"x": (low, high)})
    ends = torch.stack([low, high]).float()
    tolerance = 1e-6 * float((ends.abs().amax(0) / (high - low)).max()) + 1e-5
    expected = torch.stack([-torch.ones(len(low)), torch.ones(len(low))])
    torch.testing.assert_close(normaliser.normalise("x", ends), expected, rtol=0, atol=tolerance)
    again = Normaliser.from_config(normaliser.to_config())
    torch.testing.assert_close(again.unnormalise("x", again.normalise("x", ends)), ends, rtol=1e-4, atol=1e-3)


def test_a_constant_dimension_is_shifted_not_scaled():
    normaliser = Normaliser.min_max({"x": (torch.tensor([3.0, 0.0]), torch.tensor([3.0, 2.0]))})
    assert normaliser.normalise("x", torch.tensor([3.0, 1.0])).tolist() == [0.0, 0.0]
    assert normaliser.normalise("x", torch.tensor([3.5, 1.0])).tolist() == [0.5, 0.0]


def test_every_public_name_is_there_and_help_and_the_control_loop_do_without_torch():
    assert all(hasattr(specpolicy, name) for name in specpolicy.__all__)
    assert set(specpolicy.__all__) <= set(dir(specpolicy))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = specpolicy.nothing
    code = (
        "import sys, specpolicy.control; from specpolicy.cli import main; "
        "assert main(['--help']) == 0; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_the_quick_sampler_takes_no_more_steps_than_there_are(policy_config):
    policy = DiffusionPolicy.from_config({**policy_config, "chain": {"train_steps": 4, "steps": 4}})
    assert policy.quick_sampler == "ddim-4"
    policy.bound(policy.quick_sampler)
    assert DiffusionPolicy.from_config(policy_config).quick_sampler == "ddim-10"
