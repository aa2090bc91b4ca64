"""Engines of networks in two parts: what they remember of conditions, and that they are the network."""

import pytest
import torch
from torch import nn

from specpolicy.conditioning import LocalCondition
from specpolicy.engines import make_engine
from specpolicy.engines.base import Buffers, Workload
from specpolicy.engines.split import ConditionFeatures, Features
from specpolicy.errors import SpecpolicyError
from specpolicy.model import Model
from specpolicy.networks import ConditionalUnet1D, DiffusionTransformer, TransformerForDiffusion

H, D, C = 8, 2, 5


def dit():
    torch.manual_seed(0)
    made = DiffusionTransformer(D, D, H, C, 16, 2, 2, 8)
    for parameter in made.parameters():  # the modulations begin at zero
        nn.init.normal_(parameter, std=0.3)
    return made.eval()


@pytest.fixture(scope="module", params=("unet", "transformer", "dit"))
def network(request) -> nn.Module:
    torch.manual_seed(0)
    if request.param == "dit":
        return dit()
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
    return (1, C) if isinstance(network, TransformerForDiffusion) else (C,)


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
    for cond in (first, first.clone(), second, second[:2], first, torch.cat([second[:2], first[:1]])):
        rows = len(cond)
        features.write(torch.arange(rows), cond, out[:rows])
        assert torch.equal(out[:rows], torch.stack([torch.arange(rows), cond.sum(1)], dim=1))
    assert parts.conditions == [1, 1]
    mixed = torch.stack([first[0] + 1, second[0] + 1, first[0], first[0] + 1])
    features.write(torch.full((4,), 7), mixed, out[:4])
    assert torch.equal(out[:4, 1], torch.tensor([15.0, 10.0, 10.0, 15.0])) and parts.conditions[-1] == 2


@pytest.mark.parametrize("name", ("eager", "openvino"))
def test_after_a_change_of_weights_no_engine_is_half_old_and_half_new(name):
    pytest.importorskip("openvino")
    network = dit()
    made = make_engine(name, network, (H, D), (C,), max_rows=2)
    before, (x, t, new) = inputs(network, 2), inputs(network, 2, seed=7)  # of seed 1 its warm-up was
    old = made(*before)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    if name == "eager":
        check(network, made, *before)
        check(network, made, x, t, new)
    else:
        assert torch.equal(made(*before), old)  # all of it is remembered
        with pytest.raises(SpecpolicyError, match="weights have changed since this engine was made"):
            made(x, t, new)


def test_gradients_pass_through_the_whole_network():
    network = dit()
    made, (x, t, cond) = make_engine("eager", network, (H, D), (C,), max_rows=2), inputs(network, 2)
    made(x, t, cond)  # what it remembers has no gradients
    found, expected = (
        torch.autograd.grad(one(at, t, cond).square().sum(), at)[0]
        for one, at in ((made, x.clone().requires_grad_()), (network, x.clone().requires_grad_()))
    )
    torch.testing.assert_close(found, expected)


def test_conditions_of_another_kind_are_refused_and_not_left_from_the_call_before():
    buffers = Buffers(Workload(lambda x, t, cond: x, (4, 2), (3,), 8), 2)
    x, t = torch.zeros(2, 4, 2), torch.zeros(2, dtype=torch.int64)
    buffers.fill(x, t, torch.ones(2, 3))
    buffers.fill(x, t, torch.full((1, 3), 2.0))  # one for all rows
    assert torch.equal(buffers.cond, torch.full((2, 3), 2.0))
    for cond, words in ((None, "given: none"), (torch.ones(2, 1), r"of shape \(1,\)")):
        with pytest.raises(SpecpolicyError, match=words):
            buffers.fill(x, t, cond)
    with pytest.raises(SpecpolicyError, match="made for conditions: none"):
        Buffers(Workload(lambda x, t, cond: x, (4, 2), None, 8), 2).fill(x, t, torch.ones(2, 3))


def test_the_oldest_conditions_are_forgotten():
    parts = Parts()
    found = ConditionFeatures(parts, most=3)
    conditions = torch.arange(5.0)[:, None].expand(5, C).contiguous()
    for rows in ([0, 1], [2], [0], [3], [0], [1]):
        assert torch.equal(found(conditions[rows])[:, 1], C * torch.tensor(rows).float())
    assert parts.conditions == [2, 1, 1, 1, 1]
    assert torch.equal(found(conditions)[:, 1], C * torch.arange(5.0))  # more than are kept


def test_a_condition_is_remembered_by_its_numbers():
    parts = Parts()
    found, cond = ConditionFeatures(parts), torch.zeros(1, C)
    assert found(cond)[0, 1] == 0
    cond += 1
    assert found(cond)[0, 1] == C and parts.conditions == [1, 1]


@pytest.fixture
def computed(monkeypatch):
    """The number of conditions in each computation of a condition's part by a diffusion transformer."""
    seen, own = [], DiffusionTransformer.condition_features
    monkeypatch.setattr(
        DiffusionTransformer, "condition_features", lambda self, cond: seen.append(len(cond)) or own(self, cond)
    )
    return seen


@pytest.mark.parametrize("precision", ("float32", "bfloat16"))
def test_torch_itself_computes_the_part_of_a_costly_condition_once(precision, computed):
    whole, exact = dit(), precision == "float32"
    engine = make_engine("eager", whole, (H, D), (C,), max_rows=6, precision=precision)
    computed.clear()
    found, expected, cond = [], [], torch.randn(1, C)
    with torch.inference_mode():
        for rows in (1, 6, 3):
            found.append(engine(*inputs(whole, rows)[:2], cond.expand(rows, C)))
        assert computed == [1]
        for rows in (1, 6, 3):
            expected.append(whole(*inputs(whole, rows)[:2], cond.repeat(rows, 1)))
    tolerance = 1e-4 if exact else 0.1
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() < tolerance * other.std()


def test_a_draw_remembers_conditions_and_the_next_one_sees_new_weights(computed):
    made = dit()
    model, (x, t, cond) = Model(made), inputs(made, 4)
    with torch.no_grad():
        first = model(x, t, cond), model(x, t, cond)
        assert computed == [4] and torch.equal(*first)
        for parameter in made.parameters():
            parameter.data += 0.1  # leaves no trace
        after = model.fresh()(x, t, cond)
        torch.testing.assert_close(after, made(x, t, cond), rtol=1e-4, atol=1e-5)
    assert (after - first[0]).abs().max() > 1e-2


def test_what_is_remembered_has_no_gradients_so_it_is_not_used_for_them():
    made = dit()
    model, (x, t, cond) = Model(made), inputs(made, 2)
    with torch.no_grad():
        model(x, t, cond)
    cond.requires_grad_()
    model(x, t, cond).sum().backward()
    assert cond.grad.abs().sum() > 0
