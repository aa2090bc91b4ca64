"""What was made for a policy is taken by that policy alone: calibrations, draft models, drafts of tokens."""

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from specpolicy import SpecpolicyError, fingerprints, load_policy, make_sampler, sample
from specpolicy.cli import main
from specpolicy.control.planner import PolicyPlanner
from specpolicy.fingerprints import weights_fingerprint
from specpolicy.policy import DiffusionPolicy, TokenPolicy
from specpolicy.policy.draft_models import DraftModels
from specpolicy.samplers import Calibration
from specpolicy.samplers.recycled.surrogates import GaussianSurrogate
from specpolicy.tokens.calibration import TokenCalibration

ROOT = Path(__file__).parents[1]


def calibration(policy, fingerprint="own"):
    prior = GaussianSurrogate(policy.chain.process.alpha_bar, policy.sample_shape, 10)
    return Calibration(prior, fingerprint=policy.fingerprint if fingerprint == "own" else fingerprint)


def draft_models(policy):
    models = DraftModels(fingerprint=policy.fingerprint)
    models.add("corrected", horizon=8, action_dim=2, cond_dim=10, train_steps=20, width=8)
    return models


def token_calibration(policy):
    return TokenCalibration(policy.tokens, policy.tokeniser.bins, fingerprint=policy.fingerprint)


KINDS = {
    "calibration": (calibration, "speculation.json", "run `specpolicy calibrate` for this policy, or delete"),
    "draft models": (draft_models, "drafters.json", "run `specpolicy train_drafter` for this policy, or delete"),
    "drafts of tokens": (token_calibration, "drafts.json", "delete it, and run `specpolicy calibrate`"),
}


def make_policy(kind, policy_config, seed=0):
    torch.manual_seed(seed)
    if kind != "drafts of tokens":
        return DiffusionPolicy.from_config(policy_config)
    network = {"kind": "masked_transformer", "n_layer": 1, "n_head": 2, "n_emb": 16}
    config = {name: value for name, value in policy_config.items() if name != "chain"}
    return TokenPolicy.from_config({**config, "network": network, "tokens": {"kind": "uniform", "bins": 8}})


@pytest.mark.parametrize("kind", KINDS)
def test_what_lies_beside_a_policy_is_taken_if_it_is_its_own(kind, policy_config, tmp_path):
    make, file, remedy = KINDS[kind]
    policy, other = (make_policy(kind, policy_config, seed) for seed in (0, 1))
    policy.save(tmp_path)
    make(policy).save(tmp_path)
    loaded = load_policy(tmp_path)
    assert loaded.calibration is not None or loaded.draft_models.head is not None
    if kind != "draft models":
        assert loaded.calibration.fingerprint == policy.fingerprint

    def refused(message):
        with pytest.raises(SpecpolicyError) as error:
            load_policy(tmp_path)
        text = str(error.value)
        assert message in text and remedy in text and str(tmp_path) in text and "\n" not in text
        assert load_policy(tmp_path, bare=True).calibration is None  # so that it can be made anew

    make(other).save(tmp_path)  # of another policy of the same shape
    refused(": made for another policy, or before the weights of this one were changed")
    make(policy).save(tmp_path)
    with torch.no_grad():  # the policy is trained on
        next(policy.denoiser.parameters()).flatten()[0] += 1e-3
    policy.save(tmp_path)
    refused(": made for another policy, or before the weights of this one were changed")
    settings = json.loads((tmp_path / file).read_text())
    (tmp_path / file).write_text(json.dumps({name: value for name, value in settings.items() if name != "fingerprint"}))
    refused("nothing says which policy this was made for")


@pytest.mark.parametrize("dtype", (torch.float32, torch.float16, torch.bfloat16))
def test_a_fingerprint_is_of_the_values_in_use(small_policy, tmp_path, dtype):
    first = load_policy(small_policy.save(tmp_path / "a", dtype))
    for number, stored in enumerate((torch.float32, dtype, torch.float64)):  # copied, whatever it is stored as
        assert load_policy(first.save(tmp_path / str(number), stored)).fingerprint == first.fingerprint
    assert (first.fingerprint == small_policy.fingerprint) == (dtype is torch.float32)
    before = first.fingerprint
    assert first.double().fingerprint == before == first.float().fingerprint
    with torch.no_grad():
        list(first.denoiser.parameters())[-1].add_(1e-6)
    assert first.fingerprint != before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_device_changes_no_fingerprint(small_policy):
    before = small_policy.fingerprint
    fingerprints._known.clear()
    assert small_policy.to("cuda").fingerprint == before


def test_encoders_count(small_policy):
    encoder, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    whole, changed = (fingerprints.policy_fingerprint(small_policy.denoiser, one) for one in (encoder, other))
    alone = weights_fingerprint(small_policy.denoiser)
    assert whole != changed and not fingerprints.agree(whole, changed)
    assert fingerprints.agree(whole, alone) and fingerprints.agree(alone, changed)  # as far as both tell
    assert not fingerprints.agree(weights_fingerprint(encoder), whole)


def seeded():
    return torch.Generator().manual_seed(0)


def test_sampling_with_the_calibration_of_another_network(small_policy, policy_config):
    other, observation = make_policy("", policy_config, 1), {"position": torch.zeros(2, 2), "object": torch.zeros(2, 3)}
    foreign = make_sampler("recycled", calibration=calibration(other))
    shape, cond = (1, 8, 2), small_policy.encode(observation)
    for draw in (
        lambda: sample(small_policy.denoiser, small_policy.chain, shape, cond, foreign, seeded()),
        lambda: small_policy.predict(observation, foreign, seeded()),
        lambda: small_policy.with_engine("eager").predict(observation, foreign, seeded()),
    ):
        with pytest.raises(SpecpolicyError, match="this calibration: made for another policy"):
            draw()
    assert other.predict(observation, foreign, seeded()).actions.shape == (1, 8, 2)

    def function(x, t, cond):  # of which nothing is known
        return small_policy.denoiser(x, t, cond)

    for denoiser, made in ((function, calibration(other)), (small_policy.denoiser, calibration(other, None))):
        sampler = make_sampler("recycled", calibration=made)
        assert sample(denoiser, small_policy.chain, shape, cond, sampler, seeded()).actions.shape == shape


def test_a_network_is_looked_at_once_and_not_for_every_chunk(small_policy, monkeypatch):
    made = calibration(small_policy)
    seen = []
    add_weights = fingerprints.add_weights
    monkeypatch.setattr(fingerprints, "add_weights", lambda *given: (seen.append(1), add_weights(*given)))
    fingerprints._known.clear()
    small_policy.calibration = made
    for _ in range(3):
        small_policy.predict({"position": torch.zeros(2, 2), "object": torch.zeros(2, 3)}, "recycled", seeded())
    assert len(seen) == 1


def test_tokens_are_not_decoded_by_the_drafts_of_another_policy(policy_config):
    policy, other = (make_policy("drafts of tokens", policy_config, seed) for seed in (0, 1))
    foreign = make_sampler("confidence", calibration=token_calibration(other))
    with pytest.raises(SpecpolicyError, match="this calibration: made for another policy"):
        policy.bound(foreign)
    policy.bound(make_sampler("confidence", calibration=token_calibration(policy)))


@pytest.mark.parametrize("half", (False, True))
def test_a_converted_policy_keeps_what_was_made_for_it(small_policy, tmp_path, half):
    small_policy.save(tmp_path / "a")
    calibration(small_policy).save(tmp_path / "a")
    draft_models(small_policy).save(tmp_path / "a")
    arguments = [f"path={tmp_path}/a", f"out={tmp_path}/b", f"half_precision={str(half).lower()}"]
    assert main(["convert", *arguments]) == 0
    loaded = load_policy(tmp_path / "b")
    assert loaded.calibration is not None and loaded.draft_models.head is not None
    assert not list((tmp_path / "b").glob(".part*"))


def test_nothing_is_added_to_the_calibration_of_another_policy(small_policy, policy_config, tmp_path, capsys):
    small_policy.save(tmp_path)
    calibration(make_policy("", policy_config, 1)).save(tmp_path)
    assert main(["calibrate", f"policy={tmp_path}", "learn=false"]) == 2
    assert ": made for another policy" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(path.parent.name for path in ROOT.glob("checkpoints/*/config.json")))
def test_shipped_calibrations_are_those_of_their_policies(name):
    policy = load_policy(ROOT / "checkpoints" / name)
    assert policy.calibration is not None and policy.calibration.fingerprint == policy.fingerprint


@pytest.mark.parametrize("again", (copy.deepcopy, lambda planner: pickle.loads(pickle.dumps(planner))))
@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_goes_to_another_process_with_all_that_belongs_to_it(kind, again, policy_config, tmp_path):
    policy = make_policy(kind, policy_config)
    policy.save(tmp_path)
    KINDS[kind][0](policy).save(tmp_path)
    sampler = {"calibration": "recycled", "draft models": "ddpm", "drafts of tokens": "confidence"}[kind]
    planner = PolicyPlanner(load_policy(tmp_path), sampler)
    history = {"position": np.zeros((2, 2), np.float32), "object": np.ones((2, 3), np.float32)}
    planner.reset(0)
    chunk = planner.plan(history)  # its calibration has been checked by now
    other = again(planner)
    other.reset(0)
    np.testing.assert_array_equal(other.plan(history).actions, chunk.actions)


@pytest.mark.parametrize("directory", sorted((ROOT / "checkpoints").glob("*/")), ids=lambda path: path.name)
def test_a_shipped_policy_can_be_sent_to_a_process(directory):
    policy = load_policy(directory)
    assert policy.calibration is not None
    other = pickle.loads(pickle.dumps(PolicyPlanner(policy))).policy
    assert other.fingerprint == policy.fingerprint and type(other.calibration) is type(policy.calibration)
