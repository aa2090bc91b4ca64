"""The trainer: it learns, it resumes to the bit, it refuses what it cannot do."""

import copy
import itertools
import math
import os

import pytest
import torch

from specpolicy import GaussianChain, SpecpolicyError, load_policy
from specpolicy.data.dataset import Sequences
from specpolicy.diffusion import TrainingProcess
from specpolicy.diffusion.schedules import cumulative_alphas
from specpolicy.policy import DiffusionPolicy
from specpolicy.training import TrainingOptions, batches, state, train
from specpolicy.training.ema import ema_decay, update_ema
from specpolicy.training.loss import noised
from specpolicy.training.state import RunState, learning_rate


class Curve:
    """A logger that keeps everything."""

    def __init__(self):
        self.rows = {}

    def log(self, metrics, step):
        kept = {name: value for name, value in metrics.items() if "second" not in name}
        self.rows.setdefault(step, {}).update(kept)


class Killed(Exception):
    pass


class KilledAt(Curve):
    """A logger that dies at a step, as a killed process does between two saves."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def log(self, metrics, step):
        if step >= self.at:
            raise Killed
        super().log(metrics, step)


def sequences(count=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    goal = torch.rand(count, 1, 2, generator=generator) * 2 - 1
    observation = {"position": goal.expand(-1, 2, -1), "object": torch.zeros(count, 2, 3)}
    ramp = torch.linspace(0, 1, 8).reshape(1, 8, 1)
    return Sequences(observation, (goal * ramp * torch.tensor([2.0, 4.0]) + torch.tensor([0.0, 4.0])))


def fresh(config):
    torch.manual_seed(0)
    return DiffusionPolicy.from_config(copy.deepcopy(config))


OPTIONS = dict(steps=40, batch_size=16, log_every=5, validate_every=10, save_every=10, warmup_steps=5)


@pytest.mark.parametrize("name", ("training.pt", "model.safetensors", "config.json"))
@pytest.mark.parametrize("save", (1, 3))
def test_a_run_that_ends_while_it_saves_goes_on(policy_config, tmp_path, monkeypatch, name, save):
    """A kill or a full disk at any of the files of any save, the last one too."""
    options, data = TrainingOptions(**{**OPTIONS, "steps": 6, "save_every": 2}), (sequences(), None)
    expected = train(fresh(policy_config), *data, options, tmp_path / "whole", Curve())
    replace, seen = os.replace, []

    def dying(source, target):
        seen.append(os.path.basename(target))
        if seen.count(name) == save:
            raise Killed
        return replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        with pytest.raises(Killed):
            train(fresh(policy_config), *data, options, tmp_path / "killed", Curve())
    # A checkpoint is never there without what its training needs to go on.
    assert (tmp_path / "killed" / "training.pt").exists() or not (tmp_path / "killed" / "config.json").exists()
    train(fresh(policy_config), *data, options, tmp_path / "killed", Curve())
    found = load_policy(tmp_path / "killed").denoiser.state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.denoiser.state_dict().items())


@pytest.mark.parametrize("prediction", ("epsilon", "sample", "v_prediction"))
def test_training_lowers_the_validation_loss(policy_config, tmp_path, prediction):
    policy_config["chain"]["prediction"] = prediction
    curve = Curve()
    options = TrainingOptions(**{**OPTIONS, "steps": 300, "validate_every": 20})
    train(fresh(policy_config), sequences(), sequences(16, 1), options, tmp_path, curve)
    losses = [row["validation/loss"] for row in curve.rows.values() if "validation/loss" in row]
    assert losses[-1] < 0.7 * losses[0]


def test_a_killed_run_resumes_to_the_same_curve_and_weights(policy_config, tmp_path):
    options, whole, first, second = TrainingOptions(**OPTIONS), Curve(), KilledAt(25), Curve()
    data = sequences(), sequences(16, 1)
    expected = train(fresh(policy_config), *data, options, tmp_path / "whole", whole)
    with pytest.raises(Killed):
        train(fresh(policy_config), *data, options, tmp_path / "killed", first)
    resumed = train(fresh(policy_config), *data, options, tmp_path / "killed", second)
    assert min(second.rows) == 25  # it went on from the save at step 20
    for step, row in second.rows.items():
        if step > 25:
            assert row == whole.rows[step]
    for name, value in expected.denoiser.state_dict().items():
        assert torch.equal(resumed.denoiser.state_dict()[name], value), name
    again = Curve()
    train(fresh(policy_config), *data, options, tmp_path / "whole", again)
    assert not again.rows  # a finished run has nothing left to do


def scaled(found, factor):
    return Sequences(found.observation, found.action * factor)


def with_observation(found, **changes):
    return Sequences({**found.observation, **changes}, found.action)


OTHERS = {  # what is changed after a kill, of (options, policy's configuration, training and validation windows); words
    "learning rate": (lambda o, p, t, v: ({**o, "learning_rate": 1e-4}, p, t, v), "another learning_rate"),
    "schedule": (lambda o, p, t, v: ({**o, "steps": 50}, p, t, v), "another steps"),
    "seed": (lambda o, p, t, v: ({**o, "seed": 1}, p, t, v), "another seed"),
    "larger actions": (lambda o, p, t, v: (o, p, scaled(t, 100), v), "other data"),
    "one value": (
        lambda o, p, t, v: (o, p, with_observation(t, object=t.observation["object"] + 1e-3), v),
        "other data",
    ),
    "more windows": (lambda o, p, t, v: (o, p, sequences(65), v), r"other data \(64 windows for training, not 65\)"),
    "validation windows": (lambda o, p, t, v: (o, p, t, sequences(17, 1)), "16 windows for validation, not 17"),
    "no validation": (lambda o, p, t, v: (o, p, t, None), "validation"),
    "prediction": (
        lambda o, p, t, v: (o, {**p, "chain": {**p["chain"], "prediction": "sample"}}, t, v),
        r"another chain \(prediction=\w+, not sample\)",
    ),
    "beta schedule": (lambda o, p, t, v: (o, {**p, "chain": {**p["chain"], "beta_schedule": "linear"}}, t, v), "chain"),
    "normaliser": (
        lambda o, p, t, v: (
            o,
            {**p, "normaliser": {**p["normaliser"], "action": {"scale": [5.0, 2.5], "offset": [0.0, 0.0]}}},
            t,
            v,
        ),
        "another normaliser",
    ),
    "order of the observation": (
        lambda o, p, t, v: (o, {**p, "observation": dict(reversed(p["observation"].items()))}, t, v),
        "another observation_keys",
    ),
    "steps executed": (lambda o, p, t, v: (o, {**p, "n_action_steps": 3}, t, v), "another n_action_steps"),
    "task": (lambda o, p, t, v: (o, {**p, "task": {"name": "other"}}, t, v), "another task"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_run_is_not_continued_under_the_old_weights(policy_config, tmp_path, name):
    options = OPTIONS | {"steps": 2, "save_every": 1}
    given = options, policy_config, sequences(), sequences(16, 1)
    train(fresh(given[1]), given[2], given[3], TrainingOptions(**given[0]), tmp_path, Curve())
    before = (tmp_path / "training.pt").read_bytes(), (tmp_path / "model.safetensors").read_bytes()
    change, words = OTHERS[name]
    other, config, training, validation = change(*copy.deepcopy(given))
    with pytest.raises(SpecpolicyError, match=words) as caught:
        train(fresh(config), training, validation, TrainingOptions(**other), tmp_path, Curve())
    assert "\n" not in str(caught.value) and "overwrite=true" in str(caught.value)
    assert ((tmp_path / "training.pt").read_bytes(), (tmp_path / "model.safetensors").read_bytes()) == before
    again = Curve()  # and the same run, from another command, goes on: there is nothing left to do
    train(fresh({**policy_config, "command": "other"}), *given[2:], TrainingOptions(**options), tmp_path, again)
    assert not again.rows


def test_a_state_that_does_not_say_whose_it_is_is_not_continued(policy_config, tmp_path):
    torch.save({"step": 2, "options": OPTIONS}, tmp_path / "training.pt")
    with pytest.raises(SpecpolicyError, match="does not say which data"):
        train(fresh(policy_config), sequences(), None, TrainingOptions(**OPTIONS), tmp_path, Curve())
    (tmp_path / "training.pt").write_bytes(b"notes")
    with pytest.raises(SpecpolicyError, match="cannot be read"):
        train(fresh(policy_config), sequences(), None, TrainingOptions(**OPTIONS), tmp_path, Curve())


def test_another_network_is_not_continued(policy_config, tmp_path):
    train(fresh(policy_config), sequences(), None, TrainingOptions(**OPTIONS), tmp_path, Curve())
    policy_config["network"]["down_dims"] = [16, 48]
    with pytest.raises(SpecpolicyError, match="another network"):
        train(fresh(policy_config), sequences(), None, TrainingOptions(**OPTIONS), tmp_path, Curve())


def test_rollouts_are_called_with_the_average_and_logged(policy_config, tmp_path):
    steps, curve = [], Curve()

    def rollout(policy, step):
        assert not policy.denoiser.training
        steps.append(step)
        return {"success": 0.5}

    options = TrainingOptions(**OPTIONS, rollout_every=20)
    train(fresh(policy_config), sequences(), None, options, tmp_path, curve, rollout=rollout)
    assert steps == [20, 40] and curve.rows[20]["rollout/success"] == 0.5


def test_a_rollout_that_fails_costs_no_training(policy_config, tmp_path):
    def rollout(policy, step):
        raise Killed

    curve, data = Curve(), (sequences(), None)
    with pytest.raises(Killed):
        options = TrainingOptions(**OPTIONS, rollout_every=20)
        train(fresh(policy_config), *data, options, tmp_path, curve, rollout=rollout)
    assert set(curve.rows[20]) == {"train/loss", "train/learning_rate"}
    again = Curve()
    train(fresh(policy_config), *data, TrainingOptions(**OPTIONS), tmp_path, again)
    assert min(again.rows) == 25  # it went on from the save at step 20, with other rollouts


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
        train(fresh(policy_config), sequences(), None, TrainingOptions(**OPTIONS), tmp_path, curve)
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
            policy = train(fresh(config), sequences(), None, options, tmp_path / f"{name}{shift}", Curve())
        return torch.cat([one.flatten() for one in policy.denoiser.parameters()])

    for name, config in (("none", policy_config), ("some", {**policy_config, "network": DROPPING})):
        assert torch.equal(weights(config, name, 0), weights(config, name, 1)) == (name == "none")
    assert len(set(seeded)) == 8 and len(set(drawn)) == 4
    assert not set(seeded) & set(drawn)


def test_bfloat16_trains_float32_weights(policy_config, tmp_path):
    options = TrainingOptions(**OPTIONS, precision="bfloat16")
    curve = Curve()
    policy = train(fresh(policy_config), sequences(), None, options, tmp_path, curve)
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
