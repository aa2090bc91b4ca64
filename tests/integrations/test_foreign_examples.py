"""The example for a policy that one has runs as it stands, without the projects that wrote it and what they need."""

import os
import subprocess
import sys
from pathlib import Path

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
# Runs a script for each of some files in an interpreter in which nothing but torch, numpy and safetensors can be
# imported. One for all of them, as it takes seconds to import torch.
ALONE = """
import runpy, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"diffusers", "dill", "omegaconf", "hydra", "robomimic", "lerobot", "torchvision",
                                  "diffusion_policy", "einops", "gymnasium", "mujoco", "h5py"}:
            raise ImportError(f"refused: {name}")
sys.meta_path.insert(0, Refuse())
script, *files = sys.argv[1:]
for file in files:
    sys.argv = [script, file]
    runpy.run_path(script, run_name="__main__")
    print("---")
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


def test_the_example_runs_on_torch_alone(tmp_path):
    files = []
    for project in (diffusion_policy, lerobot, robomimic):
        torch.manual_seed(0)  # of the weights: an exact sampler is called another once in a thousand times
        files.append(str(project(tmp_path)))
    command = [sys.executable, "-c", ALONE, str(ROOT / "examples" / "your_policy.py"), *files]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    *printed, rest = done.stdout.split("---\n")
    assert len(printed) == len(files) and rest == ""
    for file, lines in zip(files, printed, strict=True):
        chain, ours, exact, actions = lines.splitlines()
        assert chain.startswith("GaussianChain(") and " actions to execute" in actions, file
        assert ours.startswith("ddpm ") and exact.startswith("block "), file
        assert float(exact.split()[1]) < float(ours.split()[1]), file
        assert ours.count("its own distribution (p = ") == exact.count("its own distribution (p = ") == 1, file
