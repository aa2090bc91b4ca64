"""Sockets are counted from their first byte on, and those that say nothing are not kept."""

import contextlib
import socket
import time

import pytest
from clients import ask, get, metrics, raw_client
from services import frame, wait_until
from websockets.exceptions import InvalidStatus

from specpolicy.serving import PolicyServer, in_background

BEGUN = b"GET / HTTP/1.1\r\nHost: robot\r\nUpgrade: websocket\r\n"


def _open(server, count, said=b""):
    """So many sockets that never finish their handshake."""
    sockets = []
    for _ in range(count):
        sockets.append(socket.create_connection(("127.0.0.1", server.port), 10))
        if said:
            with contextlib.suppress(OSError):
                sockets[-1].sendall(said)
    return sockets


def _left(sockets):
    """How many of them the server still holds."""
    held = 0
    for one in sockets:
        one.setblocking(False)
        try:
            held += one.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            held += 1
        except OSError:
            pass
    return held


@pytest.mark.parametrize("said", [b"", BEGUN, b"\x16\x03\x01"], ids=["nothing", "half a handshake", "TLS"])
def test_sockets_without_a_handshake_are_few_and_keep_nobody_out(service, said):
    with in_background(PolicyServer(service, port=0, max_clients=2)) as server:
        client = raw_client(server)
        sockets = _open(server, 100, said)
        wait_until(lambda: _left(sockets) <= 16)
        assert len(server._door._waiting) <= 16
        assert "actions" in ask(client, frame(1)) and "actions" in ask(raw_client(server), frame(2))
        assert get(server, "/healthz")[0].status == 200
        with pytest.raises(InvalidStatus):  # and the third client is one too many, as ever
            raw_client(server)
        for one in sockets:
            one.close()
        wait_until(lambda: not server._door._waiting)


def test_a_handshake_has_its_time(service, monkeypatch):
    monkeypatch.setattr("specpolicy.serving.server.HANDSHAKE_SECONDS", 0.3)
    with in_background(PolicyServer(service, port=0)) as server:
        silent, slow = _open(server, 1) + _open(server, 1, BEGUN)
        client = raw_client(server)
        begin = time.monotonic()
        with contextlib.suppress(OSError):  # a header at a time, and never the last
            while time.monotonic() - begin < 20 and _left([silent, slow]):
                slow.setblocking(True)
                slow.sendall(b"X-Another: 1\r\n")
                time.sleep(0.05)
        wait_until(lambda: not _left([silent, slow]))
        assert "actions" in ask(client, frame(1))


def test_clients_are_counted_while_their_sockets_are_open(service):
    with in_background(PolicyServer(service, port=0, max_clients=3)) as server:
        clients = [raw_client(server) for _ in range(3)]
        assert metrics(server)["specpolicy_clients",] == 3
        for origin in ("https://example.com", None):
            with pytest.raises(InvalidStatus):
                raw_client(server, origin=origin)
        for client in clients:
            client.close()
        wait_until(lambda: metrics(server)["specpolicy_clients",] == 0)
        with pytest.raises(InvalidStatus):  # a web page takes no client's place
            raw_client(server, origin="https://example.com")
        wait_until(lambda: metrics(server)["specpolicy_clients",] == 0)
        assert all("actions" in ask(raw_client(server), frame(number)) for number in range(3))
