"""Policies that continue committed actions: each lands in its place, and nothing else changes."""

import copy
import pickle

import numpy as np
import pytest
import torch

from specpolicy import Committed, SpecpolicyError
from specpolicy.committed import WAYS
from specpolicy.control import PolicyPlanner
from specpolicy.policy import DiffusionPolicy

FREE = WAYS[:4]  # those that every policy has on its own engine
SAMPLERS = ("ddpm", "ddim-4", "block", "recycled")


def observation(batch=3, frames=2):
    source = torch.Generator().manual_seed(7)
    return {
        "position": torch.randn(batch, frames, 2, generator=source),
        "object": torch.randn(batch, frames, 3, generator=source),
    }


def seeds(batch, first=0):
    return [torch.Generator().manual_seed(first + row) for row in range(batch)]


def plan(count, known=5, way="inpaint"):
    """Actions within the normaliser's range: x in [-2, 2], y in [0, 8]."""
    return Committed(np.stack([np.linspace(-1.5, 1.5, known), np.linspace(1, 7, known)], axis=1), count, way)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("way", FREE)
def test_committed_actions_are_in_their_places(small_policy, way, sampler):
    first, committed = small_policy.first_action, plan(3, way=way)
    for batch in (1, 2):
        out = small_policy.predict(observation(batch), sampler, seeds(batch), committed=committed)
        for chunk in out.actions.numpy():
            np.testing.assert_allclose(chunk[first : first + 3], committed.actions[:3], rtol=0, atol=2e-5)


@pytest.mark.parametrize("n_obs_steps", (1, 3, 4))
def test_the_first_of_them_belongs_to_the_newest_frame(policy_config, n_obs_steps):
    torch.manual_seed(0)
    policy = DiffusionPolicy.from_config({**policy_config, "n_obs_steps": n_obs_steps})
    out = policy.predict(observation(1, n_obs_steps), "ddim-4", seeds(1), committed=plan(2))
    np.testing.assert_allclose(out.actions[0, n_obs_steps - 1 :][:2], plan(2).actions[:2], rtol=0, atol=2e-5)


def test_a_chunk_that_ends_within_what_is_committed_holds_its_part(small_policy):
    long = plan(9, known=12)
    chunk = small_policy.predict(observation(1), "ddim-4", seeds(1), committed=long).actions[0, 1:]
    np.testing.assert_allclose(chunk, long.actions[: len(chunk)], rtol=0, atol=2e-5)


def test_rows_without_committed_actions_are_drawn_as_ever(small_policy):
    """Bit for bit where a batch evaluates the same rows in the same calls, as sequential samplers do."""
    seen = observation(3)
    for sampler in ("ddpm", "ddim-4"):
        plain = small_policy.predict(seen, sampler, seeds(3)).actions
        for way in FREE:
            mixed = small_policy.predict(seen, sampler, seeds(3), committed=[None, plan(2, way=way), None]).actions
            assert torch.equal(mixed[[0, 2]], plain[[0, 2]]) and not torch.equal(mixed[1], plain[1])
        assert torch.equal(small_policy.predict(seen, sampler, seeds(3), committed=[None] * 3).actions, plain)
    mixed = small_policy.predict(seen, "block", seeds(3), committed=[None, plan(2), None]).actions
    torch.testing.assert_close(mixed[[0, 2]], small_policy.predict(seen, "block", seeds(3)).actions[[0, 2]])


@pytest.mark.parametrize("way", WAYS[:3])
def test_what_lies_outside_of_the_policys_range_is_committed_at_its_bound(small_policy, way):
    """The chain sees its bound; the chunk says what is executed."""
    far = Committed(np.array([[50.0, 4.0], [0.0, -90.0], [0.0, 1.0]]), 2, way)
    near = Committed(np.array([[2.0, 4.0], [0.0, 0.0], [0.0, 1.0]]), 2, way)
    chunk, expected = (
        small_policy.predict(observation(1), "ddim-4", seeds(1), True, committed=one) for one in (far, near)
    )
    assert torch.equal(chunk.states, expected.states)
    assert torch.equal(chunk.actions[0, 1:3], torch.from_numpy(far.actions[:2]).float())
    np.testing.assert_allclose(chunk.actions[0, [0, *range(3, 8)]], expected.actions[0, [0, *range(3, 8)]])


@pytest.mark.parametrize("way, evaluations", (("guided", 2), ("gradient", 2)))
def test_guidance_counts_all_of_its_evaluations(small_policy, way, evaluations):
    for sampler, steps in (("ddpm", 20), ("ddim-4", 4)):
        calls = evaluations * steps
        stats = small_policy.predict(observation(2), sampler, seeds(2), committed=plan(2, way=way)).stats
        assert stats.calls.tolist() == [calls] * 2 == stats.rows.tolist() and stats.rows_by_call == (2,) * calls


def test_a_sampler_is_bound_to_the_conditioned_chain_once(small_policy):
    draw = small_policy.sampler("block")
    for _ in range(3):
        draw(observation(1), seeds(1)[0], committed=plan(1))
    assert len(small_policy._continuing._made) == 1
    for other in (copy.deepcopy(small_policy), pickle.loads(pickle.dumps(small_policy))):
        assert not other._continuing._made
        chunk = other.predict(observation(1), "block", seeds(1), committed=plan(1)).actions
        assert torch.equal(chunk, draw(observation(1), seeds(1), committed=plan(1)).actions)


def test_a_planner_hands_them_to_its_policy(small_policy):
    planner = PolicyPlanner(small_policy, "ddim-4")
    assert planner.continues
    history = {key: value[0].numpy() for key, value in observation(1).items()}
    planner.reset(0)
    chunk = planner.plan(history, plan(2))
    np.testing.assert_allclose(chunk.actions[:2], plan(2).actions[:2], rtol=0, atol=2e-5)


def test_what_a_policy_has_drawn_can_be_committed_as_it_is(small_policy):
    """A tensor, also one that gradients are taken of."""
    drawn = small_policy.predict(observation(1), "ddim-4", seeds(1)).actions[0, 3:]
    told = Committed(drawn.clone().requires_grad_(), 2)
    assert isinstance(told.actions, np.ndarray) and np.array_equal(told.actions, drawn.numpy())
    chunk = small_policy.predict(observation(1), "ddim-4", seeds(1), committed=told).actions[0, 1:3]
    np.testing.assert_allclose(chunk, drawn[:2], rtol=0, atol=2e-5)


def test_rotations_are_committed_as_the_network_sees_them(policy_config):
    """Six numbers of the network are three of the environment."""
    config = {**policy_config, "action_dim": 8, "rotations": {1: "axis_angle"}}
    config["normaliser"]["action"] = {"scale": [1.0] * 8, "offset": [0.0] * 8}
    torch.manual_seed(0)
    policy = DiffusionPolicy.from_config(config)
    turned = Committed(np.array([[0.1, 0.5, -1.0, 0.4, 0.2], [0.3, 0.0, 0.0, 0.0, 0.1]]), 2)
    chunk = policy.predict(observation(1), "ddim-4", seeds(1), committed=turned).actions[0, 1:3]
    np.testing.assert_allclose(chunk, turned.actions, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "committed, message",
    (
        (plan(1, way="linear"), "run `specpolicy calibrate`"),
        (Committed(np.zeros((2, 5)), 1), "have 5 numbers, those of this policy 2"),
        ([plan(1)], "1 entries, there are 3 observations"),
    ),
)
def test_what_a_policy_cannot_continue(small_policy, committed, message):
    with pytest.raises(SpecpolicyError, match=message):
        small_policy.predict(observation(3), "ddpm", committed=committed)


def test_openvino_continues_the_same_chain(small_policy):
    pytest.importorskip("openvino")
    engine = small_policy.with_engine("openvino")
    for way in WAYS[:3]:
        for sampler in ("ddim-4", "block"):
            expected, found = (
                policy.predict(observation(1), sampler, seeds(1), committed=plan(2, way=way))
                for policy in (small_policy, engine)
            )
            torch.testing.assert_close(found.actions, expected.actions, rtol=0, atol=2e-3)
    assert engine.ways == ("inpaint", "rtc", "guided")
    with pytest.raises(SpecpolicyError, match=r"stitching=gradient: .*engine=eager, which computes gradients, or"):
        engine.predict(observation(1), committed=plan(2, way="gradient"))
    backends = {continued.setting.backend for *_, continued in engine._continuing._made}
    assert "cpu-openvino" in backends  # as calibrations know it


def test_ways_are_those_that_the_policy_has(small_policy):
    assert small_policy.ways == ("inpaint", "rtc", "guided", "gradient")
    small_policy.check_way("guided-2")
    for way, remedy in (("linear-0.3", "specpolicy calibrate"), ("trained", "prefix=8"), ("predicted", "predict=8")):
        with pytest.raises(SpecpolicyError, match=f"stitching={way}: .*{remedy}.*, or use one of inpaint, rtc, guided"):
            small_policy.check_way(way)


def test_the_eager_engine_has_gradients(small_policy):
    expected, found = (
        policy.predict(observation(1), "block", seeds(1), committed=plan(2, way="gradient")).actions
        for policy in (small_policy, small_policy.with_engine("eager"))
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_a_number_belongs_to_ways_that_take_one():
    assert plan(1, way="linear-0.1").way == "linear-0.1"
    with pytest.raises(SpecpolicyError, match=r"way 'rtc-3' .*: rtc takes no number"):
        plan(1, way="rtc-3")
