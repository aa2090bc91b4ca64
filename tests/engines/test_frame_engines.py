"""Encoders of images on engines: the same features, the same engine as the denoiser."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from specpolicy.engines import make_frame_engine
from specpolicy.engines.frames import FRAME_ENGINES
from specpolicy.errors import SpecpolicyError
from specpolicy.networks.vision import VisionEncoder
from specpolicy.networks.vision_options import ResNetOptions, SmallOptions
from specpolicy.policy import DiffusionPolicy
from specpolicy.policy.encoding import APART, Encoding

KINDS = {
    "group norm": ((3, 40, 44), ResNetOptions(crop=(36, 36))),
    "batch norm": ((3, 40, 44), ResNetOptions(group_norm=False)),
    "resized": ((3, 48, 64), ResNetOptions(resize=(44, 50), crop=(36, 37))),
    "small": ((3, 40, 44), SmallOptions()),
}


@pytest.fixture(autouse=True)
def _openvino():
    pytest.importorskip("openvino")


def made(kind):
    shape, options = KINDS[kind]
    torch.manual_seed(0)
    return VisionEncoder(shape, options).eval(), torch.rand(1, *shape)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_part_after_preparation_is_the_rest_of_the_encoder(kind):
    encoder, image = made(kind)
    assert torch.equal(encoder.after_preparation()(encoder.prepared(image)), encoder(image))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_openvino_computes_the_encoder(kind):
    encoder, image = made(kind)
    seen, expected = encoder.prepared(image), encoder(image)
    engine = make_frame_engine("openvino", encoder.after_preparation(), seen.shape[1:])
    scale = float(expected.square().mean().sqrt())
    torch.testing.assert_close(engine(seen), expected, rtol=0, atol=1e-4 * scale)
    assert float((engine(seen.flip(-1)) - expected).abs().max()) > 1e-2 * scale  # it does look


@torch.no_grad()
def test_every_engine_is_compared_with_the_network():
    class Random(nn.Module):
        """Differs from itself."""

        def __init__(self):
            super().__init__()
            self.weight, self.calls = nn.Parameter(torch.ones(1)), 0

        def forward(self, images):
            self.calls += 1
            return images.flatten(start_dim=1) * self.weight * self.calls

    class Same(FRAME_ENGINES["compile"]):
        def _make(self):
            return lambda: self.network(self._frame)

    with pytest.raises(SpecpolicyError, match=r"engine 'compile' differs from the encoder by .*: use engine eager"):
        Same(Random(), (3, 4, 4))
    with pytest.raises(SpecpolicyError, match="output is not finite"):
        network = Random()
        network.weight.fill_(float("nan"))
        Same(network, (3, 4, 4))
    assert make_frame_engine("eager", Random(), (3, 4, 4)) is None


def test_what_openvino_cannot_express_is_one_line():
    class Inverse(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.eye(4))

        def forward(self, images):
            return torch.linalg.eigvals(images.mean(dim=1) + self.weight).real

    with pytest.raises(SpecpolicyError, match=r"^OpenVINO cannot convert this network: use engine eager"):
        make_frame_engine("openvino", Inverse(), (3, 4, 4))


@pytest.fixture(scope="module")
def policy(small_policy_config):
    torch.manual_seed(0)
    one = {"scale": [2.0], "offset": [-1.0]}
    statistics = {key: small_policy_config["normaliser"][key] for key in ("position", "action")}
    return DiffusionPolicy.from_config(
        {
            **small_policy_config,
            "chain": {"train_steps": 4, "steps": 4},
            "observation": {"front": [3, 36, 40], "position": 2, "wrist": [3, 33, 33]},
            "vision": {"kind": "resnet", "layers": 18, "keypoints": 4, "features": 4, "resize": [33, 33]},
            "normaliser": {"front": one, "wrist": one, **statistics},
        }
    )


@pytest.fixture(scope="module")
def fast(policy):
    pytest.importorskip("openvino")
    return policy.with_engine("openvino")


def observation(rows=1, seed=0):
    source = np.random.default_rng(seed)
    return {
        "front": source.integers(0, 256, (rows, 2, 36, 40, 3), np.uint8),
        "position": source.normal(size=(rows, 2, 2)),
        "wrist": source.integers(0, 256, (rows, 2, 33, 33, 3), np.uint8),
    }


@torch.inference_mode()
def test_a_policy_runs_its_encoder_on_the_engine(policy, fast, monkeypatch):
    seen, large = observation(), observation(APART + 1)
    expected = policy.encode(seen), policy.encode(large)
    assert set(fast.encoding.engines) == {"front", "wrist"} and not policy.encoding.engines
    monkeypatch.setattr(VisionEncoder, "forward", None)  # torch's encoder is not called any more
    torch.testing.assert_close(fast.encode(seen), expected[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fast.encode(large), expected[1], rtol=1e-4, atol=1e-4)


def test_chunks_on_the_engine_are_the_same_with_and_without_what_was_seen(policy, fast):
    def chunk(policy, forget=False):
        if forget:
            policy.forget_frames()
        return policy.predict(observation(), "block", torch.Generator().manual_seed(1)).actions

    first = chunk(fast, forget=True)
    assert torch.equal(first, chunk(fast)) and torch.equal(first, chunk(fast, forget=True))
    torch.testing.assert_close(first, chunk(policy), rtol=1e-3, atol=1e-3)


def test_a_worker_process_is_sent_the_recipe(fast):
    again = pickle.loads(pickle.dumps(fast))
    assert set(again.encoding.engines) == {"front", "wrist"}
    with torch.inference_mode():
        assert torch.equal(again.encode(observation()), fast.encode(observation()))


@torch.inference_mode()
def test_threads_share_an_encoder_on_an_engine(fast):
    seen = [observation(seed=seed) for seed in range(12)]
    alone = [fast.encode(one) for one in seen]
    fast.forget_frames()
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(torch.inference_mode()(fast.encode), seen))
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


def test_auto_keeps_the_encoder_where_its_engine_cannot_express_it(policy, monkeypatch):
    def refuse(self):
        raise SpecpolicyError("OpenVINO cannot convert this network: use engine eager")

    monkeypatch.setattr(FRAME_ENGINES["openvino"], "_make", refuse)
    monkeypatch.setattr("specpolicy.engines.auto.time_engine", lambda engine, sizes: {1: float(engine.name == "eager")})
    found = policy.with_engine("auto", max_rows=2)
    assert found.engine_name == "openvino" and not found.encoding.engines
    with pytest.raises(SpecpolicyError, match="cannot convert this network"):
        policy.with_engine("openvino", max_rows=2)


def test_auto_counts_the_encoder(policy, monkeypatch, tmp_path):
    """The calls of the two engines take as long; what decides is the time to encode."""
    monkeypatch.setattr("specpolicy.engines.auto.time_engine", lambda engine, sizes: {1: 0.001})
    for slow in (True, False):
        monkeypatch.setattr(Encoding, "seconds", lambda self, device, slow=slow: float(bool(self.engines) == slow))
        monkeypatch.setenv("SPECPOLICY_CACHE", str(tmp_path / f"{slow}"))
        found = policy.with_engine("auto", max_rows=2)
        assert found.engine_name == ("eager" if slow else "openvino") and bool(found.encoding.engines) != slow
        assert found.engine.considered["eager"] == f"1 ms for 1 row, {0 if slow else 1e3:.3g} ms to encode"


def test_a_measured_encoding_is_one_of_new_frames(policy, monkeypatch):
    images = []
    forward = VisionEncoder.forward
    monkeypatch.setattr(
        VisionEncoder, "forward", lambda self, seen, *more: images.append(len(seen)) or forward(self, seen, *more)
    )
    assert policy.encoding.seconds(policy.device, turns=2) > 0
    frames = sum(policy.frame_shape(key)[0] for key in ("front", "wrist"))
    assert sum(images) == 3 * frames and not len(policy.encoding.cache)


@pytest.mark.slow  # the compiler takes a minute or more
@torch.no_grad()
def test_compile_computes_the_encoder():
    encoder, image = made("small")
    seen = encoder.prepared(image)
    engine = make_frame_engine("compile", encoder.after_preparation(), seen.shape[1:])
    torch.testing.assert_close(engine(seen), encoder(image), rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@torch.no_grad()
def test_a_cuda_graph_computes_the_encoder():
    encoder, image = made("group norm")
    encoder, image = encoder.cuda(), image.cuda()
    seen = encoder.prepared(image)
    engine = make_frame_engine("cuda_graph", encoder.after_preparation(), seen.shape[1:])
    torch.testing.assert_close(engine(seen), encoder(image), rtol=1e-2, atol=1e-3)
