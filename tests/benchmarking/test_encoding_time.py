"""A policy with an image encoder under measurement: every sampler pays for one encoding a chunk."""

import json

import numpy as np
import pytest
import torch

from specpolicy.benchmarking.measure import measure
from specpolicy.cli import main
from specpolicy.networks.vision import VisionEncoder
from specpolicy.policy import DiffusionPolicy
from specpolicy.policy.histories import FILE, write_histories
from specpolicy.sampler_names import make_sampler

NAMES = ("ddpm", "ddim-4", "block")


@pytest.fixture
def policy(policy_config):
    torch.manual_seed(0)
    policy_config["observation"] = {"front": [3, 33, 33], "position": 2}
    policy_config["vision"] = {"layers": 18, "keypoints": 4, "features": 4}
    policy_config["normaliser"]["front"] = {"scale": [2.0], "offset": [-1.0]}
    policy_config["normaliser"].pop("object")
    return DiffusionPolicy.from_config(policy_config)


@pytest.fixture
def pictures():
    source = np.random.default_rng(0)
    front = source.integers(0, 256, (3, 2, 33, 33, 3), np.uint8)
    return {"front": front, "position": source.normal(size=(3, 2, 2)).astype(np.float32)}


def test_every_sampler_encodes_every_observation_once(policy, pictures, monkeypatch):
    encoded, forward = [], VisionEncoder.forward

    def counting(self, images, *more):
        encoded.append(len(images))
        return forward(self, images, *more)

    monkeypatch.setattr(VisionEncoder, "forward", counting)
    draws = measure(policy, {name: make_sampler(name) for name in NAMES}, pictures, count=3, warm_up=0)
    assert encoded == [1] * 2 * len(draws)  # two frames a chunk, though another sampler has just seen them
    for draw in draws:
        assert draw.encode_seconds > 0 and draw.encode_seconds + draw.network_seconds < draw.seconds


def test_what_a_chunk_says_of_its_time_holds_its_encoding(policy, pictures):
    seen = {key: values[0] for key, values in pictures.items()}
    first = policy.predict(seen, "ddim-4").stats
    assert 0 < first.encode_seconds < first.encode_seconds + first.network_seconds < first.seconds


def test_tables_have_a_column_for_the_encoding(policy, pictures, tmp_path, capsys):
    directory = policy.save(tmp_path / "tiny")
    write_histories(directory / FILE, pictures)
    output = tmp_path / "out"
    arguments = [f"policy={directory}", f"output={output}", "samplers=[ddpm,ddim-4]", "count=2", "engine=eager"]
    assert main(["benchmark", *arguments]) == 0
    summary = json.loads((output / "summary.json").read_text())
    weights = sum(parameter.numel() for parameter in policy.encoder.parameters())
    assert summary["network"]["encoder_parameters"] == weights > 1e6
    for entry in summary["samplers"]:
        assert 0 < entry["encode_seconds"]["p50"] < entry["seconds"]["p50"]
    shown = capsys.readouterr().out
    assert "encoding" in shown.splitlines()[0] and "encoded once a chunk" in shown
    assert max(map(len, shown.partition("chunks of each")[0].splitlines())) < 100  # fits into a terminal
    assert "encoding, ms" in (output / "table.md").read_text()
