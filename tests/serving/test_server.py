"""The server against openpi's own client, and against every client that one would rather not have."""

import http.client
import socket
import time

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from services import Counting, frame, wait_until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from specpolicy import SpecpolicyError
from specpolicy.serving import PolicyServer, in_background
from specpolicy.serving.codec import pack, unpack

openpi = pytest.importorskip("openpi_client.websocket_client_policy")


@pytest.fixture
def service():
    return Counting()


@pytest.fixture
def server(service):
    with in_background(PolicyServer(service, port=0)) as running:
        yield running


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


def test_openpis_client_is_served(server, service):
    client = openpi_client(server)
    told = client.get_server_metadata()
    assert (told["n_obs_steps"], told["n_action_steps"], told["action_dim"]) == (2, 3, 2)
    assert told["observation"] == {"step": [1], "image": [3, 4, 5]} and told["sampler"] == "counting"
    first = client.infer({**frame(7), "prompt": "lift the cube"})
    np.testing.assert_array_equal(first["actions"][:, 0], np.arange(7, 13))
    assert first["actions"].dtype == np.float32 and "prev_total_ms" not in first["server_timing"]
    assert first["server_timing"]["infer_ms"] >= first["server_timing"]["queue_ms"] >= 0
    timing = first["policy_timing"]
    assert (timing["infer_ms"], timing["network_ms"]) == pytest.approx((20, 10))
    assert (timing["calls"], timing["rows"], timing["batch"]) == (3, 6, 1)
    assert client.infer(frame(8))["server_timing"]["prev_total_ms"] > 0
    assert service.threads == {"inference"}


def test_openpis_chunk_broker_plays_our_chunks(server):
    broker_module = pytest.importorskip("openpi_client.action_chunk_broker")
    broker = broker_module.ActionChunkBroker(openpi_client(server), action_horizon=3)
    assert [broker.infer(frame(step))["actions"][0] for step in range(5)] == [0, 1, 2, 3, 4]


def test_a_history_is_kept_for_each_connection_until_it_is_reset(server, service):
    one, other = raw_client(server), raw_client(server)
    for client, step in ((one, 1), (other, 50), (one, 2), (one, 3), (other, 51)):
        ask(client, frame(step))
    assert [history["step"][:, 0].tolist() for history in service.histories] == [
        [1, 1], [50, 50], [1, 2], [2, 3], [50, 51],
    ]  # fmt: skip
    assert ask(one, {"reset": True})["reset"] is True
    ask(one, frame(9))
    ask(other, {**frame(60), "reset": True})
    assert [history["step"][:, 0].tolist() for history in service.histories[-2:]] == [[9, 9], [60, 60]]
    whole = {key: np.stack([frame(3)[key], frame(4)[key]]) for key in frame(0)}
    ask(one, whole)
    assert service.histories[-1]["step"][:, 0].tolist() == [3, 4]


def test_seeds_are_the_clients_or_else_all_different(server):
    one, other = raw_client(server), raw_client(server)
    ask(one, {"reset": True, "seed": 123})
    assert ask(one, frame(0))["actions"][0, 1] == ask(one, frame(1))["actions"][0, 1] == 123
    own = [ask(client, {**frame(0), "reset": True})["actions"][0, 1] for client in (one, other, one)]
    assert len(set(own)) == 3


def test_images_may_have_their_channels_last(server, service):
    client = raw_client(server)
    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    assert "actions" in ask(client, {**frame(1), "image": image})
    np.testing.assert_array_equal(service.histories[-1]["image"], [image, image])


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
    ],
)
def test_a_bad_request_gets_an_error_and_the_next_one_an_answer(server, message, complaint):
    bystander, client = raw_client(server), raw_client(server)
    error = ask(client, message)
    assert isinstance(error, str) and complaint in error and "\n" not in error
    np.testing.assert_array_equal(ask(client, frame(4))["actions"][:2, 0], [4, 5])
    np.testing.assert_array_equal(ask(bystander, frame(5))["actions"][:2, 0], [5, 6])
    assert metrics(server)["specpolicy_requests_total", "refused"] == 1


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
        assert ("Traceback" in error) == (fault == "raise")
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
    assert get(server, "/healthz")[0].status == 200


def test_a_key_is_asked_for(service):
    with in_background(PolicyServer(service, port=0, api_key="secret")) as server:
        right = {"Authorization": "Api-Key secret"}
        for headers in ({}, {"Authorization": "Api-Key wrong"}, {"Authorization": "secret"}, {"Api-Key": "secret"}):
            with pytest.raises(InvalidStatus) as caught:
                raw_client(server, additional_headers=headers)
            assert caught.value.response.status_code == 401
            assert get(server, "/metrics", headers)[0].status == 401
        assert openpi_client(server, api_key="secret").infer(frame(1))["actions"].shape == (6, 2)
        assert get(server, "/healthz")[0].status == 200
        response, text = get(server, "/metrics", right)
        assert response.status == 200 and "specpolicy_connections_refused_total 8.0" in text


def test_web_pages_and_crowds_are_kept_out(service):
    with in_background(PolicyServer(service, port=0, max_clients=1)) as server:
        with pytest.raises(InvalidStatus) as caught:
            raw_client(server, origin="https://example.com")
        assert caught.value.response.status_code == 403
        first = raw_client(server)
        with pytest.raises(InvalidStatus) as caught:
            raw_client(server)
        assert caught.value.response.status_code == 503
        assert get(server, "/healthz")[0].status == get(server, "/metrics")[0].status == 200
        first.close()
        wait_until(lambda: metrics(server)["specpolicy_clients",] == 0)
        assert "actions" in ask(raw_client(server), frame(1))


def test_clients_that_come_and_go_leave_nothing_behind(server):
    for number in range(20):
        client = raw_client(server)
        client.send(pack(frame(number)))
        if number % 2:
            client.socket.close()
        else:
            client.close()
    wait_until(lambda: metrics(server)["specpolicy_clients",] == 0)
    assert "actions" in ask(raw_client(server), frame(1))


def test_the_server_listens_on_loopback_and_says_when_it_cannot(server, service):
    assert server.host == "127.0.0.1"
    with (
        pytest.raises(SpecpolicyError, match="cannot listen on"),
        in_background(PolicyServer(service, port=server.port)),
    ):
        pass
    with pytest.raises(SpecpolicyError, match="cannot listen on"), in_background(PolicyServer(service, "no.such", 0)):
        pass
    settings = {"port": -1, "host": "", "max_clients": 0, "api_key": "a\nb", "idle_seconds": 0, "max_batch": 0}
    for name, wrong in settings.items():
        with pytest.raises(SpecpolicyError, match=name):
            PolicyServer(service, **{name: wrong})


def test_the_server_says_goodbye_also_while_inference_hangs(service):
    with in_background(PolicyServer(service, port=0)) as server:
        idle, waiting = raw_client(server), raw_client(server)
        service.gate.clear()
        waiting.send(pack(frame(1)))
        wait_until(lambda: server._inference.busy_seconds() > 0)
    for client in (idle, waiting):
        with pytest.raises(ConnectionClosed) as caught:
            client.recv(10)
        assert caught.value.rcvd.code == 1001
    service.gate.set()
