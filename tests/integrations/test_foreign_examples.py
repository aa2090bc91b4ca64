"""The example for a policy that one has runs as it stands, without the projects that wrote it and what they need."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from foreign_files import (
    FRAMES,
    lowdim_cfg,
    normaliser_weights,
    robomimic_cfg,
    unet,
    write_robomimic,
    write_workspace,
)

ROOT = Path(__file__).parents[2]
# Runs a script in an interpreter in which nothing but torch, numpy and safetensors can be imported.
ALONE = """
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"diffusers", "dill", "omegaconf", "hydra", "robomimic", "lerobot", "torchvision",
                                  "diffusion_policy", "einops", "gymnasium", "mujoco", "h5py"}:
            raise ImportError(f"refused: {name}")
sys.meta_path.insert(0, Refuse())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def diffusion_policy(directory):
    weights = {f"model.{name}": value for name, value in unet(2, global_cond_dim=FRAMES * 5).state_dict().items()}
    weights |= normaliser_weights({"obs": 5, "action": 2})
    return write_workspace(directory / "latest.ckpt", lowdim_cfg(), weights, weights)


def lerobot(directory):
    return ROOT / "tests" / "data" / "lerobot_state"


def robomimic(directory):
    shapes = {"object": [5]}
    nets = {f"noise_pred_net.{name}": value for name, value in unet(2, global_cond_dim=10).state_dict().items()}
    return write_robomimic(directory / "model.pth", robomimic_cfg(shapes), nets, shapes)


@pytest.mark.parametrize("project", (diffusion_policy, lerobot, robomimic))
def test_the_example_runs_on_torch_alone(project, tmp_path):
    torch.manual_seed(0)  # of the weights: an exact sampler is called another once in a thousand times
    script = ROOT / "examples" / "your_policy.py"
    command = [sys.executable, "-c", ALONE, str(script), str(project(tmp_path))]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    chain, ours, exact, actions = done.stdout.splitlines()
    assert chain.startswith("GaussianChain(") and " actions to execute" in actions
    assert ours.startswith("ddpm ") and exact.startswith("block ") and float(exact.split()[1]) < float(ours.split()[1])
    assert ours.count("its own distribution (p = ") == exact.count("its own distribution (p = ") == 1
