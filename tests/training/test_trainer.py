"""The trainer: it learns, it plays, it refuses what it cannot do. Runs that go on: test_resuming.py."""

import itertools
import math
from contextlib import nullcontext

import pytest
import torch
from toy_runs import OPTIONS, Curve, Killed, fresh
from toy_windows import windows

from specpolicy import GaussianChain, SpecpolicyError, load_policy
from specpolicy.diffusion import TrainingProcess
from specpolicy.diffusion.schedules import cumulative_alphas
from specpolicy.training import TrainingOptions, batches, state, train
from specpolicy.training.ema import ema_decay, update_ema
from specpolicy.training.loss import noised
from specpolicy.training.state import RunState, learning_rate


@pytest.mark.parametrize("prediction", ("epsilon", "sample", "v_prediction"))
def test_training_lowers_the_validation_loss(policy_config, tmp_path, prediction):
    policy_config["chain"]["prediction"] = prediction
    curve = Curve()
    options = TrainingOptions(**{**OPTIONS, "steps": 300, "validate_every": 20})
    train(fresh(policy_config), windows(), windows(16, 1), options, tmp_path, curve)
    losses = [row["validation/loss"] for row in curve.rows.values() if "validation/loss" in row]
    assert losses[-1] < 0.7 * losses[0]


def test_rollouts_are_called_with_the_average_and_logged(policy_config, tmp_path):
    steps, curve = [], Curve()

    def rollout(policy, step):
        assert not policy.denoiser.training
        steps.append(step)
        return {"success": 0.5}

    options = TrainingOptions(**OPTIONS, rollout_every=20)
    train(fresh(policy_config), windows(), None, options, tmp_path, curve, rollout=rollout)
    assert steps == [20, 40] and curve.rows[20]["rollout/success"] == 0.5


def test_a_rollout_that_fails_costs_no_training(policy_config, tmp_path):
    def rollout(policy, step):
        raise Killed

    curve, data = Curve(), (windows(), None)
    with pytest.raises(Killed):
        options = TrainingOptions(**OPTIONS, rollout_every=20)
        train(fresh(policy_config), *data, options, tmp_path, curve, rollout=rollout)
    assert set(curve.rows[20]) == {"train/loss", "train/learning_rate"}
    again = Curve()
    train(fresh(policy_config), *data, TrainingOptions(**OPTIONS), tmp_path, again)
    assert min(again.rows) == 25  # it went on from the save at step 20, with other rollouts


def test_a_rollout_that_failed_is_played_on_resuming_and_none_twice(policy_config, tmp_path):
    options, data, played = TrainingOptions(**OPTIONS, rollout_every=20), (windows(), None), []

    def rollout(policy, step):
        assert not policy.denoiser.training
        played.append(step)
        if len(played) in failing:
            raise Killed
        return {"success": step / 40}

    failing = (1, 3)  # the one in the middle and the last
    for steps in ([20], [20, 40], [40], []):
        curve, before = Curve(), len(played)
        with pytest.raises(Killed) if before + len(steps) in failing else nullcontext():
            train(fresh(policy_config), *data, options, tmp_path, curve, rollout=rollout)
        assert played[before:] == steps
        assert all(curve.rows[step]["rollout/success"] == step / 40 for step in steps if step in rolled(curve))


def rolled(curve):
    return [step for step, row in curve.rows.items() if "rollout/success" in row]


@pytest.mark.parametrize(
    ("what", "at", "kept"),
    (("loss", 15, "the save of step 10 is kept"), ("weights", 20, "the save of step 10"), ("loss", 5, "nothing was")),
)
def test_a_training_that_diverges_ends_and_keeps_its_last_save(policy_config, tmp_path, monkeypatch, what, at, kept):
    update = RunState.update

    def diverging(self, learner, passes, step, group):
        loss = update(self, learner, passes, step, group)
        if step + 1 == at and what == "weights":  # the loss was that of the weights before
            next(self.policy.denoiser.parameters()).data.view(-1)[0] = math.inf
        return loss * math.nan if step + 1 >= at and what == "loss" else loss

    monkeypatch.setattr(RunState, "update", diverging)
    curve = Curve()
    with pytest.raises(SpecpolicyError, match=f"the {what} .* no longer finite at step {at}: {kept}") as caught:
        train(fresh(policy_config), windows(), None, TrainingOptions(**OPTIONS), tmp_path, curve)
    assert "smaller learning_rate" in str(caught.value) and "\n" not in str(caught.value)
    if at == 5:
        assert not list(tmp_path.iterdir())
    else:
        assert torch.load(tmp_path / "training.pt", weights_only=True)["step"] == 10
        assert all(bool(one.isfinite().all()) for one in load_policy(tmp_path).parameters())


DROPPING = {"kind": "transformer", "n_layer": 1, "n_head": 2, "n_emb": 16, "p_drop_attn": 0.2}


def test_dropout_has_seeds_of_its_own(policy_config, tmp_path, monkeypatch):
    """And where there is none, no weight follows from them."""
    drawn, seeded = [], []
    generator, block = batches._generator, state._seeded

    def noting(options, step):
        found = generator(options, step)
        drawn.append(found.initial_seed())
        return found

    def weights(config, name, shift):
        with monkeypatch.context() as patch:
            patch.setattr(batches, "_generator", noting)
            patch.setattr(state, "_seeded", lambda device, seed: seeded.append(seed) or block(device, seed + shift))
            options = TrainingOptions(**{**OPTIONS, "steps": 4, "accumulate": 2})
            policy = train(fresh(config), windows(), None, options, tmp_path / f"{name}{shift}", Curve())
        return torch.cat([one.flatten() for one in policy.denoiser.parameters()])

    for name, config in (("none", policy_config), ("some", {**policy_config, "network": DROPPING})):
        assert torch.equal(weights(config, name, 0), weights(config, name, 1)) == (name == "none")
    assert len(set(seeded)) == 8 and len(set(drawn)) == 4
    assert not set(seeded) & set(drawn)


def test_bfloat16_trains_float32_weights(policy_config, tmp_path):
    options = TrainingOptions(**OPTIONS, precision="bfloat16")
    curve = Curve()
    policy = train(fresh(policy_config), windows(), None, options, tmp_path, curve)
    assert all(p.dtype is torch.float32 and bool(p.isfinite().all()) for p in policy.denoiser.parameters())
    assert curve.rows[40]["train/loss"] < curve.rows[5]["train/loss"]


def test_the_learning_rate_warms_up_and_falls_to_zero():
    options = TrainingOptions(steps=100, warmup_steps=10, learning_rate=1.0)
    rates = [learning_rate(options, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == rates[9] == 1.0 and rates[100] == pytest.approx(0)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


def test_ema_is_the_recursion_it_says():
    average, model = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    before = average.weight.clone()
    update_ema(average, model, 0.9)
    torch.testing.assert_close(average.weight, 0.9 * before + 0.1 * model.weight)
    assert ema_decay(0) == 0 and ema_decay(1) < ema_decay(1000) < ema_decay(10**9) == 0.9999


@pytest.mark.parametrize("prediction", ("epsilon", "sample", "v_prediction"))
def test_the_target_is_what_the_chain_reads(prediction):
    """Given the perfect target as the network's output, the chain recovers the chunk."""
    process = TrainingProcess(cumulative_alphas(50, "squaredcos_cap_v2"), prediction)
    chunk, noise = (torch.randn(6, 4, 2, dtype=torch.float64) for _ in range(2))
    timestep = torch.tensor([0, 3, 10, 25, 40, 48])
    state, target = noised(process, chunk, noise, timestep)
    chain = GaussianChain.ddpm(50, 50, prediction=prediction, clip=None)
    torch.testing.assert_close(chain.x0(target, state, 49 - timestep), chunk)


@pytest.mark.parametrize("change", ({"precision": "float8"}, {"steps": 0}, {"batch_size": 0}))
def test_bad_options_are_one_clear_line(change):
    with pytest.raises(SpecpolicyError, match=next(iter(change))):
        TrainingOptions(**change)
