"""Operations are counted where they are launched, and waits where Python waits."""

import pytest
import torch
from torch import nn

from specpolicy.benchmarking.launches import Launches, count_launches, is_view, waits
from specpolicy.engines import make_engine
from specpolicy.errors import SpecpolicyError
from specpolicy.sampler_names import make_sampler

X = torch.arange(6.0).reshape(2, 3)
aten = torch.ops.aten


class Network(nn.Module):
    """Three operations: a product, a sum and a sine."""

    def __init__(self):
        super().__init__()
        self.weight, self.fails = nn.Parameter(torch.ones(3, 3)), False

    def forward(self, x, t=None, cond=None):
        if self.fails:
            raise ValueError
        return (x @ self.weight + 1).sin()


def count(call):
    return count_launches(call, Network())


@pytest.mark.parametrize(
    "call, expected",
    (
        (lambda: X + 1, (0, 1, 0)),
        (lambda: X.clone().add_(1), (0, 2, 0)),
        (lambda: X[0, None].expand(2, 3).transpose(0, 1).view(3, 2).detach(), (0, 0, 0)),
        (lambda: torch.empty(3), (0, 0, 0)),
        (lambda: X.reshape(3, 2), (0, 0, 0)),
        (lambda: X.T.reshape(2, 3), (0, 1, 0)),  # which is a copy
        (lambda: torch.zeros(3), (0, 1, 0)),
        (lambda: float(X.sum()), (0, 2, 1)),
        (lambda: bool((X > 2).all()), (0, 3, 1)),
        (lambda: X.tolist(), (0, 0, 0)),  # of the CPU's memory
        (lambda: (X > 2).nonzero(), (0, 2, 1)),
        (lambda: X[X > 2], (0, 2, 1)),
        (lambda: X[torch.tensor([1, 0])], (0, 1, 0)),
        (lambda: X.repeat_interleave(torch.tensor([1, 2]), dim=0, output_size=3), (0, 2, 0)),
        (lambda: torch.nn.functional.linear(X, torch.ones(3, 3)), (0, 2, 0)),
    ),
)
@pytest.mark.parametrize("mode", (torch.inference_mode, torch.enable_grad))
def test_what_counts(call, expected, mode):
    with mode():
        assert count(call) == Launches(*expected)


@pytest.mark.parametrize("mode", (torch.inference_mode, torch.enable_grad))
def test_what_the_network_launches_is_told_apart(mode):
    network = Network()
    with mode():
        found = count_launches(lambda: network(network(X) * 2) - network(X), network)
    assert found == Launches(9, 2, 0)
    assert not network._forward_hooks and not network._forward_pre_hooks


def test_after_an_error_nothing_is_left_behind():
    network = Network()
    network.fails = True
    with pytest.raises(ValueError):
        count_launches(lambda: network(X), network)
    network.fails = False
    assert count_launches(lambda: network(X) + 1, network) == Launches(3, 1, 0)
    assert not network._forward_hooks and not network._forward_pre_hooks


def test_an_engine_is_counted_as_the_network():
    one, other = (make_engine("eager", Network(), (2, 3), max_rows=2) for _ in range(2))
    before, inputs = dict(vars(type(one))), (X[None], torch.zeros(1), None)
    assert count_launches(lambda: one(*inputs) + other(*inputs), one) == Launches(3, 4, 0)
    assert dict(vars(type(one))) == before


def test_calls_of_a_function_cannot_be_seen():
    with pytest.raises(SpecpolicyError, match="neither"):
        count_launches(lambda: None, lambda x: x)


def test_a_policy_is_counted_and_draws_the_same(small_policy):
    seen = {"position": torch.zeros(2, 2), "object": torch.zeros(2, 3)}

    def draw(sampler):
        return small_policy.predict(seen, make_sampler(sampler), torch.Generator().manual_seed(0)).actions

    expected, found = draw("ddpm"), []
    counted = count_launches(lambda: found.append(draw("ddpm")), small_policy.denoiser)
    assert torch.equal(found[0], expected)
    example = torch.zeros(1, *small_policy.sample_shape), torch.zeros(1, dtype=torch.int64), small_policy.encode(seen)
    with torch.inference_mode():
        once = count_launches(lambda: small_policy.denoiser(*example), small_policy.denoiser)
    assert once.outside == 0 and counted.inside == len(small_policy.chain) * once.inside
    assert 0 < counted.outside < counted.inside


def test_copies_from_a_device_to_the_cpu_wait():
    there, cpu = torch.zeros(2, device="meta"), torch.device("cpu")
    assert waits(aten._to_copy.default, (there,), {"device": cpu})
    assert not waits(aten._to_copy.default, (there,), {"device": cpu, "non_blocking": True})
    assert not waits(aten._to_copy.default, (there,), {"dtype": torch.float64})
    assert not waits(aten._to_copy.default, (X,), {"device": torch.device("meta")})
    assert waits(aten.copy_.default, (X, there), {}) and not waits(aten.copy_.default, (X, there, True), {})
    assert not waits(aten.copy_.default, (there, X), {})
    assert waits(aten.repeat_interleave.Tensor, (X,), {})


def test_views_are_those_that_share_and_do_not_write():
    assert is_view(aten.transpose.int) and is_view(aten.detach.default) and is_view(aten.split.Tensor)
    assert not is_view(aten.add_.Tensor) and not is_view(aten.add.Tensor) and not is_view(aten.clone.default)
