"""LeRobot's multi_task_dit: the denoiser alone, or with its encoders; what is refused."""

import json

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from dit_files import (
    ACTION,
    ACTIONS,
    CAMERA,
    CONFIG,
    FRAMES,
    HORIZON,
    LANGUAGE,
    OBS,
    STATE,
    STEPS,
    TOKENS,
    denoiser,
    named,
    towers,
    write_alone,
    write_processors,
    write_whole,
)
from foreign_files import write_lerobot

from specpolicy import SpecpolicyError, load_policy

KINDS = (
    {},
    {"use_rope": False},
    {"use_positional_encoding": True, "use_rope": False},
)
SCHEDULERS = {"DDPM": DDPMScheduler, "DDIM": DDIMScheduler}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def observation(batch=2, seed=3):
    source = seeded(seed)
    text = torch.tensor([5, 7, 9, 63, 63, 63, 63, 63, 63, 63])  # the largest token ends it and pads it
    return {
        STATE: torch.randn(batch, FRAMES, OBS, generator=source),
        CAMERA: (torch.rand(batch, FRAMES, 3, 40, 40, generator=source) * 255).to(torch.uint8),
        TOKENS: text.expand(batch, FRAMES, -1),
    }


def refused(directory):
    with pytest.raises(SpecpolicyError) as error:
        load_policy(directory)
    assert "\n" not in str(error.value) and str(directory) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_the_denoiser_alone(options, tmp_path):
    directory, network = write_alone(tmp_path, config=options, **options)
    policy = load_policy(directory)
    assert policy.observation_keys == ("condition",) and policy.first_action == FRAMES - 1
    assert "processors" in policy.config.source["encoders"] and len(policy.chain) == STEPS
    assert (policy.n_action_steps, policy.control_hz) == (5, None)
    frames = torch.randn(3, FRAMES, 11, generator=seeded())
    cond = policy.encode({"condition": frames})
    assert torch.equal(cond, frames.flatten(1))
    x, t = torch.randn(3, HORIZON, ACTIONS, generator=seeded(1)), torch.tensor([0, 7, 19])
    with torch.no_grad():
        torch.testing.assert_close(policy.denoiser(x, t, cond), network(x, t, cond))
    kept = load_policy(policy.save(tmp_path / "ours"))
    drawn = [one.predict({"condition": frames}, "block", seeded()) for one in (policy, kept)]
    assert torch.equal(drawn[0].actions, drawn[1].actions) and int(drawn[0].stats.calls.max()) < STEPS


@pytest.mark.parametrize(
    "changed",
    (
        {},
        {"prediction_type": "sample"},
        {"noise_scheduler_type": "DDIM"},
        {"noise_scheduler_type": "DDIM", "prediction_type": "sample", "num_inference_steps": 6},
        {"num_inference_steps": 7, "clip_sample_range": 2.0, "beta_schedule": "linear"},
        {"prediction_type": "sample", "clip_sample": False, "use_positional_encoding": True, "use_rope": False},
    ),
    ids=str,
)
def test_its_directory_draws_what_lerobots_loop_does(changed, tmp_path):
    """With the scheduler of diffusers that its settings name, noise by noise."""
    options = {name: value for name, value in changed.items() if name.startswith("use_")}
    directory, network = write_alone(tmp_path, config=changed, **options)
    policy, seen = load_policy(directory), torch.randn(2, FRAMES, 11, generator=seeded(1))
    settings = {"num_train_timesteps": STEPS, "beta_schedule": "squaredcos_cap_v2", "clip_sample": True, **changed}
    steps = settings.pop("num_inference_steps", STEPS)
    scheduler = SCHEDULERS[settings.pop("noise_scheduler_type", "DDPM")](
        **{name: value for name, value in settings.items() if name not in options}
    )
    scheduler.set_timesteps(steps)
    torch.manual_seed(3)
    expected = torch.randn(2, HORIZON, ACTIONS)
    with torch.no_grad():
        for t in scheduler.timesteps:
            output = network(expected, t.expand(2), seen.flatten(1))
            expected = scheduler.step(output, t, expected).prev_sample
    out = policy.predict({"condition": seen}, "ddpm", seeded(3))
    assert out.stats.calls.tolist() == [steps] * 2
    torch.testing.assert_close(policy.normaliser.normalise(ACTION, out.actions), expected, rtol=1e-4, atol=1e-4)


def test_actions_of_processors_and_a_denoiser_alone(tmp_path):
    """Towers of other sizes than the published ones: conditions come from outside, actions are in the robot's units."""
    directory, _ = write_alone(tmp_path)
    vision, language = towers()
    narrow = {name: value for name, value in named(denoiser(FRAMES * 11), vision, language).items()}
    write_lerobot(directory, {**CONFIG, "vision_encoder_name": "somebody/clip-tower"}, narrow)
    policy = load_policy(write_processors(directory, CONFIG))
    assert policy.observation_keys == ("condition",) and "somebody/clip-tower" in policy.config.source["encoders"]
    ends = policy.normaliser.unnormalise(ACTION, torch.stack([-torch.ones(ACTIONS), torch.ones(ACTIONS)]))
    torch.testing.assert_close(ends, torch.stack([torch.arange(4.0), torch.arange(4.0) + 2]))


@pytest.mark.parametrize("level", ("", "older"))
def test_observations_are_encoded_as_lerobot_does(level, tmp_path):
    directory, _, vision, language = write_whole(tmp_path, level)
    policy, seen = load_policy(directory), observation()
    assert policy.observation_keys == (STATE, CAMERA, TOKENS) and "encoders" not in policy.config.source
    images = (seen[CAMERA].float() / 255 - 0.5) / 0.25
    with torch.inference_mode():
        state = (seen[STATE] + 2) / 3 - 1
        looked = vision(images.flatten(0, 1)[..., 4:36, 4:36]).unflatten(0, (2, FRAMES))
        read = language(seen[TOKENS][:, -1])[:, None].expand(-1, FRAMES, -1)
        expected = torch.cat([state, looked, read], dim=-1).flatten(1)
        torch.testing.assert_close(policy.encode(seen), expected, rtol=1e-4, atol=1e-5)
        many = {key: value[:1].expand(12, *value.shape[1:]) for key, value in seen.items()}
        torch.testing.assert_close(policy.encode(many), expected[:1].expand(12, -1), rtol=1e-4, atol=1e-5)
        kept = load_policy(policy.save(tmp_path / "ours"))
        assert torch.equal(kept.encode(seen), policy.encode(seen))
        other = {**seen, TOKENS: seen[TOKENS].flip(-1)}
        assert (policy.encode(other) - expected).abs().max() > 1e-3
    assert policy.predict(seen, "block", seeded()).actions.shape == (2, HORIZON, ACTIONS)


def test_the_newest_text_counts_and_is_encoded_once(tmp_path, monkeypatch):
    policy, calls = load_policy(write_whole(tmp_path)[0]), []
    own = type(policy.encoder.language).forward
    monkeypatch.setattr(type(policy.encoder.language), "forward", lambda self, x: calls.append(len(x)) or own(self, x))
    seen = observation(1)
    changed = {**seen, TOKENS: torch.cat([seen[TOKENS][:, :1] + 0, seen[TOKENS][:, 1:]], dim=1)}
    changed[TOKENS][:, 0] = 1
    with torch.no_grad():
        assert torch.equal(policy.encode(seen), policy.encode(changed)) and calls == [1]


def test_the_processor_says_how_many_tokens_a_text_has(tmp_path):
    write_processors(write_whole(tmp_path)[0], CONFIG, tokens=7)
    policy = load_policy(tmp_path)
    assert tuple(policy.frame_shape(TOKENS)[1:]) == (7,)
    write_processors(tmp_path, CONFIG, tokens=0)
    with pytest.raises(SpecpolicyError, match="max_length"):
        load_policy(tmp_path)


@pytest.mark.parametrize("tokens", (torch.full((1, FRAMES, 10), 64), torch.full((1, FRAMES, 10), 0.5)), ids=str)
def test_numbers_that_are_no_tokens(tokens, tmp_path):
    policy = load_policy(write_whole(tmp_path)[0])
    with pytest.raises(SpecpolicyError, match="whole numbers from 0 to 63"):
        policy.encode({**observation(1), TOKENS: tokens})


@pytest.mark.parametrize(
    "config, words",
    (
        ({"num_layers": 3}, "num_layers=3"),
        ({"use_rope": False}, "use_rope=False"),
        ({"hidden_dim": 32}, "hidden_dim=32"),
        ({"num_heads": 3}, "num_heads=3"),
        ({"n_obs_steps": 3}, "n_obs_steps=3"),
        ({"output_features": {ACTION: {"type": "ACTION", "shape": [5]}}}, "[5]"),
        ({"output_features": {}}, "output_features"),
        ({"noise_scheduler_type": "EULER"}, "EULER"),
        ({"objective": "score"}, "objective"),
        ({"use_peft": True}, "use_peft"),
        ({"tokenizer_padding_side": "left"}, "tokenizer_padding_side"),
        ({"image_krop_shape": [3, 3]}, "image_krop_shape"),
        ({"horizon": 0}, "horizon"),
    ),
    ids=str,
)
def test_a_setting_that_contradicts_the_weights_or_is_not_known(config, words, tmp_path):
    assert words in refused(write_alone(tmp_path, config=config)[0])


def test_weights_of_parts_that_are_not_known(tmp_path):
    weights = named(denoiser(22))
    assert "'ema.x'" in refused(write_lerobot(tmp_path, CONFIG, {**weights, "ema.x": torch.ones(2)}))
    strange = {"observation_encoder.depth_encoder.weight": torch.ones(2)}
    assert "depth_encoder" in refused(write_lerobot(tmp_path, CONFIG, weights | strange))
    del weights["noise_predictor.time_mlp.3.bias"]
    assert "time_mlp.3.bias" in refused(write_lerobot(tmp_path, CONFIG, weights))


def test_one_processor_of_two(tmp_path):
    directory, *_ = write_whole(tmp_path)
    (directory / "policy_postprocessor.json").unlink()
    assert "no policy_postprocessor.json" in refused(directory)


def test_encoders_that_do_not_fit_the_denoiser(tmp_path):
    vision, language = towers()
    write_lerobot(tmp_path, CONFIG, named(denoiser(22), vision, language))
    assert f"{OBS + 768 + LANGUAGE.features} numbers a frame" in refused(write_processors(tmp_path, CONFIG))


def test_images_that_the_tower_is_not_made_for(tmp_path):
    directory, *_ = write_whole(tmp_path, config={"image_crop_shape": [24, 24]})
    assert "made for 32 x 32" in refused(directory)


def test_the_processor_may_not_pad_on_the_left(tmp_path):
    directory, *_ = write_whole(tmp_path)
    file = directory / "policy_preprocessor.json"
    content = json.loads(file.read_text())
    content["steps"][2]["config"]["padding_side"] = "left"
    file.write_text(json.dumps(content))
    assert "padding_side" in refused(directory)


def test_a_tokenizer_that_is_saved_beside_the_policy(tmp_path):
    """As LeRobot does from 0.6.2 on."""
    directory, *_ = write_whole(tmp_path)
    before = load_policy(directory)
    file = directory / "policy_preprocessor.json"
    content = json.loads(file.read_text())
    content["steps"][2]["config"]["tokenizer_name"] = "tokenizer"
    content["steps"][2]["artifacts"] = {"tokenizer_name": "tokenizer"}
    file.write_text(json.dumps(content))
    assert load_policy(directory).fingerprint == before.fingerprint
    content["steps"][4]["artifacts"] = {"statistics": "more"}
    file.write_text(json.dumps(content))
    assert "'normalizer_processor': its files 'artifacts' are not supported" in refused(directory)


def test_on_the_engine_that_is_fastest(tmp_path):
    """Which is measured on observations that are made up: texts among them."""
    policy = load_policy(write_whole(tmp_path)[0])
    fastest, seen = policy.with_engine("auto"), observation(1)
    with torch.no_grad():
        torch.testing.assert_close(fastest.encode(seen), policy.encode(seen), rtol=1e-3, atol=1e-3)


def test_on_another_engine(tmp_path):
    pytest.importorskip("openvino")
    policy = load_policy(write_whole(tmp_path)[0])
    other, seen = policy.with_engine("openvino"), observation(1)
    with torch.no_grad():
        torch.testing.assert_close(other.encode(seen), policy.encode(seen), rtol=1e-3, atol=1e-3)
    found, expected = (one.predict(seen, "ddpm", seeded()).actions for one in (other, policy))
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)
