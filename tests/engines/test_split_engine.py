"""Engines of networks in two parts: what they remember of conditions, and that they are the network."""

import pytest
import torch
from torch import nn

from specpolicy.conditioning import LocalCondition
from specpolicy.engines import make_engine
from specpolicy.engines.base import Buffers, Workload
from specpolicy.engines.split import Features
from specpolicy.errors import SpecpolicyError
from specpolicy.networks import ConditionalUnet1D, TransformerForDiffusion

H, D, C = 8, 2, 5


@pytest.fixture(scope="module", params=("unet", "transformer"))
def network(request) -> nn.Module:
    torch.manual_seed(0)
    if request.param == "unet":
        return ConditionalUnet1D(D, None, C, 16, (16, 32), 3).eval()
    return TransformerForDiffusion(D, D, H, 1, C, 1, 2, 16).eval()


@pytest.fixture(scope="module")
def engine(network):
    pytest.importorskip("openvino")
    made = make_engine("openvino", network, (H, D), shape(network), max_rows=6)
    assert made._features is not None
    return made


def shape(network):
    return (C,) if isinstance(network, ConditionalUnet1D) else (1, C)


def inputs(network, rows, seed=0):
    source = torch.Generator().manual_seed(seed)
    x, cond = torch.randn(rows, H, D, generator=source), torch.randn(rows, *shape(network), generator=source)
    return x, torch.randint(100, (rows,), generator=source), cond


@torch.inference_mode()
def check(network, engine, x, t, cond):
    expected, found = network(x, t, cond), engine(x, t, cond)
    assert (found - expected).abs().max() < 1e-4 * expected.std()


@pytest.mark.parametrize("rows", (1, 3, 6, 8))
def test_conditions_of_one_chunk_and_of_several(network, engine, rows):
    for seed in (1, 2, 1):
        x, t, cond = inputs(network, rows, seed)
        check(network, engine, x, t, cond)
        check(network, engine, x, t, cond[:1].expand_as(cond))
        check(network, engine, x, t, cond[-1:].expand_as(cond).clone())


def test_a_condition_may_be_overwritten_where_it_is(network, engine):
    x, t, cond = inputs(network, 2)
    check(network, engine, x, t, cond)
    cond += 1
    check(network, engine, x, t, cond)


def test_an_engine_needs_no_inference_mode(network, engine):
    x, t, cond = inputs(network, 2)
    check(network, engine, x, t, cond)  # whatever this leaves behind
    found = engine(x, t, cond[:1].expand_as(cond))
    assert not found.requires_grad and not found.is_inference()
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


def test_timesteps_between_whole_numbers(network, engine):
    made = make_engine("openvino", network, (H, D), shape(network), max_rows=2, time_dtype=torch.float32)
    x, _, cond = inputs(network, 2)
    check(network, made, x, torch.tensor([3.5, 20.25]), cond)
    check(network, engine, x, torch.tensor([3.5, 20.25]), cond)


def test_timesteps_are_not_rounded_in_silence():
    buffers = Buffers(Workload(lambda x, t, cond: x, (H, D), None, 2), 2)
    with pytest.raises(SpecpolicyError, match="time_dtype"):
        buffers.fill(torch.zeros(1, H, D), torch.tensor([0.5]), None)


def test_without_a_condition():
    pytest.importorskip("openvino")
    torch.manual_seed(0)
    network = ConditionalUnet1D(D, None, None, 16, (16, 32), 3).eval()
    engine = make_engine("openvino", network, (H, D), None, max_rows=3)
    for rows in (1, 3):
        x, t, _ = inputs(network, rows)
        check(network, engine, x, t, None)


def test_a_network_that_has_no_parts_is_run_whole():
    pytest.importorskip("openvino")
    torch.manual_seed(0)
    network = LocalCondition(ConditionalUnet1D(D, C, None, 16, (16, 32), 3)).eval()
    engine = make_engine("openvino", network, (H, D), (1, C), max_rows=3)
    assert engine._features is None
    x, t, cond = torch.randn(3, H, D), torch.arange(3), torch.randn(3, 1, C)
    check(network, engine, x, t, cond)


class Parts:
    """Features of two numbers: the timestep, the condition's sum."""

    def __init__(self):
        self.conditions = []

    def time_features(self, timestep):
        return torch.stack([timestep.float(), torch.zeros(len(timestep))], dim=1)

    def condition_features(self, cond):
        self.conditions.append(len(cond))
        return torch.stack([torch.zeros(len(cond)), cond.sum(1)], dim=1)


def test_what_a_condition_says_is_worked_out_once_a_chunk():
    parts = Parts()
    features, out = Features(parts, Workload(lambda x, t, cond: x, (H, D), (C,), 5)), torch.empty(5, 2)
    first, second = torch.arange(5.0).expand(5, C), torch.ones(5, C)
    for cond in (first, first.clone(), second, second[:2], first):
        rows = len(cond)
        features.write(torch.arange(rows), cond, out[:rows])
        assert torch.equal(out[:rows], torch.stack([torch.arange(rows), cond.sum(1)], dim=1))
    assert parts.conditions == [1, 1, 1]
    mixed = torch.stack([first[0], second[0]])
    features.write(torch.tensor([7, 7]), mixed, out[:2])
    assert torch.equal(out[:2], torch.tensor([[7.0, 10.0], [7.0, 5.0]])) and parts.conditions[-1] == 2
