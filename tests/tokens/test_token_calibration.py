"""Draft graphs chosen on traces: replay says what decoding does, and what rows cost decides how many drafts."""

import json

import pytest
import torch
from toy_tokens import ToyNetwork, uniform_source

import specpolicy
from specpolicy import SpecpolicyError, make_sampler
from specpolicy.tokens import (
    DraftGraph,
    GraphDrafter,
    Rule,
    cosine_counts,
    decode,
    fixed_counts,
    masked_start,
    speculate,
)
from specpolicy.tokens.calibration import (
    DIVISIONS,
    DecoderCalibration,
    TokenCalibration,
    calibrate_graphs,
    calibrate_lookahead,
    paths_of,
    record_traces,
    replay,
    select_graph,
    select_graphs,
    select_tree,
)

L, V, CHUNKS = 8, 4, 150
ROWS = (1, 4, 6, 9, 17, 33, 65)
NETWORK = ToyNetwork(L, V, seed=4, scale=0.6, shared=2.5, chunks=CHUNKS)
RULES = {
    "one": Rule(L, fixed_counts(L, 1)),
    "greedy": Rule(L, fixed_counts(L, 1), sampled=False),
    "three": Rule(L, fixed_counts(L, 3)),
    "cosine": Rule(L, cosine_counts(L, 5)),
    "threshold": Rule(L, None, threshold=0.6),
    "random": Rule(L, fixed_counts(L, 1), order="random"),
}


def traces_of(rule, seed=0):
    noise = rule.draw_noise(V, uniform_source(CHUNKS, seed))
    return record_traces(NETWORK, rule, noise, masked_start(CHUNKS, L, V), V)[0]


@pytest.mark.parametrize(
    ("name", "division"),
    [(name, division) for name in RULES for division in DIVISIONS if (name, division) != ("threshold", "step")],
)
def test_replay_counts_the_calls_and_rows_that_decoding_takes(name, division):
    rule = RULES[name]
    graphs = select_graphs(traces_of(rule, seed=1), rule, 8, division)
    noise, start = rule.draw_noise(V, uniform_source(CHUNKS, 0)), masked_start(CHUNKS, L, V)
    out = speculate(NETWORK, rule, GraphDrafter(graphs), noise, start, V)
    assert torch.equal(out.tokens, decode(NETWORK, rule, noise, start, V).tokens)
    replayed = [replay(trace, rule, graphs) for trace in traces_of(rule)]
    assert [one.calls for one in replayed] == out.calls.tolist()
    assert [one.rows for one in replayed] == out.rows.tolist()


def test_a_graph_per_step_needs_steps():
    with pytest.raises(SpecpolicyError, match="no graph per step"):
        select_graphs(traces_of(RULES["threshold"]), RULES["threshold"], 8, "step")
    with pytest.raises(SpecpolicyError, match="graphs=none"):
        select_graphs(traces_of(RULES["one"]), RULES["one"], 8, "none")


def test_without_drafts_replay_counts_the_steps():
    for trace in traces_of(RULES["one"])[:5]:
        found = replay(trace, RULES["one"], None)
        assert found.calls == found.rows == L and not any(found.accepted)


def calls(traces, rule, graphs, tree=None):
    return sum(replay(trace, rule, graphs, tree).calls for trace in traces)


def test_more_nodes_never_cost_calls_and_calibrated_ones_beat_the_chain():
    rule, traces = RULES["one"], traces_of(RULES["one"])
    graph = select_graph(paths_of(traces), 24)
    found = [calls(traces, rule, {L: graph.first(count)}) for count in (1, 3, 8, 24)]
    assert found == sorted(found, reverse=True) and found[-1] < 0.7 * L * CHUNKS
    chain = DraftGraph(tuple(tuple((place, 0) for place in range(depth)) for depth in range(1, L)))
    assert found[2] < calls(traces, rule, {L: chain})  # eight nodes against seven, which is all a chain has


def test_a_graph_needs_no_more_calls_than_a_tree_of_as_many_nodes():
    rule, traces = RULES["one"], traces_of(RULES["one"])
    graph, tree = select_graph(paths_of(traces), 24), select_tree(paths_of(traces), 24)
    assert len(tree) == 24
    assert calls(traces, rule, {L: graph}) < calls(traces, rule, None, tree)


def test_counting_a_nodes_parents_is_another_and_no_better_objective():
    rule, traces = RULES["one"], traces_of(RULES["one"])
    accepted, paper = (select_graph(paths_of(traces), 16, name) for name in ("accepted", "own_and_parents"))
    assert calls(traces, rule, {L: accepted}) <= calls(traces, rule, {L: paper}) < L * CHUNKS
    with pytest.raises(SpecpolicyError, match="unknown objective"):
        select_graph(paths_of(traces), 16, "luck")


def test_how_many_drafts_depends_on_what_rows_cost_and_may_be_none():
    rule, traces = RULES["one"], traces_of(RULES["one"])
    dear, free = {rows: 1.0 * rows for rows in ROWS}, dict.fromkeys(ROWS, 1.0)
    found = calibrate_graphs(traces, rule, free)
    assert found.drafts == {}  # it says what was measured; what it costs on which machine is asked later
    both = found.timed("cpu", dear).timed("cuda", free)
    assert both.drafts["cpu"] == 0 and both.drafts["cuda"] > 8 and both.graphs == found.graphs
    assert found.report["calls"]["0"] == L > found.report["calls"]["8"] > found.report["calls"]["32"]
    assert both.report["seconds"]["cuda"] == found.report["calls"]
    looked = calibrate_lookahead("chain", lambda drafts: (8 / (1 + drafts), 9.0), (3, 5))
    assert looked.timed("cpu", free).drafts == {"cpu": 5}
    assert looked.timed("cpu", {1: 1.0, 4: 1.0}).drafts == {"cpu": 3}  # what five drafts cost is not known


@pytest.mark.parametrize("steps", (1, 2))
def test_a_decoder_of_two_steps_or_one_leaves_nothing_to_draft(steps):
    rule = Rule(L, fixed_counts(L, L // steps))
    found = calibrate_graphs(traces_of(rule), rule, dict.fromkeys(ROWS, 1.0))
    assert found.graphs == {} and found.report["calls"] == {"0": steps}
    assert found.timed("cpu", dict.fromkeys(ROWS, 1.0)).drafts == {"cpu": 0}


def test_what_is_added_is_chosen_for_all_machines_and_keeps_the_other_decoders():
    costs = {"cpu": {rows: 1.0 * rows for rows in ROWS}, "cuda": dict.fromkeys(ROWS, 1.0)}
    chain = calibrate_lookahead("chain", lambda drafts: (8 / (1 + drafts), 9.0))
    before = TokenCalibration(56, 64, {"other": DecoderCalibration("graph", {"cpu": 3})}, costs)
    after = before.added("distribution", chain)
    assert after.decoders["other"] == before.decoders["other"]
    assert after.decoders["distribution"].drafts == {"cpu": 0, "cuda": 64}


def test_too_few_traces_are_refused():
    with pytest.raises(SpecpolicyError, match="too few"):
        calibrate_graphs(traces_of(RULES["one"])[:1], RULES["one"], {})


@pytest.mark.parametrize("nodes", [((),), (((1, 0), (0, 0)),), (((0, 0), (0, 1)),), (((0, -1),),)])
def test_nodes_that_make_no_sense_are_refused(nodes):
    with pytest.raises(SpecpolicyError, match="no node"):
        DraftGraph(nodes)


# -- beside a policy --------------------------------------------------------------------------------------------------


def calibrated(policy, seen):
    sampler = make_sampler("confidence")
    source = torch.Generator().manual_seed(0)
    traces, _ = policy.bound(sampler).record(policy.encode(seen(40)), source)
    costs = {"cpu": dict.fromkeys(ROWS, 1.0)}
    found = calibrate_graphs(traces, sampler.rule(policy.tokens), costs["cpu"])
    made = TokenCalibration(policy.tokens, policy.tokeniser.bins, {}, costs, fingerprint=policy.fingerprint)
    return made.added(sampler.distribution, found)


def test_a_policy_uses_the_calibration_beside_it(token_policy, seen, tmp_path):
    token_policy.save(tmp_path)
    calibrated(token_policy, seen).save(tmp_path)
    loaded = specpolicy.load_policy(tmp_path)
    ordinary = token_policy.predict(seen(6), "confidence", torch.Generator().manual_seed(0))
    drafted = loaded.predict(seen(6), "confidence", torch.Generator().manual_seed(0))
    assert torch.equal(ordinary.actions, drafted.actions)
    assert drafted.stats.calls.sum() < ordinary.stats.calls.sum()
    assert "graph" in loaded.bound("confidence").describe()["window"]
    assert loaded.bound("raster").describe()["window"] is None  # nothing was calibrated for it


def test_what_was_chosen_for_another_machine_does_not_hold_here_but_its_graphs_do(token_policy, seen):
    token_policy.calibration = calibrated(token_policy, seen)
    sampler = make_sampler("confidence")
    found = token_policy.calibration.decoders[sampler.distribution]
    assert token_policy.bound(sampler).drafter.graphs and token_policy.bound(sampler).found is found
    assert sampler.resolved(found, "cpu") == ("graph", found.drafts["cpu"])
    assert sampler.resolved(found, "cuda") == ("graph", 0)
    drafter = make_sampler("confidence", drafts=8).make_drafter(token_policy.tokens, found, "cuda")
    assert drafter.graphs == {masked: graph.first(8) for masked, graph in found.graphs.items()}


def test_a_sampler_says_how_many_nodes_there_are_to_draft(token_policy, seen):
    token_policy.calibration = calibrated(token_policy, seen)
    nodes = max(
        len(graph.nodes)
        for graph in token_policy.calibration.decoders[make_sampler("confidence").distribution].graphs.values()
    )
    every = token_policy.bound(make_sampler("confidence", drafts=1_000))
    assert every.describe()["window"] == f"graph, {nodes} drafts"
    kept = token_policy.bound(make_sampler("confidence", keep=8))
    assert kept.describe()["window"] == f"graph, {nodes} drafts, 8 kept"


def test_recorded_tokens_are_those_of_the_decoder(token_policy, seen):
    sampler, cond = make_sampler("confidence"), token_policy.encode(seen(10))
    traces, tokens = token_policy.bound(sampler).record(cond, torch.Generator().manual_seed(0))
    out = token_policy.predict(seen(10), sampler, torch.Generator().manual_seed(0), return_states=True)
    assert torch.equal(out.states[-1].flatten(1), tokens) and {len(trace) for trace in traces} == {12}


def test_a_calibration_of_other_tokens_or_a_damaged_one_is_refused(token_policy, seen, tmp_path):
    token_policy.save(tmp_path)
    TokenCalibration(56, 64, fingerprint=token_policy.fingerprint).save(tmp_path)
    with pytest.raises(SpecpolicyError, match="56 tokens of 64 bins"):
        specpolicy.load_policy(tmp_path).predict(seen(1))
    settings = json.loads((tmp_path / "drafts.json").read_text())
    old = json.dumps({**settings, "format": 1})
    for damaged in (old, "{", json.dumps({**settings, "decoders": {"confidence": {}}}), "[]"):
        (tmp_path / "drafts.json").write_text(damaged)
        with pytest.raises(SpecpolicyError, match="calibrate the policy again"):
            specpolicy.load_policy(tmp_path)
