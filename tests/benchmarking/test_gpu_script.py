"""scripts/gpu_benchmark.sh on a machine without a GPU, and without the packages that a bare one lacks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import gpu

ROOT = Path(__file__).parents[2]
HEAVY = ("gymnasium", "hydra", "omegaconf", "mujoco", "rich", "h5py", "diffusers", "matplotlib", "openvino")


def run(*arguments, python=sys.executable, **environment):
    command = [str(ROOT / "scripts" / "gpu_benchmark.sh"), *map(str, arguments)]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHON": str(python), **environment}
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=300)


def refused(*arguments, **environment):
    """The one line on stderr of a run that must exit with 2."""
    done = run(*arguments, **environment)
    assert done.returncode == 2 and done.stdout == ""
    *before, line = done.stderr.splitlines()
    assert all(text.startswith("measuring") for text in before)
    return line


@pytest.fixture
def bare(tmp_path):
    """Variables with which heavy packages cannot be imported."""
    blocker = f"import sys\nfor name in {HEAVY!r}:\n    sys.modules[name] = None\n"
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "sitecustomize.py").write_text(blocker)
    return {"PYTHONPATH": str(tmp_path / "bare")}


def test_it_runs_with_torch_numpy_and_safetensors_alone(checkpoint, tmp_path, bare):
    output = tmp_path / "out"
    arguments = ("--device", "cpu", "--quick", "--policy", checkpoint, "--output", output)
    done = run(*arguments, "--samplers", "ddpm", "ddim-4", "block", "recycled-8", **bare)
    assert done.returncode == 0, done.stderr
    found = json.loads((output / "gpu.json").read_text())
    assert set(found["networks"]) == {"small", "large"}
    for name, summary in found["networks"].items():
        assert [entry["label"] for entry in summary["samplers"]] == ["ddpm", "ddim-4", "block", "recycled-8"]
        assert summary["chunks"] == 3 and summary["network"]["trained"] == (name == "small")
        assert summary["seconds_by_rows"].keys() == {"1", "2", "4", "8", "12", "16", "20"}
        assert json.loads((output / name / "summary.json").read_text()) == summary
        assert (output / name / "table.md").exists() and (output / name / "chunks.csv").exists()
        assert f"One call of the {name} network" in done.stdout
    small, large = found["networks"].values()
    for first, second in zip(small["samplers"], large["samplers"], strict=True):
        assert first["window"] != second["window"] or first["calls"] == second["calls"]
    assert "scripts/gpu_benchmark.sh --device cpu --quick" in found["command"]
    assert [one["label"] for one in found["check"]] == ["ddpm", "ddim-4", "block", "recycled-8"]
    # Nothing is captured here; block verification draws one chunk in numpy on both engines.
    assert all(one["largest_difference"] < 1e-4 and 0 <= one["p"] <= 1 for one in found["check"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_on_a_gpu_it_captures_graphs_and_times_them(checkpoint, tmp_path, bare):
    output = tmp_path / "out"
    done = run("--quick", "--policy", checkpoint, "--output", output, "--samplers", "ddpm", "block", **bare)
    assert done.returncode == 0, done.stderr
    for summary in json.loads((output / "gpu.json").read_text())["networks"].values():
        assert (
            summary["engine"] == "cuda_graph" and summary["machine"]["gpu"] in (output / "large/table.md").read_text()
        )
        for entry in summary["samplers"]:
            assert 0 < entry["network_seconds"]["mean"] < entry["seconds"]["mean"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    assert "torch sees no CUDA device on this machine" in refused()


def test_mistakes_are_one_line(checkpoint, small_policy, tmp_path, capsys):
    for arguments, words in (
        (["--policy", checkpoint, "--samplers", "dppm"], "unknown sampler 'dppm'"),
        (["--policy", checkpoint, "--engine", "cuda_graph"], "needs a CUDA device"),
        (["--policy", small_policy.save(tmp_path / "bare")], "no recorded observations at"),
    ):
        where = ["--device", "cpu", "--quick", "--output", tmp_path / "out"]
        assert gpu.main([str(argument) for argument in (*where, *arguments)]) == 2
        told = capsys.readouterr()
        *before, line = told.err.splitlines()
        assert words in line and told.out == "" and all(text.startswith("measuring") for text in before)
    assert not (tmp_path / "out").exists()


def test_without_torch_it_says_what_to_install(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    assert "pip install torch numpy safetensors" in refused(python=python)
