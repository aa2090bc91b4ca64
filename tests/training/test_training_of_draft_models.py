"""Draft models are trained: they get closer to the policy's evaluations, and save rejections."""

import pytest
import torch
from torch import nn

from specpolicy import GaussianChain, SpecpolicyError, make_sampler, sample
from specpolicy.networks.correction_head import CorrectionHead
from specpolicy.samplers.base import NoiseSource
from specpolicy.samplers.recycled.calibration.recording import record_sequential
from specpolicy.training.draft_models import train_denoiser, train_head

SHAPE = torch.Size((2, 2))
CHAIN = GaussianChain.ddpm(20)
WEIGHT = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))


def policy(x, t, cond):
    """The noise in x, if the chunk were bent out of the condition, of x itself and of the time."""
    abar = CHAIN.process.alpha_bar.float()[t][:, None]
    x0 = torch.tanh(0.3 * x.flatten(1) @ WEIGHT * abar.sqrt() + cond + t[:, None] / 10)
    return ((x.flatten(1) - abar.sqrt() * x0) / (1 - abar).sqrt()).view_as(x)


class SmallDenoiser(nn.Module):
    """A draft model of a few weights, with the policy's kind of prediction."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(9, 48), nn.SiLU(), nn.Linear(48, 4))

    def forward(self, x, t, cond):
        """See `specpolicy.samplers.Denoiser`."""
        inputs = torch.cat([x.flatten(1), cond, t[:, None] / 20], dim=1)
        return self.body(inputs).view_as(x)


@pytest.fixture(scope="module")
def record():
    """(evaluations along 128 sequential chains, their conditions)."""
    cond = torch.randn(40, 4, generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)

    def noise(batch):
        return NoiseSource(generator, batch, torch.device("cpu"), torch.float32)

    return record_sequential(policy, CHAIN, SHAPE, cond, torch.arange(128) % 40, noise), cond


def rejections(cond, **options):
    """Rejections of a batch at conditions that were not trained on."""
    sampler = make_sampler("reflection", **options)
    out = sample(policy, CHAIN, (200, *SHAPE), cond.repeat(5, 1), sampler, torch.Generator().manual_seed(4))
    return int(out.stats.rejections.sum())


@pytest.mark.parametrize("kind", ("independent", "corrected"))
def test_training_lowers_the_loss_and_saves_rejections(record, kind):
    evaluations, cond = record
    torch.manual_seed(3)
    losses, generator = [], torch.Generator().manual_seed(3)
    if kind == "independent":
        model, train = SmallDenoiser(), train_denoiser
        options = {"drafter": "independent", "draft_denoiser": model}
    else:
        model, train = CorrectionHead(2, 2, 4, 20, width=48), train_head
        options = {"drafter": "corrected", "head": model}
    unseen = torch.randn(40, 4, generator=torch.Generator().manual_seed(9))
    with torch.inference_mode():
        before = rejections(unseen, **options)
    train(model, CHAIN, evaluations, cond, SHAPE, 300, generator, losses.append)
    assert not model.training and len(losses) == 300
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])
    assert rejections(unseen, **options) < 0.8 * before


def test_the_same_seeds_train_the_same_model(record):
    evaluations, cond = record
    trained = []
    for _ in range(2):
        torch.manual_seed(3)
        model = CorrectionHead(2, 2, 4, 20, width=8)
        train_head(model, CHAIN, evaluations, cond, SHAPE, 5, torch.Generator().manual_seed(3))
        trained.append(torch.cat([value.flatten() for value in model.state_dict().values()]))
    assert torch.equal(*trained)


@pytest.mark.parametrize(("train", "steps"), ((train_denoiser, 1), (train_head, 2)))
def test_a_chain_without_drafts_is_one_clear_line(record, train, steps):
    chain = GaussianChain.ddpm(20, steps)
    with pytest.raises(SpecpolicyError, match="too short for the draft model"):
        train(SmallDenoiser(), chain, record[0], record[1], SHAPE, 2, torch.Generator())
