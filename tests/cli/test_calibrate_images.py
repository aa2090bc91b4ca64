"""`specpolicy calibrate` for a policy that sees: what it draws, encodes and keeps, and what the sampler then uses."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from specpolicy_envs import cameras

sys.path.append(str(Path(__file__).parents[1] / "samplers" / "speculative"))
from distribution_tests import innovation_p, innovations
from exactness_cases import CONTROLS

from specpolicy import Calibration, load_policy, sample
from specpolicy.cli import main
from specpolicy.evaluation.recording import record_conditions, record_histories
from specpolicy.networks.vision import VisionEncoder
from specpolicy.policy import DiffusionPolicy
from specpolicy.policy.histories import FILE, read_histories

pytestmark = pytest.mark.usefixtures("drawing")

SIDE, STEPS = 32, 12
TASK = {
    "name": "push_t",
    "id": "specpolicy/PushT-v0",
    "kwargs": {},
    "observation_keys": ["agent_pos", "top_image"],
    "cameras": ["top"],
    "camera_size": [SIDE, SIDE],
}
LITTLE = ["engine=eager", "count=40", "episodes=2", "max_seconds=4", "workers=0", "threads=1"]
LITTLE += ["chains=24", "invented=24", "rounds=16", "training_steps=20", "steps=[]", "student_blocks=0"]


@pytest.fixture
def steps():
    """Length of the policy's chain."""
    return STEPS


@pytest.fixture
def checkpoint(policy_config, steps, tmp_path):
    """An untrained policy that sees Push-T through its camera."""
    torch.manual_seed(0)
    one, two = {"scale": [2.0], "offset": [-1.0]}, {"scale": [1.0, 1.0], "offset": [0.0, 0.0]}
    config = {
        **policy_config,
        "chain": {"train_steps": steps, "steps": steps},
        "observation": {"top_image": [3, SIDE, SIDE], "agent_pos": 2},
        "vision": {"kind": "small", "widths": [8, 8, 8], "keypoints": 4, "features": 6, "crop": [28, 28]},
        "normaliser": {"top_image": one, "agent_pos": two, "action": {"scale": [4.0, 4.0], "offset": [0.0, 0.0]}},
        "control_hz": 10.0,
        "task": TASK,
    }
    return DiffusionPolicy.from_config(config).save(tmp_path / "policy")


@pytest.fixture
def counted(monkeypatch):
    """How many images were drawn, and how many encoded."""
    found = {"drawn": 0, "encoded": 0}
    draw, forward = cameras.Views.draw, VisionEncoder.forward

    def counting_draw(self, scene):
        found["drawn"] += 1
        return draw(self, scene)

    def counting_forward(self, images, *more):
        found["encoded"] += len(images)
        return forward(self, images, *more)

    monkeypatch.setattr(cameras.Views, "draw", counting_draw)
    monkeypatch.setattr(VisionEncoder, "forward", counting_forward)
    return found


def record(checkpoint, function, count, **options):
    return function(checkpoint, TASK, count, 300_000, episodes=2, max_seconds=4.0, **options)


def test_calibrated_on_what_it_sees_it_is_sampled_exactly(checkpoint, capsys):
    assert main(["calibrate", f"policy={checkpoint}", *LITTLE, "held_out=200", "held_out_megabytes=0.04"]) == 0
    shown = capsys.readouterr().out
    assert "kept 6 observations of held_out=200: their images take 0.037 MB" in shown
    assert "encoding an observation:" in shown
    stored = load_file(checkpoint / FILE)
    assert stored["top_image"].dtype == np.uint8 and stored["top_image"].shape == (6, 2, SIDE, SIDE, 3)
    assert (checkpoint / FILE).stat().st_size < 40_000
    report = json.loads((checkpoint / "speculation.json").read_text())
    assert report["report"]["cpu"]["encode_seconds"] > 0 and report["student"]["blocks"] == 0
    policy = load_policy(checkpoint)
    assert policy.best_sampler == "recycled" and report["student"]["cond_dim"] == policy.encoder.output_dim
    seen = {key: torch.from_numpy(values) for key, values in read_histories(checkpoint / FILE, policy).items()}
    with torch.no_grad():
        cond = policy.encode(seen).repeat(50, 1)
    generator, shape = torch.Generator().manual_seed(2), (len(cond), *policy.sample_shape)
    bound = policy.bound("recycled")
    assert bound.setting.calibration is policy.calibration
    out = bound(len(cond), cond, generator, return_states=True)
    assert innovation_p(*innovations(policy.denoiser, policy.chain, out.states, cond)) > 1e-4
    assert int(out.stats.rejections.sum()) > 100 and float(out.stats.calls.double().mean()) < STEPS
    # The same test of a sampler that is not exact, for the same observations.
    redrawn = replace(CONTROLS["redraw after a rejection"], window=8)
    wrong = sample(policy.denoiser, policy.chain, shape, cond, redrawn, generator, return_states=True)
    assert innovation_p(*innovations(policy.denoiser, policy.chain, wrong.states, cond)) < 1e-10


@pytest.mark.parametrize("steps", (4,))  # plans take time by the length of a chain
def test_other_plans_are_made_and_benchmarks_read_what_is_kept(checkpoint, tmp_path):
    assert main(["calibrate", f"policy={checkpoint}", *LITTLE, "held_out=4", "student=false"]) == 0
    assert main(["calibrate", f"policy={checkpoint}", *LITTLE, "learn=false", "max_seconds=0.5"]) == 0
    assert Calibration.load(checkpoint).student is None
    arguments = ["benchmark", f"policy={checkpoint}", f"output={tmp_path / 'out'}", "count=3", "engine=eager"]
    assert main([*arguments, "samplers=[ddpm,recycled]"]) == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["samplers"][1]["label"] == "recycled"


def test_few_images_are_drawn_and_kept(checkpoint, counted):
    """Of 80 control steps, 6 observations are wanted: 12 are drawn at most, and what the policy acted on."""
    found = record(checkpoint, record_histories, 6)
    assert found["top_image"].shape == (6, 2, SIDE, SIDE, 3) and found["top_image"].dtype == np.uint8
    assert found["agent_pos"].dtype == np.float32
    acted = 2 * 2 * -(-40 // 4)  # frames of two episodes, a chunk every 4 control steps
    assert counted["drawn"] <= acted + 2 * 12


def test_conditions_are_those_of_the_observations_and_each_image_is_encoded_once(checkpoint, counted):
    count = 100  # all of both episodes
    conditions = record(checkpoint, record_conditions, count)
    # Played again, as two frames stand in each observation and the policy has seen those it acted on.
    assert counted["encoded"] == counted["drawn"] <= 2 * 41
    histories = record(checkpoint, record_histories, count)
    assert conditions.shape == (count, load_policy(checkpoint).encoder.output_dim)
    with torch.no_grad():
        expected = load_policy(checkpoint).encode({key: torch.from_numpy(value) for key, value in histories.items()})
    torch.testing.assert_close(conditions, expected, rtol=1e-5, atol=1e-6)
