"""Demonstrations are recorded, a policy learns from their images, and it is evaluated: three commands."""

import json

import pytest

from specpolicy.cli import main

SIZE = "task.camera_size=[48,48]"
SMALL = [
    "policy=unet_image",
    "policy.vision.kind=small",
    "policy.vision.crop=[40,40]",
    "policy.network.down_dims=[16,32]",
]


@pytest.mark.usefixtures("drawing")
def test_from_images_recorded_to_a_policy_evaluated(tmp_path, capsys):
    data, run, report = tmp_path / "push.hdf5", tmp_path / "run", tmp_path / "evaluation"
    cameras = ["task.cameras=[top]", SIZE]
    assert main(["collect", "task=push_t", *cameras, "episodes=2", f"output={data}"]) == 0
    learn = ["steps=4", "batch_size=8", "policy.chain.train_steps=10", "policy.chain.steps=10", "threads=1"]
    rollout = ["rollout_every=4", "rollout_episodes=1", "rollout_seconds=0.5"]
    assert main(["train", "task=push_t", *SMALL, *learn, *rollout, f"data={data}", f"output={run}"]) == 0
    config = json.loads((run / "config.json").read_text())
    assert config["observation"] == {"agent_pos": 2, "top_image": [3, 48, 48]}  # and not where the T is
    play = ["episodes=1", "max_seconds=1", "samplers=[ddpm,block]", "engine=eager", "workers=0", f"output={report}"]
    assert main(["evaluate", "task=push_t", f"policy={run}", *cameras, *play]) == 0
    assert (report / "report.html").exists()
    capsys.readouterr()
    assert main(["evaluate", "task=push_t", f"policy={run}", *play[:-1], f"output={tmp_path / 'blind'}"]) == 2
    assert "task.cameras=[top]" in (line := capsys.readouterr().err) and line.count("\n") == 1
