"""Every verb takes every kind of policy without a sampler being named, and refuses a sampler of another kind."""

import json

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.numpy import save_file

from specpolicy import Calibration, SpecpolicyError, load_policy, make_sampler
from specpolicy.cli import main
from specpolicy.cli.configuration import compose_verb
from specpolicy.cli.serve import _service
from specpolicy.policy import DiffusionPolicy, TokenPolicy
from specpolicy.sampler_names import BY_NAME
from specpolicy.samplers.recycled.surrogates import GaussianSurrogate

BEST = {"plain": "block", "calibrated": "recycled", "no noise": "ddpm", "tokens": "cosine"}
WRONG = {"plain": "cosine", "calibrated": "confidence", "no noise": "raster", "tokens": "ddpm"}
# Which one auto is for policies of noise is tested in test_engine_auto.py; for tokens there is but one.
ENGINE = {"plain": "eager", "calibrated": "eager", "no noise": "eager", "tokens": "auto"}
TASK = ["task=gym", "task.name=drift", "task.id=drift_env:Drift-v0", "+task.kwargs.max_steps=6"]
pytestmark = pytest.mark.usefixtures("without_plots")
VERBS = {
    "evaluate": ["episodes=1", "videos=0", "workers=0"],
    "rollout": ["viewer=false", "video=false"],
    "control": ["clock=delay", "warm_up=1", "max_seconds=1", "hz=10", "watchdog=60", "inference_timeout=60"],
    "benchmark": ["count=1", "threads=1"],
}


@pytest.fixture(params=BEST)
def kind(request) -> str:
    return request.param


@pytest.fixture
def checkpoint(kind, policy_config, tmp_path, drift_task) -> str:
    """A small untrained policy of that kind, that fits the task drift."""
    torch.manual_seed(1)
    config = {**policy_config, "chain": {"train_steps": 12, "steps": 12}}
    if kind == "no noise":
        config["chain"] |= {"ddim": {"eta": 0.0}}
    if kind == "tokens":
        del config["chain"]
        network = {"kind": "masked_transformer", "n_layer": 1, "n_head": 2, "n_emb": 16, "dropout": 0.0}
        config |= {"network": network, "tokens": {"kind": "uniform", "bins": 8}}
    policy = (TokenPolicy if kind == "tokens" else DiffusionPolicy).from_config(config)
    path = policy.save(tmp_path / "policy")
    if kind == "calibrated":
        prior = GaussianSurrogate.smooth(policy.chain.process.alpha_bar, torch.Size(policy.sample_shape))
        Calibration(prior, fingerprint=policy.fingerprint).save(path)
    return str(path)


@pytest.fixture
def run(kind, checkpoint, tmp_path):
    """`run(verb, more)`: the verb's exit code; its output is `tmp_path / "out"`."""
    seen = {"position": np.zeros((3, 2, 2), np.float32), "object": np.zeros((3, 2, 3), np.float32)}
    save_file(seen, tmp_path / "seen.safetensors")

    def begin(verb, *more):
        where = [f"observations={tmp_path / 'seen.safetensors'}"] if verb == "benchmark" else TASK
        common = [f"policy={checkpoint}", *where, *VERBS[verb], f"engine={ENGINE[kind]}", f"output={tmp_path / 'out'}"]
        return main([verb, *common, *more])

    return begin


def test_what_is_drawn_without_a_name_is_drawn_by_the_best_sampler(kind, checkpoint):
    policy = load_policy(checkpoint)
    assert policy.best_sampler == BEST[kind] == policy.sampler().name == policy.bound().sampler.name
    seen = {"position": torch.randn(2, 2), "object": torch.randn(2, 3)}
    found, named = (policy.predict(seen, name, torch.Generator().manual_seed(3)) for name in (None, BEST[kind]))
    assert torch.equal(found.actions, named.actions)
    for name in policy.compared:
        assert policy.predict(seen, name).actions.isfinite().all()


def test_a_sampler_of_another_kind_is_refused(kind, checkpoint):
    policy = load_policy(checkpoint)
    for name in BY_NAME.keys() - policy.sampler_kinds.keys():
        for sampler in (name, make_sampler(name)):
            for ask in (policy.bound, policy.sampler, lambda one: policy.predict({}, one)):
                with pytest.raises(
                    SpecpolicyError, match=f"sampler '{name}' .*this policy's actions are .*: use "
                ) as no:
                    ask(sampler)
                assert "\n" not in str(no.value) and str(no.value).endswith(", ".join(policy.sampler_kinds))


def test_evaluate(kind, run, tmp_path):
    assert run("evaluate") == 0
    labels = {
        condition["label"] for condition in json.loads((tmp_path / "out" / "summary.json").read_text())["conditions"]
    }
    assert labels == {"cosine-12" if kind == "tokens" else BEST[kind]}
    assert list(OmegaConf.load(tmp_path / "out" / "config.yaml").samplers) == [BEST[kind]]


@pytest.mark.parametrize("verb", ("rollout", "control"))
def test_rollout_and_control(kind, verb, run, tmp_path, capsys):
    assert run(verb) == 0
    printed = capsys.readouterr().out.splitlines()
    assert kind != "tokens" or printed.pop(0) == "engine: eager"
    assert verb == "control" or printed[0].startswith(BEST[kind])
    assert OmegaConf.load(tmp_path / "out" / "config.yaml").sampler.name == BEST[kind]
    assert verb == "rollout" or json.loads((tmp_path / "out" / "timing.json").read_text())["sampler"] == BEST[kind]


def test_benchmark(run, checkpoint, tmp_path):
    assert run("benchmark") == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    compared = list(load_policy(checkpoint).compared)
    assert [one["sampler"] for one in summary["samplers"]] == [name.partition("-")[0] for name in compared]
    assert list(OmegaConf.load(tmp_path / "out" / "config.yaml").samplers) == compared


def test_serve(kind, checkpoint):
    config = compose_verb("serve", [f"policy={checkpoint}", f"engine={ENGINE[kind]}"])
    service = _service(config)
    service.warm_up(2)
    assert service.metadata.more["sampler"] == BEST[kind] == config.sampler.name


@pytest.mark.parametrize("verb", VERBS)
def test_verbs_refuse_a_sampler_of_another_kind_in_one_line(kind, verb, run, capsys):
    option = "samplers" if verb in ("evaluate", "benchmark") else "sampler"
    assert run(verb, f"{option}={WRONG[kind]}") == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert (
        len(lines) == 1
        and f"sampler '{WRONG[kind]}'" in lines[0]
        and f"use {'d' if kind != 'tokens' else 'c'}" in lines[0]
    )
