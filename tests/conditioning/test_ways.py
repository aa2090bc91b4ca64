"""The formulas of each way, against their definitions and against a Gaussian whose posterior is known."""

import math

import pytest
import torch

from specpolicy import GaussianChain, SpecpolicyError
from specpolicy.conditioning import Continuation, Given, Packing, make_way

PROCESS = GaussianChain.ddpm(20, clip=None).process
SHAPE = (4, 2)
SIZE = 8


def gaussian(seed=0):
    """(basis, variances, covariance) of chunks."""
    root = torch.randn(SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    covariance = 0.1 * root @ root.T + 0.02 * torch.eye(SIZE)
    variances, basis = torch.linalg.eigh(covariance)
    return basis, variances, covariance


def given(count, values, first=1, known=3, way=None):
    """What is given of one chunk: `known` actions from entry `first` on."""
    weights = torch.zeros(SHAPE, dtype=torch.float64)
    weights[first : first + known] = way.weights(count, known)[:, None]
    kept = torch.zeros(SHAPE, dtype=torch.float64)
    kept[first : first + known] = values.view(SHAPE)[first : first + known]
    return Given(kept.view(1, -1), weights.view(1, -1), torch.tensor([[float(count)]]))


class Linearised:
    """The exact denoiser of Gaussian chunks, E[x0 | state] with mean zero."""

    def __init__(self, covariance, timestep):
        abar = PROCESS.alpha_bar[timestep]
        self.gain = abar.sqrt() * covariance @ torch.linalg.inv(abar * covariance + (1 - abar) * torch.eye(SIZE))

    def __call__(self, states):
        """x0 at states (n, d)."""
        return states @ self.gain.T


def posterior(covariance, timestep, state, places, values, noise):
    """E[x0 | state, values at `places` up to noise], from the joint Gaussian."""
    abar = PROCESS.alpha_bar[timestep]
    pick = torch.eye(SIZE, dtype=torch.float64)[places]
    seen = torch.cat([abar.sqrt() * torch.eye(SIZE, dtype=torch.float64), pick])
    spread = torch.cat([(1 - abar).expand(SIZE), torch.full((len(places),), noise**2).double()])
    gain = covariance @ seen.T @ torch.linalg.inv(seen @ covariance @ seen.T + torch.diag(spread))
    return gain @ torch.cat([state, values])


@pytest.mark.parametrize("noise", (0.01, 0.3))
@pytest.mark.parametrize("count", (1, 2, 3))
def test_linear_is_the_posterior_of_a_gaussian(count, noise):
    basis, variances, covariance = gaussian()
    way = make_way(f"linear-{noise}", PROCESS, SHAPE, 1, 2, (basis, variances))
    generator = torch.Generator().manual_seed(1)
    values, state = torch.randn(2, SIZE, dtype=torch.float64, generator=generator)
    for timestep in (0, 7, 19):
        predict = Linearised(covariance, timestep)
        told = given(count, values, way=way)
        found = way(predict(state[None]), predict, state[None], torch.tensor([timestep]), told)[0]
        places = torch.arange(2, 2 + 2 * count)
        expected = posterior(covariance, timestep, state, places, values[places], noise)
        expected[places] = values[places]  # the committed actions themselves
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ("guided-3", "gradient-3"))
def test_guidance_moves_along_the_derivative(name):
    """For a linear denoiser the difference of two predictions is the derivative, which is symmetric."""
    _, _, covariance = gaussian()
    way = make_way(name, PROCESS, SHAPE, 1, 2)
    values, state = torch.randn(2, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for timestep in (1, 10, 19):
        predict, told = Linearised(covariance, timestep), given(2, values, way=way)
        at = state[None].clone().requires_grad_(way.differentiates)
        x0 = predict(at)
        found = way(x0, predict, at, torch.tensor([timestep]), told).detach()
        x0 = x0.detach()
        strength = min(float(PROCESS.alpha_bar[timestep].rsqrt()), 3.0)
        pull = told.weights * (told.values - x0)
        expected = x0 + strength * pull @ predict.gain  # the product from the left, as in the paper
        expected = torch.where(told.weights >= 1, told.values, expected)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_gradient_is_the_papers_product_where_the_derivative_is_not_symmetric():
    """pull J, from a derivative that is written out; the difference of `guided` is J pull, another direction."""
    root = torch.randn(SIZE, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(5)) / 3
    values, state = torch.randn(2, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(6))

    def predict(states):
        return torch.sin(states @ root.T)

    derivative = torch.cos(root @ state)[:, None] * root
    found, expected = {}, {}
    for name in ("guided-1", "gradient-1"):
        way = make_way(name, PROCESS, SHAPE, 1, 2)
        at = state[None].clone().requires_grad_(way.differentiates)
        told, x0 = given(2, values, way=way), predict(at)
        pull = told.weights * (told.values - x0.detach())
        for side, product in (("left", pull @ derivative), ("right", pull @ derivative.T)):
            expected[side] = torch.where(told.weights >= 1, told.values, x0.detach() + product)
        found[name] = way(x0, predict, at, torch.tensor([7]), told).detach()
    torch.testing.assert_close(found["gradient-1"], expected["left"], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found["guided-1"], expected["right"], rtol=0, atol=0.02)
    assert (expected["left"] - expected["right"]).abs().max() > 0.1


def test_inpainting_and_soft_weights_blend():
    values, x0 = torch.randn(2, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for name in ("inpaint", "rtc"):
        way = make_way(name, PROCESS, SHAPE, 1, 2)
        told = given(1, values, way=way)
        found = way(x0[None], None, None, None, told)[0]
        weights = told.weights[0]
        torch.testing.assert_close(found, weights * values + (1 - weights) * x0)
        assert torch.equal(found[2:4], values[2:4]) and torch.equal(found[:2], x0[:2])
        assert torch.equal(found[4:], x0[4:]) == (name == "inpaint")


@pytest.mark.parametrize("count, known", ((1, 1), (1, 4), (3, 5), (4, 11)))
def test_soft_weights_are_those_of_the_paper(count, known):
    """Equation 5: one, then c (e^c - 1) / (e - 1) with c falling to the end of what is known."""
    found = make_way("rtc", PROCESS, SHAPE, 1, 2).weights(count, known).tolist()
    assert found[:count] == [1.0] * count
    for place in range(count, known):
        c = (known - place) / (known - count + 1)
        assert found[place] == pytest.approx(c * (math.exp(c) - 1) / (math.e - 1), rel=1e-6)
    assert found == sorted(found, reverse=True) and min(found) > 0


@pytest.mark.parametrize("name", ("inpaint", "rtc", "guided", "gradient", "linear"))
@pytest.mark.parametrize("prediction", ("epsilon", "sample", "v_prediction"))
def test_a_denoiser_is_untouched_where_nothing_is_committed(name, prediction):
    """Bit for bit, in a batch in which something is committed for another row; and there x0' is what is read."""
    process = GaussianChain.ddpm(20, prediction=prediction).process
    way = make_way(name, process, SHAPE, 1, 2, gaussian()[:2])
    continuation = Continuation(way, Packing((3,), SIZE))
    generator = torch.Generator().manual_seed(4)
    x, values = torch.randn(3, *SHAPE, generator=generator), torch.rand(3, SIZE, generator=generator) - 0.5
    cond, timesteps = torch.randn(3, 3, generator=generator), torch.tensor([19, 0, 7])

    def network(x, t, cond):
        return torch.tanh(x + cond.sum(-1)[:, None, None] + t[:, None, None] / 20)

    told = given(2, values[1].double(), way=way)
    parts = [torch.cat([part * 0, part, part * 0]) for part in (told.values, told.weights, told.count)]
    packed = continuation.packing.pack(cond, Given(*parts))
    own, back = continuation.packing.split(packed)
    assert torch.equal(own, cond) and torch.equal(back.count, parts[2].float())
    plain, found = network(x, timesteps, cond), continuation.denoiser(network)(x, timesteps, packed)
    assert torch.equal(found[[0, 2]], plain[[0, 2]]) and not torch.equal(found[1], plain[1])
    if name in ("inpaint", "rtc"):  # they touch what is known only
        assert torch.equal(found[1, 0], plain[1, 0])
    to_state, to_output = process.x0_coefficients(timesteps)
    x0 = (to_state[1] * x[1].double() + to_output[1] * found[1].double()).flatten()
    torch.testing.assert_close(x0[2:6], told.values[0, 2:6], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "name, message", (("linear", "run `specpolicy calibrate`"), ("inpaint-2", "inpaint takes no number"))
)
def test_ways_that_cannot_be_made(name, message):
    with pytest.raises(SpecpolicyError, match=message):
        make_way(name, PROCESS, SHAPE, 1, 2)
