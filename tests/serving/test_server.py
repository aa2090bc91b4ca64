"""The server against openpi's own client, and how it keeps order among many."""

import numpy as np
import pytest
from clients import ask, get, metrics, openpi_client, raw_client
from services import frame, wait_until
from websockets.exceptions import ConnectionClosed, InvalidStatus

from specpolicy import SpecpolicyError
from specpolicy.serving import PolicyServer, in_background
from specpolicy.serving.codec import pack


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
    assert (timing["infer_ms"], timing["network_ms"], timing["encode_ms"]) == pytest.approx((20, 10, 4))
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
    seen = np.moveaxis(image, -1, 0) / 255
    np.testing.assert_allclose(service.histories[-1]["image"], [seen, seen], atol=1e-7)
    assert "actions" in ask(client, {**frame(2), "image": np.moveaxis(image, -1, 0) / 255})  # a float now
    np.testing.assert_allclose(service.histories[-1]["image"], [seen, seen], atol=1e-7)


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
