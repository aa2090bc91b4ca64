"""Addresses of policy servers, and servers that do not keep to the protocol."""

import base64
import contextlib
import hashlib
import re
import socket
import threading
import time

import numpy as np
import pytest
from websockets.sync.server import serve

from specpolicy import SpecpolicyError
from specpolicy.serving import RemotePlanner
from specpolicy.serving.codec import pack
from specpolicy.serving.connection import ConnectionLost, full_url

SALT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # of websocket's handshake
METADATA = {"server": "specpolicy", "n_obs_steps": 1, "n_action_steps": 1, "observation": {"x": [2]}, "action_dim": 2}
NOTHING = {"x": np.zeros((1, 2), np.float32)}


def actions(number):
    """An answer with a number in it."""
    return pack({"actions": np.full((3, 2), number, np.float32)})


@contextlib.contextmanager
def hostile(handler, **options):
    """The address of a server that does what it likes."""
    server = serve(handler, "127.0.0.1", 0, **options)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
    server.shutdown()


def test_addresses_are_completed():
    assert full_url("robot") == "ws://robot:8000" and full_url("ws://robot:1/x") == "ws://robot:1/x"
    with pytest.raises(SpecpolicyError, match="http://robot:8000 is no address of a policy server: write ws://"):
        full_url("http://robot:8000")
    assert full_url("ws://[::1]") == "ws://[::1]:8000" and full_url("wss://robot") == "wss://robot"


@pytest.mark.parametrize("url", ("ws://[::1", "ws://a:99999999", "ws://a..b", "ws://" + "a" * 300, "ws://a:b", "ws://"))
def test_what_is_no_address(url):
    with pytest.raises(SpecpolicyError) as caught:
        RemotePlanner(url)
    assert url in str(caught.value) and "\n" not in str(caught.value)


def test_answers_to_nothing_are_no_answers():
    sent = threading.Event()

    def twice(websocket):
        websocket.send(pack(METADATA))
        for number, _ in enumerate(websocket):
            websocket.send(actions(number))
            websocket.send(actions(-number))
            sent.set()

    with hostile(twice) as url:
        planner = RemotePlanner(url)
        assert (planner.plan(NOTHING).actions == 0).all()
        assert sent.wait(10)
        deadline = time.monotonic() + 10
        with pytest.raises(SpecpolicyError, match="has answered more than it was asked"):
            while time.monotonic() < deadline:  # the second answer is on its way
                planner.plan(NOTHING)


@pytest.mark.parametrize("reconnect", (0.0, 10.0))
def test_a_farewell_is_repeated_or_the_server_asked_again(reconnect):
    gone = threading.Event()

    def idle(websocket):
        websocket.send(pack(METADATA))
        if not gone.is_set():
            websocket.recv()
            websocket.send(actions(1))
            websocket.send("no request for 5 s")
            websocket.close()
            gone.set()
        else:
            websocket.recv()
            websocket.send(actions(2))

    with hostile(idle) as url:
        planner = RemotePlanner(url, reconnect=reconnect)  # comes in twice: to be introduced, and to plan
        assert (planner.plan(NOTHING).actions == 1).all()
        assert gone.wait(10)
        if reconnect:
            assert (planner.plan(NOTHING).actions == 2).all()
        else:
            with pytest.raises(ConnectionLost, match=r"no request for 5 s|has closed the connection"):
                planner.plan(NOTHING)


@pytest.mark.parametrize("name", ("n_obs_steps", "n_action_steps", "action_dim"))
@pytest.mark.parametrize("value", (0, -1, 2**31 - 1, 2**40, True, 1.0, "1", None))
def test_counts_that_no_policy_has(name, value):
    told = pack({**METADATA, name: value})
    with (
        hostile(lambda websocket: websocket.send(told)) as url,
        pytest.raises(SpecpolicyError, match=f"`{name}` is a whole number"),
    ):
        RemotePlanner(url)


@pytest.mark.parametrize("place", ("ws://localhost:{}/", "/elsewhere", "http://[::1", "ftp://x/", "ws://h:99999999/"))
def test_nobody_is_sent_to_another_server(place):
    visited = threading.Event()

    def answer(connection, request):
        if request.path == "/elsewhere":
            visited.set()
        response = connection.respond(307, "see there")
        response.headers["Location"] = place.format(other)
        return response

    with hostile(lambda websocket: visited.set()) as there:
        other = there.rpartition(":")[2]
        with (
            hostile(lambda websocket: None, process_request=answer) as url,
            pytest.raises(SpecpolicyError, match="sends us to another address"),
        ):
            RemotePlanner(url, api_key="secret")
    assert not visited.is_set()


def test_a_server_that_never_reads_is_left_in_time():
    def one(listener, done):
        connection, _ = listener.accept()
        request = b""
        while b"\r\n\r\n" not in request:
            request += connection.recv(4096)
        key = re.search(rb"Sec-WebSocket-Key: (\S+)", request)[1]
        accept = base64.b64encode(hashlib.sha1(key + SALT).digest())
        head = b"HTTP/1.1 101 -\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
        content = pack({**METADATA, "observation": {"x": [2**23]}})
        connection.sendall(head % accept + bytes([0x82, len(content)]) + content)
        done.wait(30)
        connection.close()

    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(2):
            threading.Thread(target=one, args=(listener, done), daemon=True).start()
        planner = RemotePlanner(f"ws://127.0.0.1:{listener.getsockname()[1]}", timeout=1.0)
        found = []

        def plan():
            with pytest.raises(ConnectionLost, match="has closed the connection"):
                planner.plan({"x": np.zeros((1, 2**23), np.float32)})
            found.append(True)

        thread = threading.Thread(target=plan, daemon=True)
        thread.start()
        thread.join(20)
        done.set()
    assert found
