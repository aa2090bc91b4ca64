"""The server against every client that one would rather not have, and inference that fails."""

import socket
import threading
import time

import numpy as np
import pytest
from clients import ask, get, metrics, openpi_client, raw_client
from services import Counting, frame, wait_until
from websockets.exceptions import ConnectionClosed

from specpolicy import SpecpolicyError
from specpolicy.serving import PolicyServer, in_background
from specpolicy.serving.codec import pack, unpack
from specpolicy.serving.protocol import read_request


@pytest.mark.parametrize(
    "message, complaint",
    [
        (b"", "not a msgpack message"),
        (b"\xff\xfe rubbish", "not a msgpack message"),
        ("hello", "got a text frame"),
        (pack([1, 2]), "expected a map"),
        (pack({}), "no key 'step'"),
        ({"Step": np.zeros(1), "image": np.zeros((3, 4, 5))}, "sent: Step, image; needed: step, image"),
        ({**frame(1), "step": np.zeros(2)}, "'step' has shape (2,)"),
        ({**frame(1), "step": np.zeros((3, 1))}, "'step' has shape (3, 1)"),
        ({**frame(1), "step": np.zeros((2, 1))}, "one frame of each key"),
        ({**frame(1), "image": np.zeros((4, 4, 4))}, "'image' has shape (4, 4, 4)"),
        ({**frame(1), "step": np.array([np.nan])}, "'step' has values that are not finite"),
        ({**frame(1), "step": "left"}, "'step' has dtype"),
        ({**frame(1), "step": [[1], [1, 2]]}, "'step' is not an array"),
        ({**frame(1), "step": None}, "'step' has dtype object"),
        ({**frame(1), "reset": "now"}, "`reset` is true or false"),
        ({**frame(1), "reset": True, "seed": -1}, "`seed` is a whole number"),
        ({**frame(1), "seed": 0.5}, "`seed` is a whole number"),
        ({"reset": True, "seed": True}, "`seed` is a whole number"),
        ({"reset": True, "seed": False}, "`seed` is a whole number"),
        ({"reset": True, "seed": np.bool_(True)}, "`seed` is a whole number"),
        ({"reset": True, "seed": 2**63}, "`seed` is a whole number"),
        ({"reset": True, "seed": "1"}, "`seed` is a whole number"),
        ({"reset": True, "seed": [1]}, "`seed` is a whole number"),
        ({"reset": True, "seed": np.array(1)}, "`seed` is a whole number"),
        ({"reset": True, "seed": 1.0}, "`seed` is a whole number"),
        ({"reset": 1}, "`reset` is true or false"),
        ({"reset": None}, "`reset` is true or false"),
        ({"reset": np.array(True)}, "`reset` is true or false"),
        ({**frame(1), "step": np.array([1e300])}, "'step' has values that are not finite"),
        ({**frame(1), "step": [1e300]}, "'step' has values that are not finite"),
        ({**frame(1), "step": ["x" * 40_000] + [""] * 4000}, "'step' has dtype str"),
        ({**frame(1), "step": [0.0] * 40_000}, "more than"),
    ],
)
def test_a_bad_request_gets_an_error_and_the_next_one_an_answer(server, message, complaint):
    bystander, client = raw_client(server), raw_client(server)
    error = ask(client, message)
    assert isinstance(error, str) and complaint in error and "\n" not in error
    np.testing.assert_array_equal(ask(client, frame(4))["actions"][:2, 0], [4, 5])
    np.testing.assert_array_equal(ask(bystander, frame(5))["actions"][:2, 0], [5, 6])
    assert metrics(server)["specpolicy_requests_total", "refused"] == 1


def test_a_refused_request_leaves_the_episode_as_it_was(server, service):
    client = raw_client(server)
    ask(client, {**frame(1), "reset": True, "seed": 7})
    for wrong in ({"step": np.array([1e300])}, {"step": np.array([np.inf])}, {"seed": 8}):
        assert isinstance(ask(client, {**frame(2), **wrong}), str)
    assert "the episode has begun" in ask(client, {**frame(2), "seed": 8})
    assert ask(client, frame(3))["actions"][0].tolist() == [3, 7]
    assert service.histories[-1]["step"][:, 0].tolist() == [1, 3]
    assert service.histories[-1]["step"].dtype == np.float32


def test_a_frame_on_which_inference_fails_is_not_kept():
    service = Counting("raise")
    with in_background(PolicyServer(service, port=0)) as server:
        client = raw_client(server)
        ask(client, frame(1))
        assert isinstance(ask(client, frame(-2)), str)
        ask(client, frame(3))
        assert service.histories[-1]["step"][:, 0].tolist() == [1, 3]
        assert isinstance(ask(client, {**frame(-4), "reset": True, "seed": 5}), str)  # the episode has begun even so
        assert ask(client, frame(6))["actions"][0].tolist() == [6, 5]
        assert service.histories[-1]["step"][:, 0].tolist() == [6, 6]


@pytest.mark.parametrize(
    "error, told",
    [
        (FileNotFoundError(2, "No such file or directory", "/srv/robots/secret/model.bin"), "model.bin"),
        (ValueError("a\nb\x1b[31m in /home/somebody/policy.py"), "a b [31m in policy.py"),
        (SpecpolicyError("no calibration in /srv/secret/speculation.json"), "no calibration in speculation.json"),
        (RuntimeError("x" * 10_000), "RuntimeError: xxx"),
        (StopIteration(), "StopIteration"),
        (TypeError("inputs/outputs of shape (2, 3)"), "TypeError: inputs/outputs of shape (2, 3)"),
    ],
)
def test_a_failure_is_one_line_without_places_on_our_disk(error, told, monkeypatch, caplog):
    service = Counting()

    def plan(histories, streams):
        raise error

    monkeypatch.setattr(service, "plan", plan)
    with in_background(PolicyServer(service, port=0)) as server:
        answer = ask(raw_client(server), frame(1))
    assert told in answer and len(answer) < 1000 and answer.isprintable()
    assert not {"/srv", "/home", "Traceback", "File"} & set(answer.replace("/", " /").split())
    assert ("Traceback" in caplog.text) == (not isinstance(error, SpecpolicyError))


def test_a_large_message_is_read_beside_the_event_loop(server, monkeypatch):
    threads = []

    def reading(*arguments):
        threads.append(threading.current_thread().name)
        return read_request(*arguments)

    monkeypatch.setattr("specpolicy.serving.server.read_request", reading)
    client = raw_client(server)
    ask(client, frame(1))
    assert "actions" in ask(client, {**frame(2), "camera": np.zeros(100_000, np.uint8)})
    assert threads[0] == "server" and threads[1].startswith("reader")


def test_openpis_client_raises_what_the_server_says(server):
    client = openpi_client(server)
    with pytest.raises(RuntimeError, match="no key 'image'"):
        client.infer({"step": np.zeros(1)})
    assert client.infer(frame(1))["actions"].shape == (6, 2)


def test_a_huge_array_closes_its_own_connection_alone(service):
    with in_background(PolicyServer(service, port=0, max_message=100_000)) as server:
        bystander, client = raw_client(server), raw_client(server)
        with pytest.raises(ConnectionClosed) as caught:
            ask(client, {**frame(1), "image": np.zeros(10**6)})
        assert caught.value.rcvd.code == 1009 and "100000 bytes" in caught.value.rcvd.reason
        assert "actions" in ask(bystander, frame(2)) and "actions" in ask(raw_client(server), frame(3))


def test_a_client_that_says_nothing_is_sent_away(service):
    with in_background(PolicyServer(service, port=0, idle_seconds=0.3)) as server:
        client = raw_client(server)
        assert "no request for 0.3 s" in client.recv(10)
        with pytest.raises(ConnectionClosed):
            client.recv(10)
        silent = socket.create_connection(("127.0.0.1", server.port))  # not even a handshake
        assert "actions" in ask(raw_client(server), frame(3))
        silent.close()


@pytest.mark.parametrize("rubbish", [b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\n\r\n", b"A" * 100_000, b"\x00" * 50])
def test_what_is_not_even_http_disturbs_nobody(server, rubbish):
    bystander = raw_client(server)
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(rubbish)
        assert "actions" in ask(bystander, frame(3))
    assert "actions" in ask(bystander, frame(4))


def test_broken_websocket_frames_close_their_connection_alone(server):
    bystander, client = raw_client(server), raw_client(server)
    client.socket.sendall(b"\xff\xff\xff\xff\xff\xff")
    with pytest.raises(ConnectionClosed):
        client.recv(10)
    assert "actions" in ask(bystander, frame(3))


@pytest.mark.parametrize(
    "fault, complaint",
    [("raise", "ZeroDivisionError: a service divided by zero"), ("explain", "cannot see negative"), ("nan", "finite")],
)
def test_a_failure_of_inference_is_told_to_the_one_who_asked(fault, complaint):
    service = Counting(fault)
    with in_background(PolicyServer(service, port=0)) as server:
        good, bad = raw_client(server), raw_client(server)
        first = raw_client(server)
        service.gate.clear()
        first.send(pack(frame(0)))
        wait_until(lambda: server._inference.busy_seconds() > 0)
        for client, step in ((good, 5), (bad, -5)):  # these wait together and become one batch
            client.send(pack(frame(step)))
        wait_until(lambda: metrics(server)["specpolicy_queue_length",] == 2)
        service.gate.set()
        error = bad.recv(10)
        assert isinstance(error, str) and complaint in error
        assert "\n" not in error and "Traceback" not in error
        np.testing.assert_array_equal(unpack(good.recv(10))["actions"][:, 0], np.arange(5, 11))
        assert "actions" in ask(bad, frame(1))
        assert metrics(server)["specpolicy_requests_total", "failed"] == 1


def test_a_service_that_miscounts_is_an_error_for_all_and_the_server_lives():
    with in_background(PolicyServer(Counting("few"), port=0)) as server:
        client = raw_client(server)
        assert "0 chunks for 1 requests" in ask(client, frame(1)) and "RuntimeError" in ask(client, frame(1))


def test_requests_that_wait_are_planned_together_and_the_loop_stays_free(service):
    with in_background(PolicyServer(service, port=0, max_batch=4)) as server:
        clients = [raw_client(server) for _ in range(7)]
        service.gate.clear()
        clients[0].send(pack(frame(0)))
        wait_until(lambda: server._inference.busy_seconds() > 0)
        for number, client in enumerate(clients[1:], 1):
            client.send(pack(frame(100 * number)))
        wait_until(lambda: metrics(server)["specpolicy_queue_length",] == 6)  # inference hangs, the loop answers
        assert get(server, "/healthz")[0].status == 200
        service.gate.set()
        for number, client in enumerate(clients):
            np.testing.assert_array_equal(unpack(client.recv(10))["actions"][:, 0], 100 * number + np.arange(6))
        assert service.batches == [1, 4, 2]
        found = metrics(server)
        assert found["specpolicy_batch_size_count",] == len(service.batches)
        assert found["specpolicy_request_seconds_count",] == found["specpolicy_requests_total", "answered"] == 7
        assert found["specpolicy_network_calls_total",] == 21 and found["specpolicy_network_rows_total",] == 42
        assert found["specpolicy_queue_length",] == 0


def test_a_client_that_has_left_is_not_planned_for(server, service):
    busy, gone = raw_client(server), raw_client(server)
    service.gate.clear()
    busy.send(pack(frame(1)))
    wait_until(lambda: server._inference.busy_seconds() > 0)
    gone.send(pack(frame(2)))
    wait_until(lambda: metrics(server)["specpolicy_queue_length",] == 1)
    gone.socket.shutdown(socket.SHUT_RDWR)
    gone.socket.close()
    time.sleep(0.2)
    service.gate.set()
    assert "actions" in unpack(busy.recv(10))
    wait_until(lambda: metrics(server)["specpolicy_requests_total", "dropped"] == 1)
    assert [history["step"][-1, 0] for history in service.histories] == [1]


def test_health_says_when_inference_hangs(server, service, monkeypatch):
    monkeypatch.setattr("specpolicy.serving.server.HUNG_SECONDS", 0.05)
    assert get(server, "/healthz")[1] == "OK\n"
    client = raw_client(server)
    service.gate.clear()
    client.send(pack(frame(1)))
    wait_until(lambda: get(server, "/healthz")[0].status == 503)
    service.gate.set()
    client.recv(10)
    wait_until(lambda: get(server, "/healthz")[0].status == 200)


def test_who_never_reads_does_not_keep_a_place(monkeypatch):
    monkeypatch.setattr("specpolicy.serving.server.SENDING_SECONDS", 0.2)
    with in_background(PolicyServer(Counting(length=200_000), port=0, max_clients=1)) as server:
        client = raw_client(server, max_queue=1)
        for _ in range(30):  # 48 MB of answers, more than a socket holds
            try:
                client.send(pack(frame(1)))
            except ConnectionClosed:
                break
        wait_until(lambda: metrics(server)[("specpolicy_clients",)] == 0)
        np.testing.assert_array_equal(ask(raw_client(server), frame(4))["actions"][:2, 0], [4, 5])
