"""A policy of action tokens learns from demonstrations, and a run that was killed goes on to the bit."""

import math

import pytest
import torch

from specpolicy import make_sampler
from specpolicy.data.dataset import Sequences
from specpolicy.policy import TokenPolicy
from specpolicy.training import TrainingOptions, train
from specpolicy.training.loss import Unmasking

OPTIONS = dict(batch_size=32, log_every=5, validate_every=10, save_every=10, warmup_steps=5, learning_rate=1e-2)


class Curve:
    """A logger that keeps the losses, and dies at a step, if it is told to."""

    def __init__(self, dies_at=None):
        self.rows, self.dies_at = {}, dies_at

    def log(self, metrics, step):
        if self.dies_at is not None and step >= self.dies_at:
            raise KeyboardInterrupt
        self.rows.setdefault(step, {}).update({key: value for key, value in metrics.items() if "second" not in key})


def sequences(count=128, seed=0):
    """Chunks that move towards where `position` points."""
    generator = torch.Generator().manual_seed(seed)
    goal = torch.rand(count, 1, 2, generator=generator) * 2 - 1
    observation = {"position": goal.expand(-1, 2, -1), "object": torch.zeros(count, 2, 3)}
    ramp = torch.linspace(0, 1, 4).reshape(1, 4, 1)
    moves = torch.cat(
        [goal * ramp * torch.tensor([2.0, 4.0]) + torch.tensor([0.0, 4.0]), goal[..., :1].expand(-1, 4, -1)], 2
    )
    return Sequences(observation, moves)


def fresh(config):
    torch.manual_seed(0)
    return TokenPolicy.from_config(config)


def test_training_teaches_it_where_to_go(token_config, tmp_path):
    curve, data, held_out = Curve(), sequences(), sequences(32, 1)
    policy = train(fresh(token_config), data, held_out, TrainingOptions(steps=200, **OPTIONS), tmp_path, curve)
    losses = [row["validation/loss"] for row in curve.rows.values() if "validation/loss" in row]
    assert losses[0] < 1.2 * math.log(8) and losses[-1] < 0.6 * losses[0]
    out = policy.predict(held_out.observation, make_sampler("confidence", sampled=False))
    error = policy.normaliser.normalise("action", out.actions - held_out.action).abs().mean()
    nothing = policy.normaliser.normalise("action", held_out.action.mean(0) - held_out.action).abs().mean()
    assert error < 0.8 * nothing


def test_actions_outside_the_bins_are_counted_and_logged_once(token_config, tmp_path):
    training, validation, curve = sequences(), sequences(16, 1), Curve()
    token_config["normaliser"]["action"] = {"scale": [0.5, 0.25, 1.0], "offset": [0.0, -1.0, 0.5]}
    train(fresh(token_config), training, validation, TrainingOptions(steps=10, **OPTIONS), tmp_path, curve)
    normalised = [fresh(token_config).normaliser.normalise("action", data.action) for data in (training, validation)]
    outside = [int((actions.abs() > 1).sum()) for actions in normalised]
    assert min(outside) > 0
    assert [curve.rows[5][f"{part}/clipped_actions"] for part in ("train", "validation")] == outside
    assert "train/clipped_actions" not in curve.rows[10]


def test_a_killed_run_resumes_to_the_same_weights(token_config, tmp_path):
    options, data = TrainingOptions(steps=30, **OPTIONS), (sequences(), sequences(16, 1))
    whole, rest = Curve(), Curve()
    expected = train(fresh(token_config), *data, options, tmp_path / "whole", whole)
    with pytest.raises(KeyboardInterrupt):
        train(fresh(token_config), *data, options, tmp_path / "killed", Curve(dies_at=25))
    resumed = train(fresh(token_config), *data, options, tmp_path / "killed", rest)
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in expected.state_dict().items())
    assert rest.rows[30]["validation/loss"] == whole.rows[30]["validation/loss"]


def test_the_loss_counts_masked_tokens_only_and_at_least_one(token_policy):
    """A network that knows every token that is not masked, and nothing of the others, loses log V."""
    objective, seen = Unmasking(token_policy), []

    def copying(state, remaining, cond):
        masked = state == 8
        seen.append((masked.flatten(1).sum(dim=1), remaining))
        known = torch.nn.functional.one_hot(state.clamp(max=7), 8) * 100.0
        return torch.where(masked[..., None], torch.zeros(8), known)

    target = torch.randint(8, (500, 4, 3), generator=torch.Generator().manual_seed(0))
    draws = objective.draw(target.shape, torch.Generator().manual_seed(1))
    loss = objective.loss(copying, target, torch.zeros(500, 2, 5), draws, False)
    assert float(loss) == pytest.approx(math.log(8))
    counted, told = seen[0]
    assert torch.equal(counted, told) and counted.min() >= 1 and counted.max() == 12
    assert float(counted.float().mean()) == pytest.approx(12 * 2 / math.pi + 0.5, abs=0.5)
