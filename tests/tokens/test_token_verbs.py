"""`specpolicy train`, `calibrate`, `benchmark` and `evaluate` with a policy of action tokens, as a user types them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from specpolicy import load_policy, make_sampler
from specpolicy.cli import main
from specpolicy.policy import TokenPolicy
from specpolicy.tokens.calibration import TokenCalibration

TINY = [
    "task=gym",
    "task.id=Pendulum-v1",
    "policy=tokens",
    "policy.network.n_layer=1",
    "policy.network.n_emb=16",
    "policy.network.n_head=2",
    "policy.tokens.bins=8",
    "steps=6",
    "batch_size=8",
    "log_every=2",
    "save_every=2",
    "validate_every=3",
    "threads=1",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory, write_demonstrations):
    return write_demonstrations(tmp_path_factory.mktemp("data") / "pendulum.hdf5")


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A policy that six steps of training have left."""
    output = tmp_path_factory.mktemp("run") / "policy"
    more = ["rollout_every=6", "rollout_episodes=1", "rollout_seconds=0.5", "policy.tokens.kind=quantile"]
    assert main(["train", *TINY, *more, f"data={data}", f"output={output}"]) == 0
    return output


@pytest.fixture(scope="module")
def observations(tmp_path_factory):
    path = tmp_path_factory.mktemp("seen") / "seen.safetensors"
    save_file({"state": np.random.default_rng(0).normal(size=(12, 2, 3)).astype(np.float32)}, path)
    return path


def test_train_writes_a_policy_of_action_tokens(trained):
    policy = load_policy(trained)
    assert isinstance(policy, TokenPolicy)
    assert (policy.horizon, policy.action_dim, policy.tokeniser.bins, policy.tokeniser.kind) == (8, 1, 8, "quantile")
    lines = (trained / "metrics.csv").read_text().splitlines()
    assert "train/clipped_actions" in lines[0] and "validation/loss" in lines[0] and "rollout/success" in lines[0]
    out = policy.predict({"state": torch.zeros(2, 3)}, "random_order", torch.Generator().manual_seed(0))
    assert out.actions.shape == (1, 8, 1) and (out.actions.abs() <= 2.01).all()


def test_training_is_resumed(data, trained, tmp_path, capsys):
    arguments = ["train", *TINY, f"data={data}", f"output={tmp_path / 'run'}"]
    assert main(arguments) == 0
    first = load_policy(tmp_path / "run").state_dict()
    assert main(arguments) == 0  # nothing is left to do
    second = load_policy(tmp_path / "run").state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_calibrate_and_benchmark(trained, observations, tmp_path, capsys):
    common = [f"policy={trained}", f"observations={observations}", "threads=1"]
    decoders = "decoders=[confidence,{name: confidence, noise: step},cosine,threshold,random_order]"
    assert main(["calibrate", *common, decoders, "traces=10", "held_out=0"]) == 0
    shown = capsys.readouterr().out
    assert "one call: 1 rows" in shown and "random order, 1 a step, sampled" in shown
    calibration = load_policy(trained).calibration
    assert calibration.decoders[make_sampler("confidence").distribution].report["traces"] == 8  # of ten; two measure
    assert len(calibration.decoders) == 5 and calibration.costs["cpu"].keys() >= {1, 9}
    assert all(found.drafts.keys() == {"cpu"} for found in calibration.decoders.values())
    assert all(found.report["calls"]["0"] > 0 for found in calibration.decoders.values())

    output = tmp_path / "benchmark"
    samplers = "samplers=[confidence,{name: confidence, drafts: 4, label: drafted},cosine-4,random_order]"
    assert main(["benchmark", *common, samplers, "count=3", f"output={output}"]) == 0
    summary = json.loads((output / "summary.json").read_text())
    by_label = {sampler["label"]: sampler for sampler in summary["samplers"]}
    assert by_label["drafted"]["distribution"] == by_label["confidence"]["distribution"]
    assert by_label["drafted"]["window"] == "graph, 4 drafts" and by_label["cosine-4"]["calls"]["mean"] <= 4
    assert "8 tokens" in (output / "table.md").read_text()


def test_calibrating_another_decoder_keeps_what_is_known_and_timing_again_keeps_what_was_learnt(
    trained, observations, tmp_path, capsys
):
    output = tmp_path / "calibrated"
    common = ["calibrate", f"policy={trained}", f"output={output}", "threads=1", "held_out=0"]
    seen = [f"observations={observations}", "traces=10"]
    assert main([*common, *seen, "decoders=[confidence]", "graphs=level", "objective=own_and_parents"]) == 0
    first = TokenCalibration.load(output)
    (confidence,) = first.decoders.values()
    assert (confidence.report["graphs"], confidence.report["objective"]) == ("level", "own_and_parents")
    chain = "decoders=[{name: threshold, drafter: chain},{name: confidence, tokens_per_step: 4, label: two steps}]"
    assert main([*common, *seen, chain]) == 0
    second = TokenCalibration.load(output)
    distribution = make_sampler("confidence").distribution
    assert len(second.decoders) == 3 and second.decoders[distribution].graphs == confidence.graphs
    assert {found.drafter for found in second.decoders.values()} == {"graph", "chain"}
    assert second.decoders[make_sampler("confidence", tokens_per_step=4).distribution].drafts == {"cpu": 0}
    capsys.readouterr()
    # As if it had been calibrated on another machine; this one is timed by itself, and plays no episode.
    elsewhere = {distribution: replace(found, drafts={"cuda": 64}) for distribution, found in second.decoders.items()}
    replace(second, decoders=elsewhere, costs={}).save(output)
    assert main([*common, "learn=false"]) == 0
    third = TokenCalibration.load(output)
    for distribution, found in third.decoders.items():
        assert found.drafts.keys() == {"cpu", "cuda"} and found.drafts["cuda"] == 64
        assert found.graphs == second.decoders[distribution].graphs
        assert found.report["calls"] == second.decoders[distribution].report["calls"]
    assert third.costs.keys() == {"cpu"} and "a decoder of so few steps" in capsys.readouterr().out


def test_look_ahead_is_measured_with_the_same_noise_for_all_numbers_of_drafts(trained, observations, tmp_path):
    calls = []
    for seed in (0, 0, 5):
        arguments = [f"policy={trained}", f"observations={observations}", f"output={tmp_path}", f"seed={seed}"]
        decoders = "decoders=[{name: confidence, noise: step, sampled: true}]"
        assert main(["calibrate", *arguments, decoders, "traces=10", "held_out=0", "threads=1"]) == 0
        (found,) = TokenCalibration.load(tmp_path).decoders.values()
        calls.append(found.report["calls"])
    assert calls[0] == calls[1] != calls[2]
    assert calls[0]["8"] == calls[0]["64"]  # eight steps: with the same noise more drafts cannot be of use


def test_convert_describes_it(trained, tmp_path, capsys):
    assert main(["convert", f"path={trained}", f"out={tmp_path / 'copy'}"]) == 0
    assert "decodes 8 tokens of 8 quantile bins" in capsys.readouterr().out


def test_serve_refuses_what_tokens_have_not(trained, capsys):
    arguments = ["serve", f"policy={trained}", "sampler=cosine", "engine=compile"]
    assert main(arguments) == 2
    assert "engine=eager" in capsys.readouterr().err


def test_evaluate(trained, tmp_path):
    output = tmp_path / "evaluation"
    arguments = ["evaluate", "task=gym", "task.id=Pendulum-v1", f"policy={trained}", "samplers=[cosine,random_order]"]
    assert main([*arguments, "episodes=1", "videos=0", "max_seconds=0.5", "workers=0", f"output={output}"]) == 0
    conditions = json.loads((output / "summary.json").read_text())["conditions"]
    assert {condition["label"] for condition in conditions} == {"cosine-12", "random_order"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["benchmark", "samplers=[ddpm]"], "this policy's actions are tokens"),
        (["benchmark", "samplers=[confidence]", "engine=compile"], "engine=eager"),
        (["benchmark", "samplers=[confidence]", "precision=bfloat16"], "float32"),
        (["calibrate", "traces=1"], "at least 2"),
        (["train_drafter"], "draft from themselves"),
        (["calibrate", "decoders=[ddpm]", "traces=4", "held_out=0"], "tokens"),
        (["calibrate", "decoders=[confidence,{name: confidence, drafts: 8}]", "held_out=0"], "leave one out"),
        (["calibrate", "graphs=many", "held_out=0"], "graphs=many: use one of one, level, step, or null"),
        (["calibrate", "objective=luck", "held_out=0"], "objective=luck: use one of accepted, own_and_parents"),
        (["calibrate", "learn=false", "output=/nowhere"], "calibrate with learn=true first"),
    ],
)
def test_one_line_for_what_cannot_be(trained, observations, capsys, arguments, words):
    verb, *more = arguments
    assert main([verb, f"policy={trained}", f"observations={observations}", *more]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and words in lines[0]
