"""Engines: every one is the same denoiser, whatever it does with the rows inside."""

import contextlib
import pickle
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from specpolicy.engines import ENGINES, make_engine, row_sizes
from specpolicy.engines.base import Buffers, PaddedEngine, Workload
from specpolicy.errors import SpecpolicyError
from specpolicy.model import device_of
from specpolicy.networks import ConditionalUnet1D

H, D, C = 8, 2, 5


@pytest.fixture(scope="module")
def network() -> ConditionalUnet1D:
    torch.manual_seed(0)
    return ConditionalUnet1D(D, None, C, 16, (16, 32), 3).eval()


@pytest.fixture(scope="module")
def openvino(network):
    pytest.importorskip("openvino")
    return make_engine("openvino", network, (H, D), (C,), max_rows=14)


def inputs(rows, seed=0):
    source = torch.Generator().manual_seed(seed)
    x, cond = torch.randn(rows, H, D, generator=source), torch.randn(rows, C, generator=source)
    return x, torch.randint(100, (rows,), generator=source), cond


class Doubling(PaddedEngine):
    """Twice x. The rows of the padding hold what the last call left there, and are spoilt after each call."""

    name = "doubling"

    def __init__(self, workload, sizes=(2, 5), error=0.0):
        super().__init__(workload, sizes)
        self.used, self.error = [], error

    def make_runner(self, size):
        output = torch.full((size, H, D), torch.nan)

        def run(x, t, cond):
            self.used.append((size, len(x)))
            output.fill_(torch.nan)
            output[: len(x)] = 2 * x + self.error
            return output[: len(x)]

        return run


class Meeting(PaddedEngine):
    """Twice x, out of one buffer, between whose filling and reading a second thread may come."""

    name = "meeting"

    def __init__(self, workload):
        super().__init__(workload, (5,))
        self.met, self.others = threading.Barrier(2, timeout=0.2), 0

    def make_runner(self, size):
        buffer = torch.zeros(size, H, D)

        def run(x, t, cond):
            buffer[: len(x)] = x
            with contextlib.suppress(threading.BrokenBarrierError):
                self.met.wait()
                self.others += 1
            return 2 * buffer[: len(x)]

        return run


def workload(denoiser=lambda x, t, cond: 2 * x, **changes):
    return Workload(denoiser, (H, D), (C,), **{"max_rows": 5, **changes})


@given(st.integers(1, 300), st.booleans())
def test_sizes_rise_to_the_largest_and_waste_little(most, fine):
    sizes = row_sizes(most, fine)
    assert sizes[-1] == most and sizes[0] == 1 and list(sizes) == sorted(set(sizes))
    for rows in range(1, most + 1):
        padded = next(size for size in sizes if size >= rows)
        assert padded <= (rows + max(4, rows / 4) if fine else 2 * rows)


@pytest.mark.parametrize("rows, used", ((1, [(2, 1)]), (3, [(5, 3)]), (5, [(5, 5)]), (12, [(5, 5), (5, 5), (2, 2)])))
@pytest.mark.parametrize("with_cond", (True, False))
def test_rows_are_padded_cut_and_split(rows, used, with_cond):
    engine = Doubling(workload())
    x, t, cond = inputs(rows)
    assert torch.equal(engine(x, t, cond if with_cond else None), 2 * x)
    assert engine.used == used


def test_no_rows_give_no_rows():
    engine = Doubling(workload())
    assert engine(*inputs(0)).shape == (0, H, D) and not engine.used


def test_a_result_outlives_the_next_call():
    engine = Doubling(workload())
    first, second = inputs(2, seed=1), inputs(2, seed=2)
    found = engine(*first)
    engine(*second)
    assert torch.equal(found, 2 * first[0])


def test_an_engine_that_computes_something_else_is_refused():
    Doubling(workload()).warm_up()
    for error in (0.01, torch.nan):
        with pytest.raises(SpecpolicyError, match=r"'doubling' differs from the network by .* use engine eager"):
            Doubling(workload(), error=error).warm_up()


class Forgetful(PaddedEngine):
    """Evaluates what its buffers were made with, whatever it is given: a graph that was captured elsewhere."""

    name = "forgetful"

    def make_runner(self, size):
        buffers = Buffers(self.workload, size)
        return lambda x, t, cond: self.workload.denoiser(buffers.x, buffers.t, buffers.cond)[: len(x)]


def test_an_engine_that_ignores_its_inputs_is_refused():
    with pytest.raises(SpecpolicyError, match="'forgetful' differs from the network"):
        Forgetful(workload(), (2, 5)).warm_up()


def test_an_engine_says_where_it_computes():
    engine = Doubling(workload(nn.Linear(1, 1, device="meta")))
    assert engine.device.type == "meta" and device_of(engine, None) == engine.device
    assert device_of(nn.Linear(1, 1, device="meta"), None).type == "meta"
    assert device_of(engine, torch.zeros(1)).type == device_of(lambda x, t, c: x, None).type == "cpu"


@pytest.mark.parametrize(
    "name, options, message",
    (
        ("openvno", {}, "unknown engine 'openvno': did you mean 'openvino'"),
        ("gpu9000", {}, "use one of eager, compile, cuda_graph, openvino"),
        ("eager", {"precision": "float8"}, "use one of float32, bfloat16"),
        ("eager", {"max_rows": 0}, "max_rows=0"),
        ("cuda_graph", {}, "needs a CUDA device, the policy is on cpu"),
    ),
)
def test_engines_that_cannot_be_made(network, name, options, message):
    with pytest.raises(SpecpolicyError, match=message):
        make_engine(name, network, (H, D), (C,), **options)


def test_a_missing_package_is_named_with_its_extra(network, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(SpecpolicyError, match=r"pip install 'specpolicy\[openvino\]'"):
        make_engine("openvino", network, (H, D), (C,))


def test_threads_that_share_an_engine_do_not_meet_in_its_buffers():
    engine = Meeting(workload())
    given = [inputs(rows, seed=rows) for rows in (3, 4)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda one: engine(*one), given))
    assert engine.others == 0
    assert all(torch.equal(doubled, 2 * x) for doubled, (x, _, _) in zip(found, given, strict=True))


def test_eager_is_the_network(network):
    engine = make_engine("eager", network, (H, D), (C,))
    with torch.inference_mode():
        assert torch.equal(engine(*inputs(3)), network(*inputs(3)))


def test_bfloat16_is_near_and_keeps_its_timesteps_apart(network):
    engine = make_engine("eager", network, (H, D), (C,), precision="bfloat16")
    x, _, cond = inputs(100)
    one = x[:1].expand(100, -1, -1), torch.arange(100), cond[:1].expand(100, -1)
    with torch.inference_mode():
        expected, found = network(*one), engine(*one)
    assert found.dtype == torch.float32
    scale = expected.std()
    assert 0 < (found - expected).abs().max() < 0.1 * scale
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    # In bfloat16 the timesteps 97 and 98 are next to each other; their frequencies must not be rounded.
    buffers = dict(engine._network.named_buffers())
    assert buffers and all(buffer.dtype == torch.float32 for buffer in buffers.values())


@pytest.mark.parametrize("rows", (1, 2, 3, 7, 13, 14, 15, 40))
def test_openvino_is_the_network(network, openvino, rows):
    x, t, cond = inputs(rows)
    with torch.inference_mode():
        expected = network(x, t, cond)
        assert (openvino(x, t, cond) - expected).abs().max() < 1e-4 * expected.std()
        assert torch.equal(openvino(x, t, cond), openvino(x, t, cond))
        shared = cond[:1].expand(rows, -1)
        assert torch.allclose(openvino(x, t, shared), network(x, t, shared), atol=1e-5)


def test_openvino_shares_one_copy_of_large_weights(network, openvino, monkeypatch):
    monkeypatch.setattr("specpolicy.engines.openvino.COPIES_BYTES", 1)
    engine = make_engine("openvino", network, (H, D), (C,), max_rows=5)
    assert engine._shared is not None and openvino._shared is None
    for rows in (5, 1, 3, 5):
        assert torch.allclose(engine(*inputs(rows)), openvino(*inputs(rows)), atol=1e-5)


class Unconditional(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(D, D)

    def forward(self, x, t, cond=None):
        return nn.functional.mish(30 * self.layer(x) * t[:, None, None])


def test_openvino_without_a_condition_and_with_extreme_activations():
    pytest.importorskip("openvino")
    torch.manual_seed(0)
    network = Unconditional()
    engine = make_engine("openvino", network, (H, D), None, max_rows=3)
    x, t, _ = inputs(3)
    with torch.inference_mode():
        assert torch.allclose(engine(x, t, None), network(x, t), rtol=1e-4, atol=1e-4)


class Undecided(nn.Module):
    """Nothing that can be exported: what it does depends on the values it sees."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(D, D)

    def forward(self, x, t, cond):
        return self.layer(x) if float(x.sum()) > 0 else x


def test_a_network_that_cannot_be_converted_is_one_clear_line():
    pytest.importorskip("openvino")
    with pytest.raises(SpecpolicyError, match="OpenVINO cannot convert this network: use engine eager") as caught:
        make_engine("openvino", Undecided(), (H, D), (C,))
    assert "\n" not in str(caught.value)


def test_engines_are_pickled_as_recipes(network, openvino):
    for engine in (make_engine("eager", network, (H, D), (C,)), openvino):
        again = pickle.loads(pickle.dumps(engine))
        assert type(again) is type(engine) and again.sizes == engine.sizes
        assert torch.allclose(again(*inputs(4)), engine(*inputs(4)), atol=1e-6)


@pytest.mark.slow  # the compiler takes a minute or more
@pytest.mark.parametrize("precision", ("float32", "bfloat16"))
def test_compile_is_the_network(network, precision):
    engine = make_engine("compile", network, (H, D), (C,), max_rows=6, precision=precision)
    for rows in (1, 2, 6, 9):
        x, t, cond = inputs(rows)
        with torch.inference_mode():
            expected = network(x, t, cond[:1].expand(rows, -1))
            error = (engine(x, t, cond[:1].expand(rows, -1)) - expected).abs().max()
        assert error < (1e-4 if precision == "float32" else 0.1) * expected.std()


@pytest.mark.gpu
@pytest.mark.parametrize("name", ("cuda_graph", "compile"))
def test_captured_graphs_are_the_network(network, name, monkeypatch):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    on_gpu = pickle.loads(pickle.dumps(network)).cuda()
    engine = make_engine(name, on_gpu, (H, D), (C,), max_rows=14)
    for rows in (1, 3, 14, 20):
        values = tuple(value.cuda() for value in inputs(rows))
        with torch.inference_mode():
            expected = on_gpu(*values)
            first = engine(*values)
            engine(*(value.cuda() for value in inputs(rows, seed=9)))
            assert (first - expected).abs().max() < 1e-4 * expected.std()


def test_every_engine_has_the_name_it_is_known_by():
    assert all(kind.name == name for name, kind in ENGINES.items())
