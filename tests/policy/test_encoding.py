"""Frames that were seen are not encoded again, and nothing of a chunk depends on it."""

import copy
import itertools
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from specpolicy import SpecpolicyError
from specpolicy.networks.vision import VisionEncoder
from specpolicy.policy import DiffusionPolicy
from specpolicy.policy.encoding import APART
from specpolicy.policy.frame_cache import FrameCache

SHAPES = {"front": [3, 36, 40], "position": 2, "wrist": [3, 33, 33]}
STEPS = 2


def make(config, group_norm=True, **options):
    torch.manual_seed(0)
    one = {"scale": [2.0], "offset": [-1.0]}
    statistics = {"front": one, "wrist": one, **{key: config["normaliser"][key] for key in ("position", "action")}}
    return DiffusionPolicy.from_config(
        {
            **config,
            "chain": {"train_steps": 4, "steps": 4},
            "observation": SHAPES,
            "vision": {"layers": 18, "keypoints": 4, "features": 4, "group_norm": group_norm},
            "normaliser": statistics,
            **options,
        }
    )


@pytest.fixture(scope="module")
def policy(small_policy_config):
    return make(small_policy_config)


def episode(count, seed=0):
    """Frames of an episode, bytes with channels last."""
    source = np.random.default_rng(seed)
    sizes = {key: (shape,) if isinstance(shape, int) else (*shape[1:], shape[0]) for key, shape in SHAPES.items()}
    return [
        {
            key: source.normal(size=size) if key == "position" else source.integers(0, 256, size, np.uint8)
            for key, size in sizes.items()
        }
        for _ in range(count)
    ]


def history(frames):
    return {key: np.stack([frame[key] for frame in frames]) for key in SHAPES}


@pytest.fixture
def encoded(monkeypatch):
    """Images that a vision encoder was called with, one number a call."""
    counts, forward = [], VisionEncoder.forward

    def counting(self, images, *more):
        counts.append(len(images))
        return forward(self, images, *more)

    monkeypatch.setattr(VisionEncoder, "forward", counting)
    return counts


@torch.inference_mode()
def condition(policy, seen):
    return policy.encode(seen)


def anew(policy, seen):
    """The condition where nothing was seen before."""
    policy.encoding.cache.clear()
    return condition(policy, seen)


@pytest.mark.parametrize("group_norm", (True, False))
def test_a_loop_that_asks_at_every_step_has_one_new_frame(small_policy_config, encoded, group_norm):
    policy, frames = make(small_policy_config, group_norm), episode(6)
    first = condition(policy, history([frames[0], frames[0]]))  # the first frame stands for those before it
    assert encoded == [1, 1] and torch.equal(anew(policy, history([frames[0], frames[0]])), first)
    for before, now in itertools.pairwise(frames):
        del encoded[:]
        found = condition(policy, history([before, now]))
        assert encoded == [1, 1]  # one a camera
        expected = anew(policy, history([before, now]))
        assert encoded == [1] * 6 and torch.equal(found, expected)


def test_chunks_are_the_same_bits_with_and_without_what_was_seen(policy):
    def chunks(forgetful):
        drawn, generator = [], torch.Generator().manual_seed(3)
        policy.encoding.cache.clear()
        for before, now in itertools.pairwise(frames):
            if forgetful:
                policy.encoding.cache.clear()
            drawn.append(policy.predict(history([before, now]), "block", generator).actions)
        return torch.stack(drawn)

    frames = episode(5)
    assert torch.equal(chunks(False), chunks(True))


def test_one_changed_pixel_is_noticed(policy, encoded):
    before, now = episode(2)
    found = condition(policy, history([before, now]))
    del encoded[:]
    now["wrist"][7, 9, 1] ^= 1  # in place: the array is the same, its content is not
    changed = condition(policy, history([before, now]))
    assert encoded == [1] and not torch.equal(changed, found)
    assert torch.equal(changed, anew(policy, history([before, now])))


def test_frames_of_one_camera_are_not_those_of_another(small_policy_config):
    """Two cameras that show the same picture have their own encoders."""
    shapes = {"front": [3, 36, 36], "position": 2, "wrist": [3, 36, 36]}
    policy = make(small_policy_config, observation=shapes)
    picture = np.random.default_rng(0).integers(0, 256, (STEPS, 36, 36, 3), np.uint8)
    found = condition(policy, {"front": picture, "wrist": picture, "position": np.zeros((STEPS, 2))})
    front, wrist = found.view(STEPS, -1)[:, :4], found.view(STEPS, -1)[:, -4:]
    assert not torch.equal(front, wrist)


def test_memory_that_is_laid_out_otherwise_gives_the_same_bits(policy):
    frames = history(episode(2))
    first = {key: np.moveaxis(value, -1, 1) if value.ndim == 4 else value for key, value in frames.items()}
    copied = {key: np.ascontiguousarray(value) for key, value in first.items()}
    assert not first["front"].flags.c_contiguous
    assert torch.equal(anew(policy, first), anew(policy, copied))


@pytest.mark.parametrize("change", ("load", "step", "fused", "normaliser"))
def test_changed_weights_forget_what_was_seen(small_policy_config, change):
    policy, seen = make(small_policy_config), history(episode(2))
    before = condition(policy, seen)
    with torch.no_grad():
        if change == "load":
            policy.load_weights({name: value + 0.01 for name, value in policy._weights().items()})
        elif change == "step":
            next(policy.encoder.parameters()).mul_(1.5)
        elif change == "fused":
            policy.train()
            weights = list(policy.encoder.parameters())
            optimizer = torch.optim.AdamW(weights, lr=0.1, fused=True)
            for weight in weights:
                weight.grad = torch.ones_like(weight)
            optimizer.step()
            policy.eval()
        else:
            policy.normaliser.scale_0.mul_(0.5)
    after = condition(policy, seen)
    assert not torch.equal(before, after) and torch.equal(after, anew(policy, seen))


def test_a_row_of_a_small_batch_is_what_it_is_alone_and_large_batches_are_encoded_together(policy, encoded):
    seen = [history(episode(2, seed)) for seed in range(APART + 1)]
    alone = torch.cat([anew(policy, one) for one in seen])
    stacked = {key: np.stack([one[key] for one in seen]) for key in SHAPES}
    assert torch.equal(anew(policy, {key: value[:APART] for key, value in stacked.items()}), alone[:APART])
    del encoded[:]
    together = anew(policy, stacked)
    assert encoded == [STEPS * (APART + 1)] * 2
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_gradients_reach_the_encoder_and_nothing_is_kept(small_policy_config):
    policy, seen = make(small_policy_config), history(episode(2))
    policy.encode(seen).sum().backward()
    assert next(policy.encoder.parameters()).grad is not None and len(policy.encoding.cache) == 0


def test_what_is_refused_is_not_kept(policy):
    frames = history(episode(2))
    frames["front"] = frames["front"].astype(np.float32)  # bytes as floats have no known scale
    policy.encoding.cache.clear()
    for _ in range(2):
        with pytest.raises(Exception, match="the images 'front' hold numbers from"):
            condition(policy, frames)
    assert len(policy.encoding.cache) == 0


@pytest.mark.parametrize("again", (copy.deepcopy, lambda policy: pickle.loads(pickle.dumps(policy))))
def test_a_copy_encodes_with_its_own_weights(policy, again):
    seen = history(episode(2))
    before = condition(policy, seen)
    other = again(policy)
    assert len(other.encoding.cache) == 0 and other.encoding.encoder is other.encoder
    assert torch.equal(condition(other, seen), before)
    with torch.no_grad():
        next(other.encoder.parameters()).mul_(1.5)
    assert not torch.equal(condition(other, seen), before) and torch.equal(condition(policy, seen), before)


def test_a_cache_is_bounded_and_drops_what_was_not_used_for_longest():
    cache, made = FrameCache(most=3), []

    def features(name):
        return cache.features("weights", name, lambda: made.append(name) or torch.zeros(1))

    for name in (b"a", b"b", b"c", b"a", b"d", b"a", b"b"):
        features(name)
    assert made == [b"a", b"b", b"c", b"d", b"b"] and len(cache) == 3


def test_threads_share_a_cache(policy):
    frames = episode(9)
    pairs = [history(pair) for pair in itertools.pairwise(frames)]
    alone = [anew(policy, pair) for pair in pairs]
    policy.encoding.cache.clear()
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(2) as pool:
            together = list(pool.map(lambda pair: condition(policy, pair), pairs * 2))
    finally:
        sys.setswitchinterval(before)
    assert all(torch.equal(one, other) for one, other in zip(alone * 2, together, strict=True))


@pytest.mark.parametrize("observation", (None, np.zeros((2, 2)), ["position"]), ids=str)
def test_what_is_no_mapping_is_no_observation(observation, small_policy):
    with pytest.raises(SpecpolicyError, match=r"the observation is a \w+: give a mapping .*, here of position"):
        small_policy.predict(observation)
