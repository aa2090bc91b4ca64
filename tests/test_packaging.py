"""What is installed: a core of three packages that works alone, and files that hold all of it."""

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
CORE = {"torch", "numpy", "safetensors"}


def required(names):
    """The distributions that come along with these, themselves included."""
    found, open_names = set(), [name.lower() for name in names]
    while open_names:
        name = re.sub(r"[-_.]+", "-", open_names.pop()).lower()
        if name not in found:
            found.add(name)
            try:
                lines = importlib.metadata.requires(name) or []
            except importlib.metadata.PackageNotFoundError:
                continue
            needed = [
                one for one in map(Requirement, lines) if one.marker is None or one.marker.evaluate({"extra": ""})
            ]
            open_names += [one.name for one in needed]
    return found


def test_the_core_works_where_nothing_but_torch_numpy_and_safetensors_can_be_imported(tmp_path):
    """Samplers, shipped policies, calibration, the control loop and `wrap`; see bare_core.py."""
    kept = required(CORE)
    blocked = sorted(
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if not any(re.sub(r"[-_.]+", "-", owner).lower() in kept | {"specpolicy"} for owner in owners)
    )
    assert {"gymnasium", "mujoco", "hydra", "omegaconf", "yaml", "rich", "h5py", "diffusers", "matplotlib"} < {*blocked}
    blocker = f"import sys\nfor name in {[*blocked, 'specpolicy_envs', 'specpolicy_configs']!r}:\n"
    (tmp_path / "sitecustomize.py").write_text(f"{blocker}    sys.modules[name] = None\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    script = [sys.executable, "tests/bare_core.py", "checkpoints"]
    done = subprocess.run(script, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0 and done.stdout == "all of it works\n", done.stderr
