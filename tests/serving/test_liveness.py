"""Inference that has died is seen: whoever waits is told, /healthz says so, and the server ends with code 1."""

import ctypes
import socket
import threading
import time

import numpy as np
import pytest
import torch
from clients import ask, get, openpi_client, raw_client
from services import Counting, frame, wait_until
from websockets.exceptions import ConnectionClosed

from specpolicy.cli import main
from specpolicy.serving import PolicyServer, PolicyService, RemotePlanner, in_background
from specpolicy.serving.codec import pack
from specpolicy.serving.connection import ConnectionLost

HISTORY = {key: np.stack([value, value]) for key, value in frame(-1).items()}


class Failing(Counting):
    """Raises what it is told to, with negative steps."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def _chunk(self, history, stream):
        if history["step"][-1, 0] < 0:
            raise self.error
        return super()._chunk(history, stream)


class Unheard(BaseException):
    """An exception that nobody expects."""


FATAL = [
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
    Unheard("of"),
    type("Ä" * 200, (BaseException,), {})(),  # a close frame holds 123 bytes
    RuntimeError("CUDA error: an illegal memory access was encountered"),
]
PASSING = [
    MemoryError(),
    RecursionError("too deep"),
    torch.OutOfMemoryError("CUDA out of memory. CUDA error: no memory"),
    RuntimeError("a policy fell over"),
    StopIteration(),
    AssertionError(),
]


@pytest.fixture(autouse=True)
def _quick_farewell(monkeypatch):
    monkeypatch.setattr("specpolicy.serving.server.FAREWELL_SECONDS", 0.5)


def _told(client):
    """The reason with which the server closes a connection in place of an answer."""
    with pytest.raises(ConnectionClosed) as caught:
        client.recv(20)
    assert caught.value.rcvd.code == 1011
    return caught.value.rcvd.reason


def _gone(server):
    """Whether nobody listens any more."""
    try:
        socket.create_connection(("127.0.0.1", server.port), 5).close()
    except OSError:
        return True
    return False


def _closed(client):
    """Whether the server closes a connection, rather than leave it."""
    try:
        client.recv(20)
    except ConnectionClosed:
        return True
    return False


@pytest.mark.parametrize("error", FATAL, ids=lambda error: type(error).__name__[:20])
def test_the_end_of_inference_is_told_to_all_and_ends_the_server(error):
    service = Failing(error)
    with in_background(PolicyServer(service, port=0)) as server:
        first, bad, waiting, idle = (raw_client(server) for _ in range(4))
        service.gate.clear()
        first.send(pack(frame(-1)))
        wait_until(lambda: server._inference.busy_seconds() > 0)
        for client in (bad, waiting):
            client.send(pack(frame(1)))
        service.gate.set()
        for client in (first, bad, waiting):
            told = _told(client)
            assert "inference has ended" in told and "\n" not in told
        response, text = get(server, "/healthz")
        assert response.status == 503 and text == "inference has ended\n"
        idle.send(pack(frame(2)))
        assert "inference has ended" in _told(idle)  # at once, not when its patience ends
        assert all(map(_closed, (first, bad, waiting, idle)))
        wait_until(lambda: _gone(server))


def test_a_client_told_to_waits_for_the_server_in_the_place_of_a_broken_one():
    answers = []
    with in_background(PolicyServer(Failing(SystemExit(3)), port=0)) as server:
        planner = RemotePlanner(f"127.0.0.1:{server.port}", reconnect=60.0)
        thread = threading.Thread(target=lambda: answers.append(planner.plan(HISTORY)))
        thread.start()
        wait_until(lambda: _gone(server))
    with in_background(PolicyServer(Counting(), port=server.port)):
        thread.join(60)
    assert answers and answers[0].actions[0, 0] == -1


@pytest.mark.parametrize("told_by", ("ours", "openpi"))
def test_a_client_that_does_not_wait_shows_why_the_server_ended(told_by):
    with in_background(PolicyServer(Failing(SystemExit(3)), port=0)) as server:
        if told_by == "ours":
            with pytest.raises(ConnectionLost, match=r"\(1011 .* inference has ended \(SystemExit\)[^;]*\)$"):
                RemotePlanner(f"127.0.0.1:{server.port}").plan(HISTORY)
        else:
            with pytest.raises(ConnectionClosed, match=r"inference has ended \(SystemExit\)"):
                openpi_client(server).infer(frame(-1))


@pytest.mark.parametrize("error", PASSING, ids=lambda error: type(error).__name__)
def test_an_ordinary_failure_is_that_of_one_request(error):
    with in_background(PolicyServer(Failing(error), port=0)) as server:
        client = raw_client(server)
        told = ask(client, frame(-1))
        assert isinstance(told, str) and type(error).__name__ in told and "inference has ended" not in told
        np.testing.assert_array_equal(ask(client, frame(4))["actions"][:2, 0], [4, 5])
        assert get(server, "/healthz")[0].status == 200


def test_a_thread_that_is_ended_from_outside_is_seen():
    service = Counting()
    with in_background(PolicyServer(service, port=0)) as server:
        client = raw_client(server)
        service.gate.clear()
        client.send(pack(frame(1)))
        wait_until(lambda: server._inference.busy_seconds() > 0)
        thread = ctypes.c_ulong(server._inference._thread.ident)
        assert ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(SystemExit)) == 1
        service.gate.set()
        assert "inference has ended" in _told(client)
        assert get(server, "/healthz")[0].status == 503


def test_a_thread_that_ends_without_a_word_is_seen(monkeypatch):
    monkeypatch.setattr("specpolicy.serving.inference.Inference._work", lambda self: None)
    with in_background(PolicyServer(Counting(), port=0)) as server:
        client = raw_client(server)
        assert get(server, "/healthz")[0].status == 503
        client.send(pack(frame(1)))
        assert "inference has ended" in _told(client)


def test_the_verb_ends_with_code_1_and_keeps_its_figures(small_policy, tmp_path, monkeypatch, capsys):
    def plan(self, histories, streams):
        raise SystemExit(0)

    monkeypatch.setattr(PolicyService, "warm_up", lambda self, most: None)
    monkeypatch.setattr(PolicyService, "plan", plan)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    seen: list[Exception] = []

    def client():
        try:
            while True:
                try:
                    planner = RemotePlanner(f"127.0.0.1:{port}")
                    break
                except Exception:
                    time.sleep(0.05)
            planner.plan({"position": np.zeros((2, 2)), "object": np.zeros((2, 3))})
        except Exception as error:
            seen.append(error)

    thread = threading.Thread(target=client, daemon=True)
    thread.start()
    arguments = [f"policy={small_policy.save(tmp_path / 'p')}", f"output={tmp_path / 'out'}", f"port={port}"]
    with pytest.raises(SystemExit) as caught:
        main(["serve", *arguments])
    thread.join(20)
    assert caught.value.code == 1 and "inference has ended" in capsys.readouterr().err
    assert isinstance(seen[0], ConnectionLost) and "inference has ended" in str(seen[0])
    assert 'outcome="failed"} 1.0' in (tmp_path / "out" / "metrics.txt").read_text()
