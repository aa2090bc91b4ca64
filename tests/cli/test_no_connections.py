"""No verb reaches for another machine, nor starts a program that could, unless it was asked to."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from specpolicy.policy import DiffusionPolicy

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parent / "evaluation"  # where drift_env.py, a task without a simulator, lies

# Programs that only look at this machine: its name, its libraries and fonts; how glfw asks a library for its version,
# and numpy.testing, which numba imports, for the processor's.
LOCAL = ("('uname'", "('lscpu'", "('/sbin/ldconfig'", "('fc-list'", "gcc'", "ld'", "def get_version(library_handle)")


@pytest.fixture
def verbs(policy_config, tmp_path, write_demonstrations):
    """A cheap call of each verb that works without another machine."""
    pytest.importorskip("robomimic")
    torch.manual_seed(0)
    policy_config["chain"] = {"train_steps": 6, "steps": 6}
    policy_config.pop("task")
    policy = DiffusionPolicy.from_config(policy_config).save(tmp_path / "policy")
    seen = {
        key: np.random.default_rng(0).normal(size=(30, 2, size)).astype(np.float32)
        for key, size in (("position", 2), ("object", 3))
    }
    save_file(seen, tmp_path / "seen.safetensors")
    data = write_demonstrations(tmp_path / "pendulum.hdf5")
    task = "task=gym task.name=drift task.id=drift_env:Drift-v0"
    seen, network = f"observations={tmp_path}/seen.safetensors", "down_dims=[8,16]"
    lines = f"""
        collect task=push_t episodes=1 workers=0 output={tmp_path}/demonstrations.hdf5
        train task=gym task.id=Pendulum-v1 data={data} policy.network.{network} policy.horizon=8 \
            policy.n_action_steps=4 steps=2 batch_size=8 output={tmp_path}/run
        calibrate policy={policy} {seen} chains=24 invented=24 rounds=16 training_steps=4 steps=[] held_out=0
        train_drafter policy={policy} {seen} {network} chains=24 training_steps=4
        evaluate {task} policy={policy} samplers=[ddim-4] episodes=1 videos=0 workers=0 output={tmp_path}/evaluation
        evaluate shard=1/1 {task} policy={policy} samplers=[ddim-4] episodes=1 videos=0 workers=0 \
            record_actions=true output={tmp_path}/parts
        merge out={tmp_path}/parts
        replay path={tmp_path}/parts output={tmp_path}/replay
        benchmark policy={policy} samplers=[ddpm,block] count=1 engine=openvino {seen} output={tmp_path}/benchmark
        rollout {task} policy={policy} video=false output={tmp_path}/rollout
        control {task} policy={policy} max_seconds=0.2 worker=thread output={tmp_path}/control
        convert path={policy} out={tmp_path}/converted
    """
    return [shlex.split(line) for line in lines.strip().splitlines()]


def test_no_verb_connects_to_anything(verbs, tmp_path):
    pytest.importorskip("openvino")  # whose telemetry does, unless it is kept from it
    (tmp_path / "verbs.json").write_text(json.dumps(verbs))
    home = tmp_path / "home"
    home.mkdir()
    # Neither a test run nor a continuous one: that is when telemetry keeps quiet by itself.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CI", "PYTEST"))}
    environment |= {"HOME": str(home), "MPLCONFIGDIR": str(tmp_path / "matplotlib")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ENVIRONMENTS), environment.get("PYTHONPATH", "")])
    command = [sys.executable, str(HERE / "quiet_verbs.py"), str(tmp_path / "verbs.json")]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found["codes"]) == len(verbs) == 12
    assert set(found["codes"].values()) == {0}, (found["codes"], done.stderr[-2000:])
    reached = [one for one in found["seen"] if not any(program in one[2] for program in LOCAL)]
    assert reached == [], "\n".join(map(str, reached))
    assert not [path for path in home.rglob("*") if "openvino" in path.name or "intel" in path.name]
