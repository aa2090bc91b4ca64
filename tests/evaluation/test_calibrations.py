"""A calibration is known by what a sampler takes of it, and results under one are not continued under another."""

import dataclasses
import json

import pytest
import torch
from test_runner import DDIM, DDPM, paused

from specpolicy import SpecpolicyError, load_policy
from specpolicy.evaluation import runner, settings
from specpolicy.evaluation.calibrations import calibration_digest
from specpolicy.evaluation.conditions import Condition
from specpolicy.evaluation.player import Setup
from specpolicy.evaluation.runner import Evaluation
from specpolicy.policy import TokenPolicy
from specpolicy.policy.draft_models import DraftModels
from specpolicy.policy.prediction import PredictorOptions, StatePredictor
from specpolicy.sampler_names import make_sampler
from specpolicy.samplers import Calibration
from specpolicy.samplers.recycled.calibration.calibration import Plan
from specpolicy.samplers.recycled.surrogates import GaussianSurrogate
from specpolicy.tokens.calibration.calibration import DecoderCalibration, TokenCalibration
from specpolicy.tokens.graph import DraftGraph

RECYCLED = {"name": "recycled"}
# Options under which the samplers take nothing from a calibration.
WITHOUT = ("ddpm", "ddim", "dpm_solver", "picard", "asd", "block", "reflection", "residual")


def calibration(policy, variance=0.1, **others):
    """A calibration that knows only that chunks are smooth."""
    prior = GaussianSurrogate.smooth(policy.chain.process.alpha_bar, torch.Size(policy.sample_shape), variance)
    return Calibration(prior, fingerprint=policy.fingerprint, **others)


def plan(windows):
    return Plan(windows, 2, False, 3.0, 0.1)


@pytest.fixture
def evaluation(drift_task, drift_policy) -> Evaluation:
    samplers = {"ddpm": DDPM, "asd": {"name": "asd"}, "recycled": RECYCLED}
    return Evaluation(Setup(drift_task, drift_policy, samplers), paused(samplers), episodes=1, seed=100)


def claim(evaluation, output):
    """Begin or continue the results in a directory; the settings of its conditions."""
    settings.claim(evaluation, runner.check(evaluation), output)
    return json.loads((output / "settings.json").read_text())["conditions"]


def only(evaluation, *labels):
    samplers = {label: evaluation.setup.samplers[label] for label in labels}
    return dataclasses.replace(
        evaluation, setup=dataclasses.replace(evaluation.setup, samplers=samplers), conditions=paused(samplers)
    )


def test_results_are_not_continued_under_another_calibration(evaluation, drift_policy, tmp_path):
    policy = load_policy(drift_policy)
    before = claim(evaluation, tmp_path / "without")
    assert not any("calibration" in condition for condition in before.values())
    calibration(policy).save(drift_policy)
    first = claim(evaluation, tmp_path / "with")
    assert first["ddpm"] == before["ddpm"] and first["asd"] == before["asd"]  # they take nothing from it
    assert first["recycled"] == {**before["recycled"], "calibration": first["recycled"]["calibration"]}
    assert claim(evaluation, tmp_path / "with") == first  # the same goes on
    claim(only(evaluation, "ddpm", "asd"), tmp_path / "without")  # what is there of others does no harm
    for made in (calibration(policy, 0.2), calibration(policy, sweeps=5)):
        made.save(drift_policy)
        with pytest.raises(SpecpolicyError, match="not known to be the one that 'recycled' was played with") as caught:
            claim(evaluation, tmp_path / "with")
        assert "overwrite=true" in str(caught.value) and "\n" not in str(caught.value)
        claim(only(evaluation, "ddpm", "asd"), tmp_path / "with")
    with pytest.raises(SpecpolicyError, match="'recycled'"):
        claim(evaluation, tmp_path / "without")


def continued(evaluation, *ways):
    conditions = [Condition("ddpm", clock="delay", delay=2, stitching=way) for way in ways]
    return dataclasses.replace(evaluation, conditions=conditions)


def test_results_are_not_continued_with_another_covariance(evaluation, drift_policy, tmp_path):
    policy, evaluation = load_policy(drift_policy), only(evaluation, "ddpm")
    calibration(policy).save(drift_policy)
    first = claim(continued(evaluation, "inpaint", "linear", "linear-0.1"), tmp_path)
    assert [("continued_by" in one) for one in first.values()] == [False, True, True]
    calibration(policy, sweeps=5).save(drift_policy)
    assert claim(continued(evaluation, "linear"), tmp_path) == first  # the covariance is the same
    calibration(policy, 0.2).save(drift_policy)
    for way in ("linear", "linear-0.1"):
        with pytest.raises(SpecpolicyError, match=r"calibration or predictor is not known to be the one that 'ddpm d2"):
            claim(continued(evaluation, way), tmp_path)
    assert claim(continued(evaluation, "inpaint"), tmp_path) == first


def test_results_are_not_continued_with_another_predictor(evaluation, drift_policy, tmp_path):
    policy, evaluation = load_policy(drift_policy), only(evaluation, "ddpm")
    predictor(policy).save(drift_policy)
    first = claim(continued(evaluation, "continue_chunk", "predicted"), tmp_path)
    assert [("continued_by" in one) for one in first.values()] == [False, True]
    predictor(policy, errors=(0.5, 0.5)).save(drift_policy)
    assert claim(continued(evaluation, "predicted"), tmp_path) == first
    predictor(policy, bias=1.0).save(drift_policy)
    with pytest.raises(SpecpolicyError, match="calibration or predictor is not known to be"):
        claim(continued(evaluation, "predicted"), tmp_path)
    assert claim(continued(evaluation, "continue_chunk"), tmp_path) == first


def predictor(policy, bias=0.0, errors=()):
    keys = {key: policy.frame_shape(key)[-1] for key in policy.observation_keys}
    options = PredictorOptions(keys, policy.n_obs_steps, policy.action_dim, 2, errors)
    return StatePredictor(
        options, torch.zeros(2, options.inputs, options.outputs), torch.full((2, options.outputs), bias)
    )


def test_the_report_of_a_calibration_and_the_plans_of_others_change_nothing(small_policy):
    def digest(spec=RECYCLED, engine="eager", **others):
        small_policy.calibration = calibration(small_policy, **others)
        return calibration_digest(small_policy, spec, engine)

    steps = len(small_policy.chain)
    bare = digest()
    assert digest(report={"cpu": {"seconds": 3.0}}) == bare
    assert digest(plans={"cuda": {steps: plan([4])}, "cpu": {steps + 1: plan([4])}}) == bare
    planned = digest(plans={"cpu": {steps: plan([4])}})
    assert planned not in (bare, digest(plans={"cpu": {steps: plan([5])}}))
    elsewhere = {"cpu": {steps: plan([4])}, "cpu-openvino": {steps: plan([6])}}
    assert digest(plans=elsewhere) == planned != digest(plans=elsewhere, engine="openvino")
    assert digest(plans={"cpu": {steps: plan([4])}}, engine="openvino") == planned  # for want of a plan of its own
    assert digest({**RECYCLED, "window": 8}, plans=elsewhere) == bare  # a window of its own
    assert digest({**RECYCLED, "calibrated": False}) is None


def test_draft_models_are_known_where_they_are_taken(small_policy):
    small_policy.calibration, models = calibration(small_policy), DraftModels()
    models.add("independent", action_dim=2, cond_dim=10, down_dims=[8, 16])
    small_policy.draft_models = models
    drafted = {"name": "block", "drafter": "independent"}
    before = calibration_digest(small_policy, drafted, "eager")
    with torch.no_grad():
        next(models.denoiser.parameters()).add_(1.0)
    assert before is not None and calibration_digest(small_policy, drafted, "eager") != before
    for name in WITHOUT:
        assert calibration_digest(small_policy, {"name": name}, "eager") is None


def test_of_a_decoder_only_its_drafts_count(policy_config):
    small = {"kind": "masked_transformer", "n_layer": 1, "n_head": 2, "n_emb": 16, "dropout": 0.0}
    config = {name: value for name, value in policy_config.items() if name != "chain"}
    policy = TokenPolicy.from_config({**config, "network": small, "tokens": {"kind": "uniform", "bins": 8}})
    distribution = make_sampler("confidence").distribution

    def digest(chosen, nodes=(((0, 0),), ((0, 0), (1, 0))), **options):
        graphs = {policy.tokens: DraftGraph(nodes)}
        found = DecoderCalibration("graph", {"cpu": chosen}, graphs, {"seconds": {}})
        policy.calibration = TokenCalibration(policy.tokens, policy.tokeniser.bins, {distribution: found})
        return calibration_digest(policy, {"name": "confidence", **options}, "eager")

    assert digest(0) is None and digest(2, drafts=0) is None  # it is the ordinary decoder
    assert digest(2) not in (None, digest(1), digest(2, (((0, 0),), ((0, 1),))))
    assert digest(1) == digest(1, (((0, 0),), ((0, 1),)))  # of both only the first is drafted
    policy.calibration = None
    assert calibration_digest(policy, {"name": "confidence", "drafts": 4}, "eager") is None


def test_a_decoder_for_a_policy_without_tokens_is_refused(small_policy):
    small_policy.calibration = calibration(small_policy)
    with pytest.raises(SpecpolicyError, match="decodes action tokens"):
        calibration_digest(small_policy, {"name": "confidence"}, "eager")
    assert calibration_digest(small_policy, DDIM, "eager") is None
