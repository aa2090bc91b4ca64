"""engine=auto: the fastest that works, whatever is wrong with the others."""

import dataclasses
import json
import pickle
import sys

import pytest
import torch
from torch import nn

from specpolicy.engines import AUTO, auto, check_engine_name, make_engine
from specpolicy.engines.auto import CALLS, Beside, automatic_engine, fastest_engine, time_engine
from specpolicy.engines.base import Engine, Workload
from specpolicy.errors import SpecpolicyError

H, D, C = 4, 2, 3


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(D, D)

    def forward(self, x, t, cond):
        return self.layer(x) + cond.sum()


class Plain(Engine):
    """The network, or something else if `error` is not zero. It says how many rows it was asked for."""

    name, error, broken = "plain", 0.0, None

    def __init__(self, workload):
        super().__init__(workload)
        self.rows = []
        if self.broken:
            raise self.broken

    def __call__(self, x, t, cond):
        self.rows.append(len(x))
        return self.workload.denoiser(x, t, cond) + self.error


def kind(name, seconds=1.0, **changes):
    return type(name.title(), (Plain,), {"name": name, "seconds": seconds, **changes})


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """Nothing is remembered from elsewhere."""
    monkeypatch.setenv("SPECPOLICY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "engines"


@pytest.fixture
def workload():
    torch.manual_seed(0)
    return Workload(Network().eval(), (H, D), (C,), max_rows=20)


@pytest.fixture
def clock(monkeypatch):
    """Calls take what their engines say."""
    monkeypatch.setattr(
        auto, "time_engine", lambda engine, sizes: {rows: engine.seconds * (1 + rows / 100) for rows in sizes}
    )


def test_the_fastest_is_taken(workload, clock):
    kinds = [kind("slow", 2.0), kind("quick", 0.5), kind("last", 1.0)]
    engine = fastest_engine(kinds, workload)
    assert engine.name == "quick" and list(engine.considered) == ["slow", "quick", "last"]
    assert engine.considered["quick"] == "505 ms for 1 row, 580 ms for 16 rows"
    assert engine.rows == [1, 20]  # those of the comparison with the network
    assert fastest_engine(kinds[::-1], workload).name == "quick"


def test_what_fails_or_disagrees_is_left_out_with_its_reason(workload, clock):
    kinds = [
        kind("wrong", 0.1, error=0.1),
        kind("broken", 0.1, broken=RuntimeError("no driver\nfor this")),
        kind("missing", 0.1, broken=SpecpolicyError("needs a package")),
        kind("silent", 0.1, broken=AssertionError()),
        kind("last", 3.0),
    ]
    engine = fastest_engine(kinds, workload)
    assert engine.name == "last"
    assert "differs from the network" in engine.considered["wrong"]
    assert engine.considered["broken"] == "no driver for this" and engine.considered["missing"] == "needs a package"
    assert engine.considered["silent"] == "AssertionError"
    with pytest.raises(SpecpolicyError, match="needs a package"):
        fastest_engine([kind("wrong", error=1.0), kinds[2]], workload)


def test_few_rows_are_timed_as_few(clock):
    workload = Workload(Network().eval(), (H, D), (C,), max_rows=1)
    assert fastest_engine([kind("last")], workload).considered == {"last": "1.01e+03 ms for 1 row"}


def test_calls_are_timed_at_their_rows(workload, monkeypatch):
    monkeypatch.setattr(auto, "SECONDS", 0.0)
    engine = Plain(workload)
    found = time_engine(engine, (3, 7))
    assert 0 < found[3] <= found[7] < 60 and engine.rows == [3, 3, 7, 7] * 3  # the first of two warms up


def test_what_was_found_is_remembered(workload, clock, cache):
    kinds = [kind("quick", 0.5), kind("last", 1.0)]
    first = automatic_engine(kinds, workload)
    quicker_by_now = [kinds[0], kind("last", 0.1)]
    again = automatic_engine(quicker_by_now, workload)
    assert first.name == again.name == "quick" and again.considered == first.considered
    assert again.rows == [1, 20]  # compared with the network all the same
    (path,) = cache.iterdir()
    path.unlink()
    assert automatic_engine(quicker_by_now, workload).name == "last"


def test_another_network_or_setting_is_measured_anew(workload, clock, cache, monkeypatch):
    kinds = [kind("quick", 0.5), kind("last", 1.0)]
    automatic_engine(kinds, workload)
    wider = Network()
    wider.more = nn.Linear(1, 1)
    others = [
        dataclasses.replace(workload, denoiser=wider),
        dataclasses.replace(workload, max_rows=7),
        dataclasses.replace(workload, time_dtype=torch.float32),
    ]
    for other in others:
        automatic_engine(kinds, other)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    automatic_engine(kinds, workload)
    assert len(list(cache.iterdir())) == 5
    with torch.no_grad():
        workload.denoiser.layer.weight.add_(1.0)  # other weights take the same time
    automatic_engine(kinds, workload)
    assert len(list(cache.iterdir())) == 5


def test_a_remembered_engine_that_has_gone_wrong_is_found_anew(workload, clock):
    automatic_engine([kind("quick", 0.5), kind("last", 1.0)], workload)
    for gone in (kind("quick", 0.5, error=0.1), kind("quick", 0.5, broken=RuntimeError("gone"))):
        assert automatic_engine([gone, kind("last", 1.0)], workload).name == "last"
        automatic_engine([kind("quick", 0.5), kind("last", 1.0)], workload)


@pytest.mark.parametrize("content", ("", "[]", "{}", '{"engine": "last", "considered": 3}', '{"engine": "gone"', "\0"))
def test_a_damaged_note_is_no_harm(content, workload, clock, cache):
    kinds = [kind("quick", 0.5), kind("last", 1.0)]
    automatic_engine(kinds, workload)
    (path,) = cache.iterdir()
    path.write_text(content)
    assert automatic_engine(kinds, workload).name == "quick"
    assert json.loads(path.read_text())["engine"] == "quick"


def test_where_nothing_can_be_written_it_measures_each_time(workload, clock, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPECPOLICY_CACHE", str(tmp_path / "file"))
    assert automatic_engine([kind("last")], workload).name == "last"


def test_what_a_chunk_takes_besides_calls_decides_too(workload, clock, cache):
    """A quick engine on which encoding is slow loses, if it loses more there than its calls save."""
    kinds = [kind("quick", 0.5), kind("last", 1.0)]
    saved = CALLS * 0.5 * (1.01 + 1.16)
    for more, name in ((0.9 * saved, "quick"), (1.1 * saved, "last")):
        seconds = {"quick": more + 0.01, "last": 0.01}
        engine = fastest_engine(kinds, workload, Beside("an encoder", seconds.__getitem__))
        assert engine.name == name and engine.considered["last"].endswith(", 10 ms to encode")
    # Remembered for this encoder, and for no other and not for none.
    slow = Beside("slow", {"quick": 99.0, "last": 0.0}.__getitem__)
    assert [automatic_engine(kinds, workload, beside).name for beside in (None, slow, slow)] == [
        "quick",
        "last",
        "last",
    ]
    assert len(list(cache.iterdir())) == 2


@pytest.fixture
def brief(monkeypatch):
    monkeypatch.setattr(auto, "SECONDS", 0.001)


def test_it_is_an_engine_by_name(workload, brief):
    engine = make_engine(AUTO, workload.denoiser, (H, D), (C,), max_rows=20)
    assert engine.name in ("eager", "openvino") and "CUDA" in engine.considered["cuda_graph"]
    assert set(engine.considered) == {"openvino", "cuda_graph", "eager"}
    again = pickle.loads(pickle.dumps(engine))
    inputs = workload.example(3)
    assert again.name == engine.name and torch.allclose(again(*inputs), engine(*inputs), atol=1e-5)
    check_engine_name(AUTO)


def test_no_package_is_needed_for_it(workload, brief, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    engine = make_engine(AUTO, workload.denoiser, (H, D), (C,))
    assert engine.name == "eager" and "specpolicy[openvino]" in engine.considered["openvino"]


def test_a_function_runs_as_it_is(brief):
    engine = make_engine(AUTO, lambda x, t, cond: 2 * x, (H, D))
    assert engine.name == "eager" and "torch.nn.Module" in engine.considered["openvino"]


def test_a_network_that_cannot_run_says_what_is_wrong(brief):
    with pytest.raises(RuntimeError, match="shape"):
        make_engine(AUTO, Network(), (H, D + 1), (C,))


def test_engines_that_were_named_considered_nothing(workload):
    assert make_engine("eager", workload.denoiser, (H, D), (C,)).considered == {}


def test_policies_take_it(small_policy, brief):
    policy = small_policy.with_engine(AUTO)
    assert policy.engine.name in policy.engine.considered and policy.engine.workload.max_rows == len(policy.chain)
    assert small_policy.engine is None
