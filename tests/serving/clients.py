"""Clients of the server under test: openpi's own, a bare websocket, and what reads its pages."""

import http.client

import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import connect

from specpolicy.serving.codec import pack, unpack

openpi = pytest.importorskip("openpi_client.websocket_client_policy")


def openpi_client(server, **options):
    return openpi.WebsocketClientPolicy("127.0.0.1", server.port, **options)


def raw_client(server, **options):
    """A bare websocket that has read the metadata."""
    websocket = connect(f"ws://127.0.0.1:{server.port}", compression=None, max_size=None, proxy=None, **options)
    websocket.recv(10)
    return websocket


def ask(websocket, message):
    """The answer to a message, as text if it is an error."""
    websocket.send(message if isinstance(message, bytes | str) else pack(message))
    answer = websocket.recv(20)
    return answer if isinstance(answer, str) else unpack(answer)


def get(server, path, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", path, headers=headers or {})
    response = connection.getresponse()
    return response, response.read().decode()


def metrics(server):
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(get(server, "/metrics")[1])
        for sample in family.samples
    }
