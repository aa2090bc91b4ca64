"""Every sampler on a GPU that is not there: nothing mixes devices, and a round waits once."""

import inspect

import pytest
import torch
from in_place import InPlace
from pretend_gpu import GPU, Pretended, PretendGpu
from torch import nn

from specpolicy import Calibration, GaussianChain, make_sampler, sample
from specpolicy.benchmarking.launches import count_launches
from specpolicy.engines.base import Workload
from specpolicy.engines.eager import EagerEngine
from specpolicy.model import Model
from specpolicy.samplers import BoundSampler, Setting
from specpolicy.samplers.recycled.calibration.tuning import Trial
from specpolicy.samplers.recycled.surrogates import GaussianSurrogate, StudentSurrogate

SHAPE, COND = (4, 2), 3


class Network(nn.Module):
    """Not linear in the state, and its parameters are where it is."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(COND, 8, generator=generator), requires_grad=False)

    def forward(self, x, t, cond):
        return torch.tanh(2 * x + (cond @ self.weight).view_as(x)) * (1 + t[:, None, None] / 40)


def calibration():
    torch.manual_seed(0)
    alpha_bar = GaussianChain.ddpm(20).process.alpha_bar
    student = StudentSurrogate(alpha_bar, SHAPE, COND, width=8, context=4, hidden=16, observation=16, blocks=1)
    return Calibration(GaussianSurrogate(alpha_bar, SHAPE, COND), student.eval().requires_grad_(False))


SAMPLERS = {
    "ddpm": {"name": "ddpm"},
    "ddim": {"name": "ddim", "steps": 5},
    "picard": {"name": "picard"},
    "asd": {"name": "asd"},
    "residual": {"name": "residual", "drafter": "frozen_root"},
    "block": {"name": "block"},
    "window": {"name": "reflection", "drafter": "free", "window": 3},
    "recycled": {"name": "recycled", "rejoin": False},
    "rejoining": {"name": "recycled", "rejoin": True},
    "student": {"name": "recycled", "calibration": calibration(), "window": None, "rejoin": False},
    "linear": {"name": "recycled", "calibration": calibration(), "window": None, "student": False, "rejoin": False},
}


@pytest.mark.parametrize("batch", (1, 3))
@pytest.mark.parametrize("label", SAMPLERS)
def test_a_sampler_draws_the_same_chunks_there(label, batch):
    sampler, network = make_sampler(**SAMPLERS[label]), Network()
    cond = torch.randn(batch, COND, generator=torch.Generator().manual_seed(1))

    def draw(cond):
        chain = GaussianChain.ddpm(20)
        return inspect.unwrap(sample)(network, chain, (batch, *SHAPE), cond, sampler, torch.Generator().manual_seed(2))

    expected = draw(cond)
    # Inference mode keeps the operations of tensors that are no torch tensors from being seen one by one.
    with torch.no_grad(), PretendGpu() as gpu:
        network.to(GPU)
        out = draw(cond.to(GPU))
    assert isinstance(out.actions, Pretended)
    torch.testing.assert_close(out.actions.held, expected.actions)  # a product may add up in another order
    assert torch.equal(out.stats.calls, expected.stats.calls)
    rounds = len(out.stats.accepted)
    if batch == 1 and rounds and label != "rejoining":
        assert len(gpu.waits) == rounds > 2, gpu.waits


class Engine(EagerEngine):
    """What captures there: operations are run one by one, unseen by whoever counts those that Python launches."""

    name = "captured"

    def __init__(self, workload):
        super().__init__(workload)
        self.capture = InPlace(workload.denoiser)


@pytest.mark.parametrize(
    "label", ("ddpm", "ddim", "asd", "residual", "block", "window", "recycled", "student", "linear")
)
def test_a_chunk_in_captured_rounds_is_the_same_and_each_waits_once(label):
    sampler, network, chain = make_sampler(**SAMPLERS[label]), Network(), GaussianChain.ddpm(20)
    cond = torch.randn(1, COND, generator=torch.Generator().manual_seed(1))

    def bound(network):
        setting = Setting(Model(network), chain, torch.Size(SHAPE))
        return BoundSampler(sampler, setting)

    expected = bound(network)(1, cond, torch.Generator().manual_seed(2))
    with torch.no_grad(), PretendGpu() as gpu:
        network.to(GPU)
        captured = bound(Engine(Workload(network, SHAPE, (COND,), 20)))
        for _ in range(2):  # the first chunk makes what is captured
            del gpu.waits[:]
            out = inspect.unwrap(captured.__call__)(1, cond.to(GPU), torch.Generator().manual_seed(2))
    torch.testing.assert_close(out.actions.held, expected.actions)
    assert torch.equal(out.stats.calls, expected.stats.calls)
    assert len(out.stats.accepted) > 2 or label.startswith("dd")
    assert len(gpu.waits) == max(1, len(out.stats.accepted)), gpu.waits


@pytest.mark.parametrize("label, most", (("ddpm", 0), ("asd", 2), ("residual", 2), ("block", 10), ("student", 2)))
def test_python_launches_few_operations_beside_what_is_captured(label, most):
    """Ten a round at most. Block verification needs new noises in each."""
    sampler, chain = make_sampler(**SAMPLERS[label]), GaussianChain.ddpm(20)
    engine = Engine(Workload(Network(), SHAPE, (COND,), 20))
    engine.capture = InPlace(engine.workload.denoiser, hidden=True)
    draw, cond = BoundSampler(sampler, Setting(Model(engine), chain, torch.Size(SHAPE))), torch.ones(1, COND)
    with torch.no_grad():
        draw(1, cond, torch.Generator().manual_seed(2))
        outs = []
        found = count_launches(lambda: outs.append(draw(1, cond, torch.Generator().manual_seed(2))), engine)
    rounds = len(outs[0].stats.accepted)
    extra = 16 if rounds else 40  # sequential samplers draw a noise for each step
    assert found.outside <= most * rounds + extra, found


def test_there_paths_do_not_rejoin_unless_they_are_told_to():
    """For that is decided on the CPU, and each sweep would wait."""
    waits = {}
    for rejoin in (None, False, True):
        sampler = make_sampler("recycled", rejoin=rejoin)
        with torch.no_grad(), PretendGpu() as gpu:
            chain, generator = GaussianChain.ddpm(20), torch.Generator().manual_seed(2)
            network, cond = Network().to(GPU), torch.ones(1, COND).to(GPU)
            inspect.unwrap(sample)(network, chain, (1, *SHAPE), cond, sampler, generator)
        waits[rejoin] = len(gpu.waits)
    assert waits[None] == waits[False] < waits[True]


def test_a_calibration_is_timed_where_the_network_is():
    """It stays on the CPU, where it was read."""
    known, chain = calibration(), GaussianChain.ddpm(20)
    with torch.no_grad(), PretendGpu():
        cond = torch.ones(2, COND).to(GPU)
        trial = Trial(Network().to(GPU), torch.Size(SHAPE), cond, GPU, seed=0)
        for student in (False, True):
            sampler = make_sampler("recycled", calibration=known, student=student)
            assert trial.beside(sampler, chain, chunks=2) > 0
    assert known.prior.basis.device.type == known.student.basis.device.type == "cpu"


def test_what_a_gpu_refuses_is_refused():
    with PretendGpu() as gpu:
        there = torch.ones(3).to(GPU)
        assert torch.equal((2 * there + torch.arange(3, device=GPU)).held, torch.tensor([2.0, 3.0, 4.0]))
        assert not gpu.waits
        with pytest.raises(AssertionError, match=r"add: .* on the CPU, 1 on the GPU"):
            there + torch.ones(3)
        assert float(there.sum()) == 3 and there.cpu().tolist() == [1, 1, 1] and len(there[there > 0]) == 3
        assert len(gpu.waits) == 3
