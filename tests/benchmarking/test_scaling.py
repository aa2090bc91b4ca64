"""benchmarks/scaling.py: its analytic denoiser is exact, its fit finds an exponent, and it goes on where it stopped."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from specpolicy import GaussianChain

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import scaling
from scaling_page import exponent, page
from scaling_subjects import BETWEEN, MODES, REACH, ROUGH, WITHIN, Mixture, between_steps


def test_the_analytic_denoiser_is_the_posterior_mean():
    """By Tweedie's formula, from the density of the noised chunks, written out with full covariances."""
    horizon, dimension = 4, 3
    chain = GaussianChain.ddpm(1000, 10, prediction="sample", spacing="trailing")
    denoiser, time = Mixture(chain.process, horizon, dimension), torch.arange(horizon, dtype=torch.float64)
    smooth = torch.exp(-(time[:, None] - time).square() / (2 * REACH**2))
    covariance = torch.kron(WITHIN**2 * smooth + ROUGH**2 * torch.eye(horizon), torch.eye(dimension).double())
    modes = (denoiser.basis @ denoiser.modes).flatten(1)
    assert modes.shape == (MODES, 12) and 0.3 < float(modes.std()) / BETWEEN < 2
    for t in (50, 500, 950):
        a = chain.process.alpha_bar[t]
        x = torch.randn(12, generator=torch.Generator().manual_seed(t), dtype=torch.float64).requires_grad_()
        noised = torch.distributions.MultivariateNormal(
            a.sqrt() * modes, a * covariance + (1 - a) * torch.eye(12, dtype=torch.float64)
        )
        noised.log_prob(x).logsumexp(dim=0).backward()
        wanted = (x.detach() + (1 - a) * x.grad) / a.sqrt()
        found = denoiser(x.detach().view(1, horizon, dimension), torch.tensor([t]), None)
        torch.testing.assert_close(found.flatten(), wanted, rtol=1e-6, atol=1e-8)


def test_a_chain_between_the_steps_meets_the_process_at_whole_ones():
    chain = GaussianChain.ddpm(20)
    finer = between_steps(chain, 39)
    torch.testing.assert_close(finer.alpha_bar[::2], chain.alpha_bar)
    assert (finer.alpha_bar.diff() > 0).all() and finer.timesteps[:3].tolist() == [19, 18.5, 18]


def test_the_exponent_is_found_with_an_interval_that_holds_it():
    source = np.random.default_rng(0)
    calls = {steps: 3 * steps ** (2 / 3) * source.lognormal(0, 0.2, size=200) for steps in (10, 30, 100, 1000)}
    middle, low, high = exponent(calls)
    assert low < middle < high and middle == pytest.approx(1 / 3, abs=0.02) and high - low < 0.05
    assert exponent({steps: [float(steps)] * 5 for steps in (10, 100)}) == pytest.approx((0, 0, 0), abs=1e-12)


@pytest.fixture
def small(checkpoint, tmp_path, monkeypatch):
    """What runs the script with little to do; it returns what was found."""
    for name, value in {
        "STEPS": (5, 10, 25),
        "HORIZONS": (8, 16),
        "DIMENSIONS": (2, 7),
        "BATCHES": (1, 2),
        "LENGTH": 10,
        "CHUNKS": {"mixture": 3, "policy": 2, "trained": 2},
        "LONGEST": {"chunks": 2, "from": 25},
        "LARGE": {"down_dims": [24, 48]},
    }.items():
        monkeypatch.setattr(scaling, name, value)

    def run(*arguments):
        output = tmp_path / "scaling.json"
        command = ["scaling.py", "--policy", str(checkpoint), "--count", "1", "--output", str(output), *arguments]
        monkeypatch.setattr(sys, "argv", command)
        assert scaling.main() == 0
        return json.loads(output.read_text())

    run.checkpoint, run.page = checkpoint, tmp_path / "scaling.md"
    return run


def test_all_of_it_runs_and_nothing_is_measured_twice(small, monkeypatch):
    found = small("--trained", str(small.checkpoint))
    assert len(found["calls"]) == 3 * (3 + 1 + 1) + 3 * 2 + 2 + 3
    assert all(len(one["calls"]) == one["chunks"] for one in found["calls"])
    assert [one["batch"] for one in found["batches"]["figures"]] == [1] * 4 + [2] * 4
    for words in ("± ", "Trained for the horizon", "## Batch", "## Size of the network", "## Horizon of a chunk"):
        assert words in small.page.read_text()
    assert small.page.read_text() == page(found)

    def never(*arguments):
        raise AssertionError("measured again")

    for name in ("count", "times", "batches", "networks"):
        monkeypatch.setattr(scaling, name, never)
    assert small("--trained", str(small.checkpoint)) == found


def test_an_interrupted_run_keeps_what_it_has(small, monkeypatch):
    count, done = scaling.count, []

    def interrupted(*arguments):
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(arguments[2])
        return count(*arguments)

    monkeypatch.setattr(scaling, "count", interrupted)
    with pytest.raises(KeyboardInterrupt):
        small("--parts", "calls")
    monkeypatch.setattr(scaling, "count", count)
    assert len(small("--parts", "calls")["calls"]) == 3 * 5 + 3 * 2 + 2
