"""A policy of action tokens is used like any other, and drafts change none of its tokens."""

import dataclasses

import pytest
import torch

import specpolicy
from specpolicy import SpecpolicyError, make_sampler
from specpolicy.control.planner import PolicyPlanner
from specpolicy.policy import TokenPolicy
from specpolicy.policy.histories import FILE, read_histories
from specpolicy.tokens.batches import EqualBatches
from specpolicy.tokens.bound import inexact
from specpolicy.tokens.rules import NEAR
from specpolicy.tokens.samplers import RandomOrderDecoder, RasterDecoder

OBSERVATIONS, ALONE = 1_000, 200
DECODERS = {
    "confidence": [dict(drafter="graph", drafts=8), dict(drafter="chain", drafts=4), dict(drafts=12, keep=4)],
    "confidence greedy": [dict(drafter="graph", drafts=8), dict(drafter="chain", drafts=4)],
    "confidence by step": [dict(drafts=4)],
    "entropy": [dict(drafts=8)],
    "candidate": [dict(drafts=8), dict(drafter="chain", drafts=4)],
    "candidate by step": [dict(drafts=4)],
    "two a step": [dict(drafts=8)],
    "cosine": [dict(drafts=8), dict(drafter="chain", drafts=4)],
    "threshold": [dict(drafts=8), dict(drafter="chain", drafts=4)],
    "random order": [dict(drafts=4), dict(drafter="chain", drafts=4), dict(drafter="graph", drafts=8)],
    "raster": [dict(drafts=12), dict(drafter="chain", drafts=4)],
}
OPTIONS = {
    "confidence greedy": dict(name="confidence", sampled=False),
    "confidence by step": dict(name="confidence", noise="step"),
    "entropy": dict(name="confidence", confidence="entropy"),
    "candidate": dict(name="confidence", confidence="candidate"),
    "candidate by step": dict(name="confidence", confidence="candidate", noise="step"),
    "two a step": dict(name="confidence", tokens_per_step=2),
    "cosine": dict(name="cosine", steps=6),
    "random order": dict(name="random_order"),
}


def decoder(name, **options):
    return make_sampler(**{**OPTIONS.get(name, dict(name=name)), **options})


def in_half(policy, observation, sampler):
    with torch.autocast("cpu", torch.bfloat16):
        return policy.predict(observation, sampler)


@pytest.mark.parametrize("name", DECODERS)
@torch.inference_mode()
def test_drafts_change_no_token_of_a_thousand_observations(token_policy, seen, name, record_property):
    policy, cond = token_policy, token_policy.encode(seen(OBSERVATIONS))
    policy.engine = EqualBatches(policy.denoiser)

    def generators(count=OBSERVATIONS):
        return [torch.Generator().manual_seed(seed) for seed in range(count)]

    ordinary = decoder(name, drafts=0)
    traces, expected = policy.bound(ordinary).record(cond, generators())
    least = torch.stack([trace.gaps.min() for trace in traces])
    near = int((least < NEAR).sum())
    record_property("chunks_with_near_ties", near)
    assert near < OBSERVATIONS / 2  # else little would be compared
    assert len(expected.unique(dim=0)) > 20  # they are not one case a thousand times
    for options in DECODERS[name]:
        found = policy.bound(decoder(name, **options)).decode(cond, generators())
        assert torch.equal(found.tokens, expected), f"{options}, {near} near ties"
        assert found.calls.sum() < sum(map(len, traces))
    # Row by row logits round otherwise, and then nothing but a near tie may be broken otherwise.
    alone = policy.bound(ordinary).decode(cond[:ALONE], generators(ALONE), EqualBatches(policy.denoiser, 1))
    differs = (alone.tokens != expected[:ALONE]).any(dim=1)
    assert (least[:ALONE][differs] < NEAR).all()


def test_the_same_generator_gives_the_same_chunk_whatever_is_drafted(token_policy, seen):
    def draw(sampler):
        return token_policy.predict(seen(5), sampler, torch.Generator().manual_seed(3), return_states=True)

    ordinary, graph, chain = (
        draw("confidence"),
        draw(decoder("confidence", drafts=8)),
        draw(decoder("confidence", drafts=3, drafter="chain")),
    )
    for out in (graph, chain):
        assert torch.equal(out.actions, ordinary.actions) and torch.equal(out.states, ordinary.states)
        assert (out.stats.calls <= 12).all() and (out.stats.rows > out.stats.calls).all()
    assert (ordinary.stats.calls == 12).all() and (ordinary.stats.rows == 12).all() and ordinary.stats.accepted == []
    assert ordinary.actions.shape == (5, 4, 3) and ordinary.states.shape == (13, 5, 4, 3)
    assert (ordinary.states[0] == 8).all() and (ordinary.states[-1] < 8).all()
    centres = token_policy.normaliser.unnormalise("action", token_policy.tokeniser.decode(ordinary.states[-1]))
    assert torch.equal(centres, ordinary.actions)


def test_a_generator_per_row_makes_rows_independent_of_the_batch(token_policy, seen):
    observation = seen(4)
    generators = [torch.Generator().manual_seed(seed) for seed in range(4)]
    together = token_policy.predict(observation, decoder("random order", drafts=4), generators)
    one = {key: value[2] for key, value in observation.items()}
    alone = token_policy.predict(one, "random_order", torch.Generator().manual_seed(2))
    assert torch.equal(alone.actions[0], together.actions[2])


def test_it_comes_back_from_the_disk(token_policy, seen, tmp_path):
    token_policy.save(tmp_path / "policy")
    loaded = specpolicy.load_policy(tmp_path / "policy")
    assert isinstance(loaded, TokenPolicy) and loaded.calibration is None
    first, second = (
        policy.predict(seen(2), "cosine", torch.Generator().manual_seed(0)) for policy in (token_policy, loaded)
    )
    assert torch.equal(first.actions, second.actions)
    assert loaded.executable(second.actions).shape == (2, 2, 3)


def test_quantile_tokens_come_back_from_the_disk(token_config, tmp_path):
    from specpolicy.tokens.tokeniser import make_tokeniser

    token_config["tokens"] = make_tokeniser("quantile", 8, torch.randn(500, 4, 3)).to_config()
    policy = TokenPolicy.from_config(token_config)
    policy.save(tmp_path / "policy")
    assert torch.equal(specpolicy.load_policy(tmp_path / "policy").tokeniser.centres, policy.tokeniser.centres)


def test_it_plans(token_policy, seen):
    planner = PolicyPlanner(token_policy, decoder("confidence", drafts=8))
    planner.reset(0)
    chunk = planner.plan({key: value[0].numpy() for key, value in seen(1).items()})
    assert chunk.actions.shape == (3, 3) and chunk.calls < 12 < chunk.rows


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda policy, seen: policy.predict(seen, "ddpm"), "denoises"),
        (lambda policy, seen: policy.with_engine("compile"), "eager"),
        (lambda policy, seen: policy.with_engine("eager", precision="bfloat16"), "float32"),
        (lambda policy, seen: policy.bfloat16().predict(seen, decoder("cosine", drafts=3)), "drafts=0"),
        (lambda policy, seen: in_half(policy, seen, decoder("cosine", drafts=3)), "autocast is active: use drafts=0"),
        (lambda policy, seen: make_sampler("confidence", drafts=-1), "drafts=-1"),
        (lambda policy, seen: make_sampler("confidence", drafter="tree"), "unknown drafter"),
        (lambda policy, seen: make_sampler("confidence", drafter="fixed_point"), "drawn beforehand"),
        (lambda policy, seen: make_sampler("confidence", drafter="graph", noise="step"), "noise=position"),
        (lambda policy, seen: make_sampler("confidence", confidence="luck"), "unknown confidence"),
        (lambda policy, seen: make_sampler("threshold", threshold=1.5), "threshold=1.5"),
        (lambda policy, seen: make_sampler("random_order", tokens_per_step=0), "tokens_per_step=0"),
        (lambda policy, seen: make_sampler("raster", steps=4, tokens_per_step=2), "two schedules"),
        (lambda policy, seen: RandomOrderDecoder(steps=0), "steps=0"),
        (lambda policy, seen: make_sampler("confidence", tokens=2), "no option 'tokens'"),
    ],
)
def test_what_cannot_be_is_refused(token_policy, seen, wrong, message):
    with pytest.raises(SpecpolicyError, match=message):
        wrong(token_policy, seen(1))


def test_tf32_is_refused_for_drafts_on_a_gpu():
    assert inexact(torch.float32, torch.device("cuda")) is None
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        assert inexact(torch.float32, torch.device("cpu")) is None
        assert "TF32" in inexact(torch.float32, torch.device("cuda"))
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def test_without_drafts_half_precision_is_the_users_own_affair(token_policy, seen):
    assert in_half(token_policy, seen(1), decoder("cosine", drafts=0)).actions.isfinite().all()


def test_a_diffusion_policy_refuses_to_decode_tokens(small_policy):
    observation = {"position": torch.zeros(1, 2, 2), "object": torch.zeros(1, 2, 3)}
    with pytest.raises(SpecpolicyError, match="decodes action tokens"):
        small_policy.predict(observation, "confidence")


def test_weights_that_are_no_numbers_are_refused(token_policy, seen):
    with torch.no_grad():
        token_policy.denoiser.head.bias.fill_(torch.nan)
    with pytest.raises(SpecpolicyError, match="not finite"):
        token_policy.predict(seen(1))


def test_samplers_with_the_same_distribution_say_so():
    ordinary = make_sampler("confidence")
    assert ordinary.distribution == dataclasses.replace(ordinary, drafts=8, drafter="chain").distribution
    assert len({make_sampler(**OPTIONS.get(name, dict(name=name))).distribution for name in DECODERS}) == len(DECODERS)


def test_a_decoders_order_does_not_depend_on_what_it_is_called():
    assert RandomOrderDecoder(name="mine").rule(4).order == "random" and RasterDecoder(
        name="mine"
    ).distribution.startswith("raster")


def test_keeping_the_best_nodes_chooses_from_a_whole_graph(token_policy, seen):
    kept = token_policy.predict(seen(3), decoder("confidence", keep=4), torch.Generator().manual_seed(0))
    ordinary = token_policy.predict(seen(3), "confidence", torch.Generator().manual_seed(0))
    assert torch.equal(kept.actions, ordinary.actions) and (kept.stats.calls < 12).all()
    assert decoder("confidence", keep=4).describe_drafts() == "graph, 64 drafts, 4 kept"
    assert (kept.stats.rows <= 1 + 5 * (kept.stats.calls - 1)).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ("random_order", "cosine"))
@torch.inference_mode()
def test_shipped_drafts_change_no_token_of_a_shipped_policy(name, pytestconfig):
    """A thousand observations, and the graphs that calibration chose."""
    directory = pytestconfig.rootpath / "checkpoints" / "can_tokens"
    policy = specpolicy.load_policy(directory)
    histories = read_histories(directory / FILE, policy)
    count = len(next(iter(histories.values())))
    rows = torch.arange(OBSERVATIONS) % count  # the same observation again has other noise
    cond = policy.encode({key: torch.as_tensor(values)[rows] for key, values in histories.items()})
    policy.engine = EqualBatches(policy.denoiser)
    expected, found = (
        policy.bound(make_sampler(name, drafts=drafts)).decode(cond, torch.Generator().manual_seed(0))
        for drafts in (0, 8)
    )
    assert torch.equal(found.tokens, expected.tokens) and (found.calls <= expected.calls).all()
    assert found.calls.sum() < 0.8 * expected.calls.sum()


def test_auto_is_the_one_engine_there_is(token_policy):
    assert token_policy.with_engine("auto").engine is None
