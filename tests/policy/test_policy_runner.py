"""policy.runner: frames and chunk are kept, and actions are those of the policy's chunks."""

import numpy as np
import pytest
import torch

from specpolicy import SpecpolicyError


def frame(step):
    """What is seen at a control step."""
    source = np.random.default_rng(step)
    return {"position": source.normal(size=2), "object": source.normal(size=3), "unseen": np.zeros(7)}


def history(first, second):
    """Two frames, as `predict` wants them."""
    return {key: np.stack([frame(first)[key], frame(second)[key]]) for key in ("position", "object")}


def test_actions_are_those_of_chunks_drawn_when_the_last_one_is_used_up(small_policy):
    runner = small_policy.runner("ddpm", engine="eager", seed=3)
    actions = [runner(frame(step)) for step in range(9)]
    generator = torch.Generator().manual_seed(3)
    for start, frames in ((0, history(0, 0)), (4, history(3, 4)), (8, history(7, 8))):
        chunk = small_policy.predict(frames, "ddpm", generator).actions[0, small_policy.first_action :].numpy()
        for place, action in enumerate(actions[start : start + 4]):
            np.testing.assert_array_equal(action, chunk[place])
    assert runner.chunks == 3 and actions[0].shape == (small_policy.action_dim,)


def test_it_runs_on_the_fastest_engine_unless_the_policy_has_one(small_policy, monkeypatch):
    monkeypatch.setattr("specpolicy.engines.auto.time_engine", lambda engine, sizes: {1: 1.0})
    considered = small_policy.runner("ddpm").sampler.policy.engine.considered
    assert "eager" in considered and "cuda_graph" in considered and small_policy.engine is None
    own = small_policy.with_engine("eager")
    assert own.runner("ddpm").sampler.policy.engine is own.engine
    assert small_policy.runner("ddpm", engine="eager").sampler.policy.engine.considered == {}


def test_an_episode_forgets_the_one_before_and_a_seed_repeats_it(small_policy):
    runner = small_policy.runner("ddim", steps=4, execute_steps=2)
    first = [runner(frame(step)) for step in range(3)]
    runner.reset()
    other = [runner(frame(step)) for step in range(3)]
    assert runner.chunks == 2 and not np.array_equal(first[0], other[0])
    runner.reset(seed=0)
    np.testing.assert_array_equal([runner(frame(step)) for step in range(3)], first)


def test_frames_are_kept_as_they_were_seen(small_policy):
    """A simulator may write its next observation over the last one."""
    runner, plain = small_policy.runner("ddpm", execute_steps=1), small_policy.runner("ddpm", execute_steps=1)
    seen = {key: np.zeros_like(value) for key, value in frame(0).items()}
    for step in range(3):
        for key, value in frame(step).items():
            seen[key][...] = value
        np.testing.assert_array_equal(runner(seen), plain(frame(step)))


def test_the_best_sampler_is_the_default_and_options_reach_it(small_policy):
    assert small_policy.runner().sampler.name == small_policy.best_sampler
    assert small_policy.runner("block", window=3).sampler.options.window == 3
    assert "execute_steps=4" in repr(small_policy.runner())


def test_mistakes_are_named(small_policy):
    for steps in (0, 8, 2.5):
        with pytest.raises(SpecpolicyError, match=r"execute_steps=.* use 1 to 7"):
            small_policy.runner(execute_steps=steps)
    with pytest.raises(SpecpolicyError, match="no key 'object': the policy needs position, object"):
        small_policy.runner("ddpm")({"position": np.zeros(2)})
    with pytest.raises(SpecpolicyError, match="the observation is a NoneType"):
        small_policy.runner("ddpm")(None)
    for seed in ("x", 1.5, True):
        with pytest.raises(SpecpolicyError, match=r"seed=.* expected a whole number"):
            small_policy.runner("ddpm", seed=seed)


def test_a_frame_of_another_shape_is_refused_at_once_and_forgotten(small_policy):
    runner, plain = small_policy.runner("ddpm", execute_steps=2), small_policy.runner("ddpm", execute_steps=2)
    for step in range(4):
        with pytest.raises(SpecpolicyError, match=r"'position' has shape \(3,\): one frame of it has \(2,\)"):
            runner({**frame(step), "position": np.zeros(3)})
        np.testing.assert_array_equal(runner(frame(step)), plain(frame(step)))
