"""The examples run as they stand."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
