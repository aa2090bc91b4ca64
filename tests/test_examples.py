"""The examples run as they stand. What they read of other projects: tests/integrations/test_foreign_examples.py."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from specpolicy import demo
from specpolicy.policy import DiffusionPolicy

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("with_policy", (False, True))
def test_a_robot_of_ones_own(with_policy, small_policy, tmp_path):
    arguments = [str(small_policy.save(tmp_path / "policy"))] if with_policy else []
    command = [sys.executable, str(ROOT / "examples" / "my_robot.py"), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "stopped at [" in done.stdout and "control at 20 Hz" in done.stdout
    assert ("10 network calls" in done.stdout) == with_policy


def test_a_robot_with_its_policy_elsewhere(small_policy, tmp_path):
    pytest.importorskip("websockets")
    from specpolicy.serving import PolicyServer, PolicyService, in_background

    with in_background(PolicyServer(PolicyService(small_policy, "ddim"), port=0)) as server:
        command = [sys.executable, str(ROOT / "examples" / "remote_robot.py"), f"ws://127.0.0.1:{server.port}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "a policy, sampled by ddim" in done.stdout and "10 network calls" in done.stdout
    assert "stopped after " in done.stdout and "control at 20 Hz" in done.stdout


def test_any_denoiser(tmp_path):
    command = [sys.executable, str(ROOT / "examples" / "any_denoiser.py")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    calls = {line.split()[0]: int(line.split()[1]) for line in done.stdout.splitlines()}
    assert calls["ddpm"] == 100 and all(calls[name] < 50 for name in ("asd", "block", "recycled"))


def test_the_head_of_a_vision_language_action_model(tmp_path):
    command = [sys.executable, str(ROOT / "examples" / "vla_head.py")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line for line in done.stdout.splitlines()}
    calls = {name: float(row.split()[1]) for name, row in rows.items()}
    assert calls["ddpm"] == calls["euler"] == 10 and calls["block"] <= 10 and calls["recycled"] < 8
    assert "(ancestral)" in rows["block"] and "(flow ODE)" in rows["euler"]


def your_policy(path, monkeypatch, capsys):
    """The lines of the table that the example prints of a checkpoint."""
    monkeypatch.setattr(sys, "argv", ["your_policy.py", str(path)])
    runpy.run_path(str(ROOT / "examples" / "your_policy.py"), run_name="__main__")
    return capsys.readouterr().out.splitlines()[1:-1]


def test_your_policy(small_policy, tmp_path, monkeypatch, capsys):
    """False alarm: 1e-3 of each sampler; all seeds are fixed."""
    place = small_policy.save(tmp_path / "policy")
    rows = your_policy(place, monkeypatch, capsys)
    assert [row.split()[0] for row in rows] == ["ddpm", "block"]
    assert rows[0].split()[1] == "20.0" and float(rows[1].split()[1]) < 20
    assert all("its own distribution" in row for row in rows)
    noises = demo.implied_noises
    monkeypatch.setattr(demo, "implied_noises", lambda *arguments: 1.1 * noises(*arguments))  # a tenth too much
    assert all("another distribution" in row for row in your_policy(place, monkeypatch, capsys))


def test_your_policy_without_noise(policy_config, tmp_path, monkeypatch, capsys):
    policy_config["chain"] = {"train_steps": 20, "steps": 10, "ddim": {"eta": 0.0}}
    place = DiffusionPolicy.from_config(policy_config).save(tmp_path / "policy")
    (row,) = your_policy(place, monkeypatch, capsys)
    assert row.split()[:2] == ["ddpm", "10.0"] and "nothing to speculate on" in row


@pytest.mark.parametrize(
    ("path", "words"), (("nowhere", "no policy at nowhere"), ("checkpoints/lift_tokens", "tokens"))
)
def test_your_policy_that_cannot_be(path, words, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit, match=words):
        your_policy(path, monkeypatch, capsys)


def test_policy_gradient(monkeypatch, capsys):
    """Tiny: two episodes of two chunks. The ratio is 1 until the weights move, and the gradient is there."""
    pytest.importorskip("mujoco")
    monkeypatch.setattr(sys, "argv", ["policy_gradient.py", str(ROOT / "checkpoints" / "push_t"), "2", "2", "1"])
    runpy.run_path(str(ROOT / "examples" / "policy_gradient.py"), run_name="__main__")
    words = capsys.readouterr().out.split()
    after = {name: float(words[words.index(name) + 1].strip(",%")) for name in ("start", "most", "gradient")}
    assert after["start"] == 1 and after["most"] < 1e-6 < after["gradient"]
    assert words[:1] == ["return"] and float(words[words.index("surrogate", words.index("gain")) + 1].strip(",")) > 0
