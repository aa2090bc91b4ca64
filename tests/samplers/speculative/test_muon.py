"""The optimiser of students' hidden layers: torch's own, in the precision of the weights."""

import pytest
import torch
from mixtures import conditional_mixture
from torch.utils._python_dispatch import TorchDispatchMode

from specpolicy import GaussianChain, calibrate
from specpolicy.samplers.recycled.calibration import Distillation, Effort
from specpolicy.samplers.recycled.calibration.muon import Muon, orthogonalised

SHAPES = ((24, 24), (40, 12), (12, 40), (1, 7))


def gradients(shape, steps):
    source = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=source) for _ in range(steps)]


def trained(optimiser, weight, steps=6):
    for gradient in gradients(weight.shape, steps):
        weight.grad = gradient
        optimiser.step()
    return weight.detach()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_singular_values_go_near_one(shape):
    found = torch.linalg.svdvals(orthogonalised(gradients(shape, 1)[0]))
    assert found.min() > 0.3 and found.max() < 1.3
    left, _, right = torch.linalg.svd(gradients(shape, 1)[0], full_matrices=False)
    assert (orthogonalised(gradients(shape, 1)[0]) * (left @ right)).sum() > 0.65 * min(shape)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has none to compare with")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_that_of_torch_but_for_rounding(shape):
    weights = [torch.nn.Parameter(torch.zeros(shape)) for _ in range(2)]
    own = trained(Muon([weights[0]], lr=0.01), weights[0])
    theirs = trained(
        torch.optim.Muon([weights[1]], lr=0.01, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"), weights[1]
    )
    assert (own - theirs).norm() < 0.03 * theirs.norm()  # bfloat16 has eight bits
    other = torch.nn.Parameter(torch.zeros(shape))
    without = trained(Muon([other], lr=0.01, momentum=0.0), other)
    assert (without - theirs).norm() > 0.1 * theirs.norm()


class Formats(TorchDispatchMode):
    """Notes the number formats of whatever is computed."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        self.seen |= {value.dtype for value in torch.utils._pytree.tree_leaves(result) if torch.is_tensor(value)}
        return result


@pytest.mark.parametrize("half", (False, True))
def test_calibration_computes_in_bfloat16_only_if_told(half):
    """Many CPUs have no instructions for it and take twenty to forty times as long."""
    chain = GaussianChain.ddpm(train_steps=8)
    denoiser, cond = conditional_mixture(chain.process)
    passes = (Distillation(2, batch=8, half=half),)
    effort = Effort(8, repeated=2, repeats=2, invented=4, scattered=2, rounds=4, passes=passes, tests=2, steps=(4,))
    with Formats() as formats:
        calibrate(denoiser, chain, (2, 2), cond, torch.Generator().manual_seed(0), effort)
    assert (torch.bfloat16 in formats.seen) == half
    assert torch.float16 not in formats.seen and torch.float32 in formats.seen
