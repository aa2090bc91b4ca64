"""What is installed: a core of three packages that works alone, and files that hold all of it."""

import email
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from packaging.requirements import Requirement

import specpolicy

ROOT = Path(__file__).parents[1]
CORE = {"torch", "numpy", "safetensors"}
SOURCES = {"specpolicy": "specpolicy", "envs": "specpolicy_envs", "configs": "specpolicy_configs"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A wheel, built from the sdist of a copy of this checkout: (wheel, sdist). Nothing is downloaded."""
    directory = tmp_path_factory.mktemp("dist")
    source = directory / "source"
    for name in SOURCES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    backend = "import sys; from setuptools import build_meta; build_meta.build_{}(sys.argv[1])"
    run = {"check": True, "capture_output": True, "text": True}
    subprocess.run([sys.executable, "-c", backend.format("sdist"), directory], cwd=source, **run)
    (sdist,) = directory.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(directory, filter="data")
    unpacked = directory / sdist.name.removesuffix(".tar.gz")
    subprocess.run([sys.executable, "-c", backend.format("wheel"), directory], cwd=unpacked, **run)
    (wheel,) = directory.glob("*.whl")
    return wheel, sdist


def test_a_wheel_holds_every_file_and_asks_for_the_core_alone(built):
    wheel, _ = built
    assert wheel.name == f"specpolicy-{specpolicy.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        text = archive.read(f"specpolicy-{specpolicy.__version__}.dist-info/METADATA")
    there = {
        str(Path(package) / path.relative_to(ROOT / name))
        for name, package in SOURCES.items()
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == there
    metadata = Metadata.from_email(text, validate=True)
    needed = metadata.requires_dist or []
    assert {one.name for one in needed if one.marker is None or "extra" not in str(one.marker)} == CORE
    assert email.message_from_bytes(text)["License-Expression"] == "Apache-2.0"


@pytest.mark.slow
def test_an_index_would_take_the_files(built, tmp_path):
    """By twine, in an environment of its own."""
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "twine"], check=True)
    done = subprocess.run([python, "-m", "twine", "check", "--strict", *built], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


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


@pytest.mark.slow
def test_the_core_installs_beside_lerobot_and_a_wrapped_policy_draws_what_it_did(tmp_path):
    """In an environment of its own, some gigabytes; the script exits with 1 unless everything is as it should be."""
    page = tmp_path / "page.md"
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    script = ["scripts/lerobot_environment.sh", page]
    done = subprocess.run(script, capture_output=True, text=True, cwd=ROOT, env=variables)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "All is as it should be." in page.read_text()
