"""A network as samplers see it: calls are noted, shapes are checked, nothing else changes."""

import pytest
import torch
from torch import nn

from specpolicy import SpecpolicyError, model
from specpolicy.engines.base import Engine, Workload
from specpolicy.model import Model, backend_name


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0), requires_grad=False)

    def forward(self, x, t, cond):
        return self.scale * x + t[:, None, None]


class Steam(Engine):
    """An engine that calls the network."""

    name = "steam"

    def __call__(self, x, t, cond):
        return self.workload.denoiser(x, t, cond)


def ask(denoiser, rows):
    return denoiser(torch.ones(rows, 3, 2), torch.arange(rows), None)


def test_it_counts_rows_and_changes_nothing():
    network = Network()
    counted = Model(network)
    for rows in (3, 1, 2):
        assert torch.equal(ask(counted, rows), ask(network, rows))
    assert counted.rows_by_call == [3, 1, 2] and counted.seconds > 0
    again = counted.fresh()
    assert again.rows_by_call == [] and again.seconds == 0 and again.network is network
    ask(again, 5)
    assert counted.rows_by_call == [3, 1, 2]


def test_its_time_is_that_of_the_network(monkeypatch):
    time = 0.0
    monkeypatch.setattr(model.time, "perf_counter", lambda: time)

    def denoiser(x, t, cond):
        nonlocal time
        time += len(x)
        return x

    counted = Model(denoiser)
    ask(counted, 2)
    time += 100  # of others
    ask(counted, 3)
    assert counted.seconds == 5


def test_what_runs_it_and_what_is_behind_it():
    network = Network()
    engine = Steam(Workload(network, (3, 2), None, 4))
    for denoiser, backend, behind in (
        (network, "cpu", network),
        (engine, "cpu-steam", network),
        (lambda x, t, cond: x, "cpu", None),
    ):
        made = Model(denoiser)
        assert (made.backend, made.network, made.device.type) == (backend, behind, "cpu")
        assert made.fresh().backend == backend and made.fresh().network is behind
    assert Model(engine, torch.device("cuda", 1)).backend == backend_name(torch.device("cuda"), "steam") == "cuda-steam"
    assert Model(network.to("meta")).device.type == "meta"
    # Whoever wraps a network in a function may say which it is.
    assert Model(lambda x, t, cond: x, network=network).network is network


@pytest.mark.parametrize(
    "wrong, found",
    (
        (lambda x: x[..., :1], r"shape \(2, 3, 1\)"),
        (lambda x: x[:1], r"shape \(1, 3, 2\)"),
        (lambda x: (x,), "tuple"),
    ),
)
def test_another_shape_is_refused(wrong, found):
    with pytest.raises(SpecpolicyError, match=rf"returned {found} for states of shape \(2, 3, 2\)"):
        ask(Model(lambda x, t, cond: wrong(x)), 2)
    with pytest.raises(SpecpolicyError, match=r"expected \(2, 3, 2, 7\)"):  # logits of seven tokens for each entry
        ask(Model(lambda x, t, cond: x, per_entry=(7,)), 2)
    assert ask(Model(lambda x, t, cond: x[..., None].expand(-1, -1, -1, 7), per_entry=(7,)), 2).shape == (2, 3, 2, 7)
