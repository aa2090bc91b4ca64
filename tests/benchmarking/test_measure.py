"""Chunks under measurement: every one is counted, nothing but its time depends on the machine."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from in_place import InPlace

from specpolicy.benchmarking.launches import Launches
from specpolicy.benchmarking.measure import Subject, choose, measure, measure_launches
from specpolicy.benchmarking.report import COLUMNS, chunk_lines
from specpolicy.benchmarking.stand_in import StandIn, random_network
from specpolicy.benchmarking.summary import distribution, summarise
from specpolicy.benchmarking.windows import cheaper_drafts, tune_windows
from specpolicy.errors import SpecpolicyError
from specpolicy.model import Model
from specpolicy.sampler_names import make_sampler
from specpolicy.samplers import Calibration
from specpolicy.samplers.description import describe_distribution
from specpolicy.samplers.recycled.surrogates import GaussianSurrogate, StudentSurrogate

OBSERVATION = {"position": np.zeros((2, 2), np.float32), "object": np.zeros((2, 3), np.float32)}
NAMES = ("ddpm", "ddim-4", "asd", "block-10", "recycled")


@pytest.fixture
def samplers():
    return {name: make_sampler(name) for name in NAMES}


def costs(draws):
    return [(draw.sampler, draw.observation, draw.calls, draw.rows, draw.call_rows) for draw in draws]


def test_every_sampler_draws_for_every_observation_and_each_comes_first_in_its_turn(small_policy, samplers, histories):
    draws = measure(small_policy, samplers, histories, count=5, warm_up=1)
    assert len(draws) == 5 * len(NAMES)
    rounds = [draws[start : start + len(NAMES)] for start in range(0, len(draws), len(NAMES))]
    for number, turn in enumerate(rounds):
        assert {draw.sampler for draw in turn} == set(NAMES)
        assert {draw.observation for draw in turn} == {number}
        assert turn[0].sampler == NAMES[number % len(NAMES)]


def test_calls_and_rows_are_those_that_the_network_saw(small_policy, samplers, histories):
    for draw in measure(small_policy, samplers, histories, count=3):
        assert sum(draw.call_rows) == draw.rows and len(draw.call_rows) == draw.calls
        assert 0 < draw.network_seconds < draw.network_seconds + draw.encode_seconds < draw.seconds
        if draw.sampler in ("ddpm", "ddim-4"):
            assert draw.call_rows == (1,) * draw.calls
    calls = {draw.sampler: draw.calls for draw in measure(small_policy, samplers, histories, count=1)}
    assert calls["ddpm"] == 20 and calls["ddim-4"] == 4 and 1 <= calls["block-10"] <= 10


def test_calls_do_not_depend_on_warm_up_or_on_the_other_samplers(small_policy, samplers, histories):
    together = measure(small_policy, samplers, histories, count=4, seed=3, warm_up=3)
    assert costs(together) == costs(measure(small_policy, samplers, histories, count=4, seed=3, warm_up=0))
    alone = measure(small_policy, {"asd": samplers["asd"]}, histories, count=4, seed=3, warm_up=0)
    assert costs(alone) == [cost for cost in costs(together) if cost[0] == "asd"]
    assert costs(alone) != costs(measure(small_policy, {"asd": samplers["asd"]}, histories, 4, seed=9, warm_up=0))


def test_the_policy_measured_stays_as_it_was(small_policy, samplers, histories):
    measure(small_policy, samplers, histories, count=1)
    assert small_policy.engine is None


def test_no_chunk_is_refused(small_policy, samplers, histories):
    with pytest.raises(SpecpolicyError, match="count=0: give the number of chunks to draw"):
        measure(small_policy, samplers, histories, count=0)


def test_observations_are_spread_or_repeated():
    assert choose(5, 5) == [0, 1, 2, 3, 4]
    assert choose(9, 3) == [0, 4, 8]
    assert choose(2, 5) == [0, 1, 0, 1, 0]


def test_a_stand_in_takes_the_time_and_not_the_answers(small_policy, samplers, histories):
    """With a large network's time, calls and rows stay those of the trained one."""
    large = random_network(small_policy, {"down_dims": [64, 128]})
    rows: list[int] = []
    large.denoiser.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    draws = measure(small_policy, samplers, histories, count=2, warm_up=0, timed=large)
    assert costs(draws) == costs(measure(small_policy, samplers, histories, count=2, warm_up=0))
    assert rows == [size for draw in draws for size in draw.call_rows]
    assert all(0 < draw.network_seconds < draw.seconds for draw in draws)


def test_a_network_of_another_kind_cannot_stand_in_where_nothing_is_captured(small_policy, samplers, histories):
    other = random_network(small_policy, {"kind": "transformer", "n_emb": 16, "n_layer": 1})
    with pytest.raises(SpecpolicyError, match="other options of the same kind"):
        measure(small_policy, samplers, histories, count=1, timed=other)


def capturing(policy):
    """The policy with an engine that captures."""
    policy = policy.with_engine("eager")
    policy.engine.capture = InPlace(policy.denoiser)
    return policy


@pytest.mark.parametrize("options", ({"down_dims": [24, 48]}, {"kind": "transformer", "n_emb": 16, "n_layer": 1}))
def test_another_network_goes_through_the_captured_rounds_of_the_trained_one(small_policy, histories, options):
    samplers = {name: make_sampler(name) for name in ("ddpm", "ddim-5", "asd", "block")}
    samplers["recycled"] = make_sampler("recycled", rejoin=False)
    own, large = capturing(small_policy), capturing(random_network(small_policy, options))
    rows: list[int] = []
    measure(own, samplers, histories, count=1, warm_up=1, timed=large)
    large.denoiser.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    draws = measure(own, samplers, histories, count=2, warm_up=0, timed=large)
    assert costs(draws) == costs(measure(own, samplers, histories, count=2, warm_up=0))
    assert sum(size for draw in draws for size in draw.call_rows) < sum(rows)  # and once more, to be captured
    assert len({draw.calls for draw in draws}) > 3 and all(0 < draw.network_seconds < draw.seconds for draw in draws)


def test_a_stand_in_tells_how_long_the_answers_took(monkeypatch):
    now, timed = 0.0, []
    monkeypatch.setattr("specpolicy.model.time.perf_counter", lambda: now)

    def answer(x, t, cond):
        nonlocal now
        now += 1.5 * len(x)
        return x + 1

    def time_call(x, t, cond):
        nonlocal now
        now += 100.0
        timed.append(len(x))

    stand_in = StandIn(answer, time_call, torch.device("cpu"))
    for rows in (2, 3):
        assert torch.equal(stand_in(torch.zeros(rows, 1, 1), torch.zeros(rows), None), torch.ones(rows, 1, 1))
    assert timed == [2, 3]
    assert stand_in.read_surplus() == 7.5
    assert stand_in.read_surplus() == 0.0


def test_random_networks_repeat_and_leave_random_numbers_alone(small_policy):
    state = torch.random.get_rng_state()
    first, second = (random_network(small_policy, {"down_dims": [24, 48]}, seed=4) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), state)
    pairs = zip(first.denoiser.parameters(), second.denoiser.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    for options, words in (
        ({"kind": "lstm"}, "kind"),
        ({"depth": 3}, "unknown key 'depth'"),
        ({"down_dims": [10, 20]}, "multiples of n_groups"),
    ):
        with pytest.raises(SpecpolicyError, match=words):
            random_network(small_policy, options)


def test_the_window_is_chosen_by_what_calls_cost(small_policy, histories):
    samplers = {name: make_sampler(name) for name in ("ddpm", "recycled")}
    sizes = (4, 6, 8, 12, 16, None)
    subject, chosen = Subject(small_policy), choose(len(next(iter(histories.values()))), 3)

    def spent(sampler, what):
        return sum(getattr(subject.draw("one", sampler, histories, row, row), what) for row in chosen)

    # If rows cost nothing, the fewest calls are best; if a row costs as much as a call, the fewest rows.
    for seconds_of_20_rows, what in ((1e3, "calls"), (2e4, "rows")):
        tuned = tune_windows(small_policy, samplers, histories, {1: 1e3, 20: seconds_of_20_rows}, count=3)
        assert tuned["ddpm"] is samplers["ddpm"]
        by_size = {size: spent(make_sampler("recycled", window=size), what) for size in sizes}
        best = min(sizes, key=by_size.__getitem__)
        # Then cheaper drafts are tried with that window.
        others = [{"sweeps": 1}, {"sweeps": 2}, {"rejoin": False}]
        found = [spent(make_sampler("recycled", window=best, **options), what) for options in others]
        assert spent(tuned["recycled"], what) == min(by_size[best], *found)
        assert by_size[best] < max(by_size.values())


def test_cheaper_drafts_are_tried_and_told(small_policy):
    """With a calibration its linear prior, too; the table says what made the drafts."""
    chain, shape = small_policy.chain, small_policy.sample_shape
    size = small_policy.encode(OBSERVATION).shape[1]
    prior = GaussianSurrogate(chain.process.alpha_bar, shape, size)
    student = StudentSurrogate(chain.process.alpha_bar, shape, size, width=8, context=4, hidden=16, observation=16)
    small_policy.calibration = Calibration(prior, student, sweeps=4)
    sampler, setting = make_sampler("recycled", window=6), small_policy.setting()
    tried = [small_policy.bound(one).describe()["window"] for one in (sampler, *cheaper_drafts(sampler, setting))]
    assert tried == [
        "6; student, 4 sweeps, rejoining",
        "6; student, 1 sweep, rejoining",
        "6; student, 2 sweeps, rejoining",
        "6; prior, 1 sweep, rejoining",
        "6; student, 4 sweeps",
    ]
    bare = make_sampler("recycled", calibrated=False, window=None, rejoin=False)
    tried = [small_policy.bound(one).describe()["window"] for one in cheaper_drafts(bare, setting)]
    assert tried == [f"to the end; prior, {how}" for how in ("1 sweep", "2 sweeps", "1 sweep, rejoining")]
    on_gpu = replace(setting, model=Model(small_policy.denoiser, torch.device("cuda")))
    assert [one.rejoin for one in cheaper_drafts(make_sampler("recycled"), on_gpu)][-1] is True
    assert not cheaper_drafts(make_sampler("asd"), setting)


def test_calls_are_timed_by_rows(small_policy):
    found = small_policy.seconds_by_rows(small_policy.encode(OBSERVATION), turns=1)
    assert sorted(found) == [1, 2, 4, 8, 12, 16, 20] and all(seconds > 0 for seconds in found.values())


def test_launches_are_those_of_the_first_chunk_that_is_measured(small_policy, samplers, histories):
    found = measure_launches(small_policy, samplers, histories, seed=3)
    first = {draw.sampler: draw for draw in measure(small_policy, samplers, histories, count=1, seed=3, warm_up=0)}
    inside = found["ddpm"].inside / first["ddpm"].calls  # a call launches as many, however many rows it has
    for name in NAMES:
        assert found[name].inside == inside * first[name].calls
        assert found[name].outside > 0 and found[name].waits <= 1
    assert found["ddpm"].outside > 20 > found["asd"].outside  # which draws one chunk on a CPU in numpy


def test_the_figures_are_those_of_the_chunks(small_policy, samplers, histories):
    draws = measure(small_policy, samplers, histories, count=5)
    cost, launches = {1: 2.0, 21: 22.0}, {name: Launches(5, number, 1) for number, name in enumerate(NAMES)}
    summary = summarise(small_policy, samplers, draws, cost, launches, "ddim-4")
    assert summary["chunks"] == 5 and [entry["label"] for entry in summary["samplers"]] == list(NAMES)
    reference = [draw.seconds for draw in draws if draw.sampler == "ddim-4"]
    for entry in summary["samplers"]:
        own = [draw for draw in draws if draw.sampler == entry["label"]]
        assert entry["calls"]["mean"] * 5 == pytest.approx(sum(draw.calls for draw in own))
        assert entry["rows"]["max"] == max(draw.rows for draw in own)
        assert entry["seconds"]["p50"] == sorted(draw.seconds for draw in own)[2]
        assert entry["encode_seconds"]["p50"] == sorted(draw.encode_seconds for draw in own)[2]
        outside = 1 - sum(draw.network_seconds for draw in own) / sum(draw.seconds for draw in own)
        assert entry["outside_share"] == pytest.approx(outside)
        ratios = np.array([draw.seconds for draw in own]) / reference
        assert entry["ratio"]["p50"] == pytest.approx(np.median(ratios))
        bound = entry["calls"]["mean"] + entry["rows"]["mean"]  # a call of n rows costs 1 + n
        assert entry["bound"] == pytest.approx({"seconds": bound, "ratio": bound / 8})
        first = NAMES.index(entry["label"])
        assert entry["launches"] == {"inside": 5, "outside": first, "waits": 1, "calls": own[0].calls}
    with pytest.raises(SpecpolicyError, match="reference=asdf: expected one of ddpm"):
        summarise(small_policy, samplers, draws, cost, launches, "asdf")


def test_a_quantile_is_a_value_that_occurred():
    found = distribution([float(number) for number in range(1, 201)])
    assert found == {"mean": 100.5, "p50": 100.0, "p95": 190.0, "p99": 198.0, "max": 200.0}
    assert distribution([3]) == {"mean": 3.0, "p50": 3.0, "p95": 3.0, "p99": 3.0, "max": 3.0}


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (make_sampler("ddpm"), "own"),
        (make_sampler("asd-20"), "own"),
        (make_sampler("recycled-10"), "own, 10 steps"),
        (make_sampler("block", eta=0.5, steps=10), "own, 10 steps, eta 0.5"),
        (make_sampler("picard"), "near own"),
        (make_sampler("ddim"), "another"),
        (make_sampler("dpm_solver"), "another"),
    ],
)
def test_the_distribution_is_named(small_policy, sampler, expected):
    assert describe_distribution(sampler, small_policy.chain) == expected


def test_a_ddpm_chain_of_a_ddim_policy_is_another_distribution(small_policy):
    chain = small_policy.chain.with_ddim(10, eta=0.5)
    assert describe_distribution(make_sampler("block"), chain) == "own"
    assert describe_distribution(make_sampler("block-10"), chain) == "another"


def test_windows_are_described(small_policy):
    def window(name, **options):
        return small_policy.bound(make_sampler(name, **options)).describe()["window"]

    assert window("ddpm") is None
    assert window("asd", window=None) == "to the end" and window("asd") == "16"
    assert window("asd", window=7) == "7"
    assert window("asd", window=[6] * 5 + [9] * 15) == "6 to 9"
    assert window("asd", window=[8] * 20) == "8"


def test_chunks_as_a_file_lose_nothing(small_policy, samplers, histories):
    draws = measure(small_policy, samplers, histories, count=2)
    rows = list(csv.DictReader(io.StringIO(chunk_lines(draws))))
    assert tuple(rows[0]) == COLUMNS and len(rows) == len(draws)
    for row, draw in zip(rows, draws, strict=True):
        assert float(row["seconds"]) == draw.seconds and float(row["network_seconds"]) == draw.network_seconds
        assert float(row["encode_seconds"]) == draw.encode_seconds > 0
        assert tuple(map(int, row["call_rows"].split())) == draw.call_rows
        assert (row["sampler"], int(row["calls"]), int(row["rows"])) == (draw.sampler, draw.calls, draw.rows)
