"""The loss of policies that continue committed actions, and what they learn from executed actions alone."""

import dataclasses

import pytest
import torch

from specpolicy.data.dataset import Sequences
from specpolicy.errors import SpecpolicyError
from specpolicy.policy import DiffusionPolicy
from specpolicy.training import TrainingOptions, run_identity
from specpolicy.training.continuing import Continuing
from specpolicy.training.loss import Denoising, noised
from specpolicy.training.objectives import make_objective

PREFIX, FIRST = 3, 1


@pytest.fixture
def policy(policy_config):
    torch.manual_seed(0)
    return DiffusionPolicy.from_config({**policy_config, "prefix": PREFIX})


def batch(policy, rows=6, seed=0):
    source = torch.Generator().manual_seed(seed)
    labels, executed = torch.randn(2, rows, policy.horizon, 2, generator=source)
    objective = make_objective(policy)
    target = objective.prepare(labels, executed)
    return objective, target, torch.randn(rows, 10, generator=source), objective.draw(target.shape, source)


@torch.no_grad()
def test_the_error_of_open_entries_counts(policy):
    """Each window's mean over its open entries, computed one by one."""
    objective, target, cond, draws = batch(policy)
    draws["count"] = torch.tensor([0, 1, 2, 3, 3, 0])
    errors = []
    for row, count in enumerate(draws["count"].tolist()):
        labels, executed = target[row : row + 1].unbind(dim=1)
        t = draws["timestep"][row : row + 1]
        state, wanted = noised(policy.chain.process, labels, draws["noise"][row : row + 1], t)
        given = policy.prefix.pack(cond[row : row + 1], executed[:, FIRST:], torch.tensor([count]))
        output = policy.denoiser(state, t, given)
        free = [entry for entry in range(policy.horizon) if not FIRST <= entry < FIRST + count]
        errors.append((output - wanted)[:, free].square().mean())
    found = objective.loss(policy.denoiser, target, cond, draws, False)
    torch.testing.assert_close(found, torch.stack(errors).mean())


@torch.no_grad()
def test_committed_entries_are_executed_ones_and_no_target(policy):
    objective, target, cond, draws = batch(policy)
    draws["count"] = torch.full((6,), 2)
    expected = objective.loss(policy.denoiser, target, cond, draws, False)
    given = slice(FIRST, FIRST + 2)
    others = target.clone()
    others[:, 0, given] += 1  # labels where something else was executed, and executed actions that are still open
    others[:, 1, FIRST + 2 :] += 1
    torch.testing.assert_close(objective.loss(policy.denoiser, others, cond, draws, False), expected, rtol=0, atol=0)
    others[:, 1, given] += 1
    assert (objective.loss(policy.denoiser, others, cond, draws, False) - expected).abs() > 1e-5


def test_the_number_of_committed_actions_is_uniform(policy):
    objective, target, _, _ = batch(policy)
    draws = objective.draw(torch.Size((8000, *target.shape[1:])), torch.Generator().manual_seed(0))
    counts = torch.bincount(draws["count"], minlength=PREFIX + 1)
    statistic = (counts - 2000).square().sum() / 2000
    assert len(counts) == PREFIX + 1 and statistic < 27  # chi square, 3 degrees of freedom: false alarm 6e-6
    plain = Denoising(policy).draw(target[:, 0].shape, torch.Generator().manual_seed(4))
    ours = objective.draw(target.shape, torch.Generator().manual_seed(4))
    for name, value in plain.items():  # the same numbers as without a prefix, and then the counts
        torch.testing.assert_close(ours[name], value, rtol=0, atol=0)


def test_a_share_of_windows_has_nothing_committed(policy):
    objective = make_objective(policy, uncommitted=0.4)
    draws = objective.draw(torch.Size((8000, 2, policy.horizon, 2)), torch.Generator().manual_seed(0))
    counts = torch.bincount(draws["count"], minlength=PREFIX + 1)
    expected = torch.tensor([3200.0, 1600, 1600, 1600])
    assert len(counts) == PREFIX + 1
    assert ((counts - expected).square() / expected).sum() < 27  # chi square, 3 degrees of freedom: false alarm 6e-6
    for share, known in ((0, counts.new_tensor(0)), (1, counts.new_tensor(8000))):
        certain = make_objective(policy, share).draw(torch.Size((8000, 2, 4, 2)), torch.Generator().manual_seed(0))
        assert (certain["count"] == 0).sum() == known


def test_a_share_of_windows_is_refused_where_nothing_is_committed(small_policy):
    with pytest.raises(SpecpolicyError, match=r"uncommitted=0\.5: this policy continues no actions"):
        make_objective(small_policy, 0.5)
    for wrong in (1.5, "some", True):
        with pytest.raises(SpecpolicyError, match="uncommitted is a share, from 0 to 1, got"):
            TrainingOptions(uncommitted=wrong)  # type: ignore[arg-type]


def test_the_share_decides_the_result_and_old_runs_go_on():
    assert "uncommitted" not in TrainingOptions().deciding(False)
    assert TrainingOptions(uncommitted=0.5).deciding(False)["uncommitted"] == 0.5


def test_without_a_prefix_nothing_changes(small_policy, policy):
    assert isinstance(make_objective(small_policy), Denoising)
    assert isinstance(make_objective(policy), Continuing)
    windows = answers(20)
    bare = dataclasses.replace(windows, executed=None)
    options = TrainingOptions(steps=2)
    same = [run_identity(small_policy, one, None, options) for one in (windows, bare)]
    assert same[0] == same[1]  # a run that was saved before data had executed actions goes on
    other = [run_identity(policy, one, None, options) for one in (windows, bare)]
    assert other[0]["data"] != other[1]["data"]


def answers(count=256, seed=0):
    """Windows in which the action after the first one takes back what was executed instead of the label, zero."""
    source = torch.Generator().manual_seed(seed)
    noise = torch.rand(count, 2, generator=source) * 2 - 1
    labels, executed = torch.zeros(2, count, 4, 2)
    executed[:, FIRST] = noise
    labels[:, FIRST + 1] = executed[:, FIRST + 1] = -noise
    observation = {"position": torch.zeros(count, 2, 2), "object": torch.zeros(count, 2, 3)}
    return Sequences(observation, labels, executed=executed)


def test_the_answer_to_noise_is_learnt_from_executed_actions_alone(policy_config):
    """With the labels in their place the network never meets a committed action that is not the planned one."""
    policy_config["chain"] |= {"prediction": "sample"}
    assert _answer(policy_config, answers()) < -0.9
    assert _answer(policy_config, dataclasses.replace(answers(), executed=None)) > -0.5


def _answer(config, windows, steps=100):
    """Correlation of a committed action with the next one, as the network plans it from pure noise."""
    torch.manual_seed(0)
    small = {"kind": "transformer", "n_layer": 1, "n_head": 2, "n_emb": 32, "p_drop_attn": 0.0}
    policy = DiffusionPolicy.from_config({**config, "network": small, "prefix": 1, "horizon": 4, "n_action_steps": 2})
    objective, source = make_objective(policy), torch.Generator().manual_seed(0)
    target, cond = objective.prepare(windows.action, windows.executed), torch.zeros(32, 10)
    optimiser = torch.optim.Adam(policy.denoiser.parameters(), lr=5e-3)
    for _ in range(steps):
        rows = torch.randint(len(target), (32,), generator=source)
        optimiser.zero_grad()
        objective.loss(
            policy.denoiser, target[rows], cond, objective.draw(target[rows].shape, source), False
        ).backward()
        optimiser.step()
    given = torch.rand(64, 1, 2, generator=source) * 1.6 - 0.8
    told = policy.prefix.pack(torch.zeros(64, 10), given, torch.ones(64))
    with torch.no_grad():
        planned = policy.denoiser(torch.randn(64, 4, 2, generator=source), torch.full((64,), 19), told)[:, FIRST + 1]
    return float(torch.corrcoef(torch.stack([planned.flatten(), given.flatten()]))[0, 1])
