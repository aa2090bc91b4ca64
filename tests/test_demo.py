"""python -m specpolicy.demo: a table of samplers, with a verdict on what each of them draws."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from specpolicy import demo
from specpolicy.policy.histories import FILE, write_histories


@pytest.fixture
def checkpoint(small_policy, tmp_path):
    source = np.random.default_rng(0)
    sizes = {"position": 2, "object": 3}
    directory = small_policy.save(tmp_path / "tiny")
    histories = {key: source.normal(size=(5, 2, size)).astype(np.float32) for key, size in sizes.items()}
    write_histories(directory / FILE, histories)
    return directory


def test_exact_samplers_draw_the_policy_s_distribution_and_ddim_does_not(checkpoint):
    """False alarm: 1e-3 of each of five samplers; the seeds are fixed."""
    lines: list[str] = []
    demo.run(checkpoint, "eager", 4, lines.append)
    assert "a chunk of 20 steps, engine eager" in lines[0]
    rows = {line.split()[0]: line for line in lines[2:]}
    assert list(rows) == list(demo.SAMPLERS)
    for name, line in rows.items():
        assert ("another" in line) == (name == "ddim-10") and ("with 16 steps" in line) == (name == "recycled-16")
        calls, milliseconds = map(float, line.split()[1:3])
        assert (calls == 20) == (name == "ddpm") and milliseconds > 0


def test_a_short_chain_has_no_longer_ones_beside_it():
    assert demo.samplers_for(100) == list(demo.SAMPLERS)
    assert demo.samplers_for(16) == ["ddpm", "ddim-10", "asd", "block", "recycled"]
    assert demo.samplers_for(10) == ["ddpm", "asd", "block", "recycled"]


def test_states_of_another_chain_are_found_out(small_policy):
    """What the verdict is made of: a sampler that adds a tenth too much noise."""
    history = {"position": np.zeros((2, 2), np.float32), "object": np.zeros((2, 3), np.float32)}
    chain, noises = small_policy.chain, []
    for seed in range(4):
        states = small_policy.predict(history, "ddpm", torch.Generator().manual_seed(seed), return_states=True).states
        noises.append(demo.implied_noises(small_policy, chain, history, states))
    assert demo.same_as_normal(torch.cat(noises)) > 1e-3
    assert demo.same_as_normal(1.1 * torch.cat(noises)) < 1e-3


def test_from_the_shell(checkpoint):
    command = [sys.executable, "-m", "specpolicy.demo", str(checkpoint), "--engine", "eager", "--chunks", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"own( with 16 steps)? \(p = ", done.stdout)) == 5


@pytest.mark.parametrize(
    "arguments, words",
    ((["nowhere"], "nowhere"), (["checkpoints/lift_tokens"], "action tokens"), (["--chunks", "1"], "at least 2")),
)
def test_mistakes_are_one_line(arguments, words, capsys):
    assert demo.main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
