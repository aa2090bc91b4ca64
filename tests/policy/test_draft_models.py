"""Draft models beside a checkpoint: they come back as they were, a policy uses them, damage is named."""

import json

import pytest
import torch

from specpolicy import SpecpolicyError, load_policy, make_sampler
from specpolicy.policy.draft_models import SETTINGS, WEIGHTS, DraftModels, read_draft_models

DENOISER = {"action_dim": 2, "cond_dim": 10, "down_dims": [8, 16]}
HEAD = {"horizon": 8, "action_dim": 2, "cond_dim": 10, "train_steps": 20, "width": 16}


@pytest.fixture
def models():
    """Both kinds, untrained, the head with changes that are not zero."""
    torch.manual_seed(0)
    models = DraftModels(report={"seconds": 1.5})
    models.add("independent", **DENOISER)
    head = models.add("corrected", **HEAD)
    torch.nn.init.normal_(head.out.weight, std=0.1)
    return models


@pytest.fixture
def checkpoint(small_policy, models, tmp_path):
    """A policy with both beside it."""
    directory = small_policy.save(tmp_path / "policy")
    models.fingerprint = small_policy.fingerprint
    models.save(directory)
    return directory


def observation(rows=2):
    generator = torch.Generator().manual_seed(0)
    return {
        "position": torch.randn(rows, 2, 2, generator=generator),
        "object": torch.randn(rows, 2, 3, generator=generator),
    }


def test_they_come_back_in_half_precision(checkpoint, models):
    read = read_draft_models(checkpoint)
    assert read.options["corrected"].items() >= models.options["corrected"].items()
    assert read.options["independent"].items() >= models.options["independent"].items()
    assert read.report == models.report and read.fingerprint == models.fingerprint
    for kind, model in models.models().items():
        own = read.models()[kind]
        assert not own.training
        for name, value in model.state_dict().items():
            torch.testing.assert_close(own.state_dict()[name], value, rtol=1e-3, atol=1e-6)


def test_a_directory_without_them_has_none(tmp_path):
    assert read_draft_models(tmp_path).models() == {}


@pytest.mark.parametrize("kind", ("independent", "corrected"))
def test_one_kind_alone(tmp_path, models, kind):
    alone = DraftModels()
    alone.add(kind, **models.options[kind])
    alone.save(tmp_path)
    assert set(read_draft_models(tmp_path).models()) == {kind}


@pytest.mark.parametrize("sampler", ("reflection", "residual", "block"))
@pytest.mark.parametrize("drafter", ("independent", "corrected"))
def test_a_policy_hands_them_to_samplers_that_want_them(checkpoint, sampler, drafter):
    policy = load_policy(checkpoint)
    made = make_sampler(sampler, drafter=drafter, window=4)
    out = policy.predict(observation(), made, torch.Generator().manual_seed(1))
    assert out.actions.isfinite().all() and out.stats.calls.min() > 1
    *_, own = made.learnt(policy.setting(), "cpu")
    assert own is policy.draft_models.models()[drafter]
    # A model of one's own goes first.
    mine = make_sampler(sampler, drafter=drafter, draft_denoiser=policy.denoiser, head=policy.draft_models.head)
    *_, own = mine.learnt(policy.setting(), "cpu")
    assert own is (policy.denoiser if drafter == "independent" else policy.draft_models.head)


@pytest.mark.parametrize("drafter", ("independent", "corrected"))
def test_draft_models_follow_their_policy(checkpoint, drafter):
    policy = load_policy(checkpoint)
    policy.to("meta")
    policy.setting()
    model = policy.draft_models.models()[drafter]
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_a_perfect_draft_model_is_never_rejected(small_policy):
    sampler = make_sampler("reflection", drafter="independent", draft_denoiser=small_policy.denoiser)
    out = small_policy.predict(observation(), sampler, torch.Generator().manual_seed(1))
    # The batch of the network differs from that of its drafts, and rounding with it.
    assert out.stats.calls.max() <= 2


def test_without_them_a_sampler_says_what_it_needs(small_policy):
    for drafter, word in (("independent", "draft_denoiser="), ("corrected", "head=")):
        with pytest.raises(SpecpolicyError, match=word):
            small_policy.predict(observation(), make_sampler("block", drafter=drafter))


def test_an_unknown_kind_is_refused():
    with pytest.raises(SpecpolicyError, match=r"'medusa'.*independent, corrected"):
        DraftModels().add("medusa")


@pytest.mark.parametrize("damage", ("truncate", "remove", "json", "shape", "kind"))
def test_damage_is_named_in_one_line(checkpoint, damage):
    weights, settings = checkpoint / WEIGHTS, checkpoint / SETTINGS
    stored = json.loads(settings.read_text())
    if damage == "truncate":
        weights.write_bytes(weights.read_bytes()[:500])
    elif damage == "remove":
        weights.unlink()
    elif damage == "json":
        settings.write_text("{")
    elif damage == "shape":
        stored["options"]["corrected"]["width"] = 17
        settings.write_text(json.dumps(stored))
    else:
        stored["options"]["medusa"] = {}
        settings.write_text(json.dumps(stored))
    with pytest.raises(SpecpolicyError) as error:
        load_policy(checkpoint)
    assert "\n" not in str(error.value) and ("train them again" in str(error.value) or "medusa" in str(error.value))
