"""The remote planner: the same chunks as the policy itself, control loops that survive the network or stop safely."""

import pickle
import socket
import subprocess
import sys
import threading
import time
from typing import ClassVar

import numpy as np
import pytest
from services import Counting, frame, wait_until
from websockets.sync.server import serve as serve_by_hand

from specpolicy import SpecpolicyError
from specpolicy.control import Controller, DeadlineMissed, PolicyPlanner
from specpolicy.integrations.openpi_client import WebsocketClientPolicy
from specpolicy.serving import PolicyServer, PolicyService, RemotePlanner, in_background
from specpolicy.serving.codec import pack, unpack
from specpolicy.serving.connection import Connection, ConnectionLost, ServerError

HISTORY = {"position": np.array([[0.1, 0.2], [0.3, 0.4]]), "object": np.zeros((2, 3)), "unused": np.zeros((2, 1))}


def url(server):
    return f"ws://127.0.0.1:{server.port}"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


class Still:
    """A robot that sees the same step always, and counts."""

    def __init__(self):
        self.actions, self.stops = [], 0

    def observe(self):
        return frame(5)

    def act(self, action):
        self.actions.append(action)

    def stop(self):
        self.stops += 1


@pytest.mark.parametrize("sampler", ("ddpm", "block"))
def test_a_remote_policy_plans_what_the_policy_itself_plans(small_policy, sampler):
    own = PolicyPlanner(small_policy, sampler)
    with in_background(PolicyServer(PolicyService(small_policy, sampler), port=0)) as server:
        remote = RemotePlanner(url(server))
        assert (remote.n_obs_steps, remote.n_action_steps) == (own.n_obs_steps, own.n_action_steps)
        assert remote.metadata.action_dim == 2 and remote.metadata.observation == {"position": (2,), "object": (3,)}
        for seed in (3, 3, 4):
            own.reset(seed)
            remote.reset(seed)
            for _ in range(2):
                here, there = own.plan(HISTORY), remote.plan(HISTORY)
                np.testing.assert_array_equal(here.actions, there.actions)
                assert (here.calls, here.rows) == (there.calls, there.rows)
                assert there.seconds > there.network_seconds > 0 and there.encode_seconds > 0
        remote.close()


def test_what_a_client_gets_does_not_depend_on_who_else_asks(small_policy):
    service = PolicyService(small_policy, "ddpm")
    histories = [{key: value + i for key, value in HISTORY.items()} for i in range(4)]
    together = service.plan(histories, [service.begin(seed) for seed in range(4)])
    for seed, (history, chunk) in enumerate(zip(histories, together, strict=True)):
        (alone,) = service.plan([history], [service.begin(seed)])
        np.testing.assert_allclose(alone.actions, chunk.actions, atol=1e-4)


def test_a_process_gets_a_connection_of_its_own():
    with in_background(PolicyServer(Counting(), port=0)) as server:
        remote = pickle.loads(pickle.dumps(RemotePlanner(url(server), timeout=7.0, reconnect=2.0)))
        assert (remote._timeout, remote._reconnect) == (7.0, 2.0)
        assert remote.plan({key: np.stack([value, value]) for key, value in frame(3).items()}).actions[0, 0] == 3


@pytest.mark.parametrize("worker", ("thread", "process"))
def test_a_control_loop_runs_on_a_remote_policy(worker):
    robot = Still()
    with in_background(PolicyServer(Counting(), port=0)) as server:
        planner = RemotePlanner(url(server))
        controller = Controller(planner, robot, hz=50, worker=worker, warm_up=1, watchdog=60, inference_timeout=60)
        summary = controller.run(seconds=0.4).summary()
    assert robot.stops == 1 and summary["ticks"] == len(robot.actions) >= 1
    assert summary["calls"] == 3 and robot.actions[0].tolist() == [5, 0]  # the controller's seed went along


class Slow(Counting):
    """From the fourth chunk on, inference takes longer than a chunk reaches."""

    def plan(self, histories, streams):
        if len(self.histories) >= 4:
            time.sleep(0.4)
        return super().plan(histories, streams)


@pytest.mark.parametrize("on_miss", ("continue_chunk", "hold_last", "stop"))
def test_late_chunks_of_a_remote_policy_are_misses_like_others(on_miss):
    robot = Still()
    with in_background(PolicyServer(Slow(), port=0)) as server:
        controller = Controller(
            RemotePlanner(url(server)), robot, hz=50, worker="thread", warm_up=1, watchdog=60, inference_timeout=60,
            lead=2, on_miss=on_miss,
        )  # fmt: skip
        if on_miss == "stop":
            with pytest.raises(DeadlineMissed):
                controller.run(seconds=1.2)
        else:
            controller.run(seconds=1.2)
            assert controller.log.summary()["misses"] > 0
    assert robot.stops == 1


def test_a_lost_server_stops_the_robot_at_once_if_told_so():
    robot, service = Still(), Counting()
    server = PolicyServer(service, port=0)
    with in_background(server):
        planner = RemotePlanner(url(server))
        controller = Controller(planner, robot, hz=50, worker="thread", warm_up=1, watchdog=60, inference_timeout=60)
        outcome: list[BaseException] = []

        def run():
            try:
                controller.run(seconds=60)
            except BaseException as error:
                outcome.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        wait_until(lambda: len(robot.actions) > 5)
    thread.join(30)
    assert not thread.is_alive() and robot.stops == 1
    (error,) = outcome
    assert isinstance(error, SpecpolicyError) and "inference failed" in str(error) and url(server) in str(error)


def test_a_client_told_to_waits_for_the_server_to_come_back():
    robot, port, service = Still(), free_port(), Counting()
    with in_background(PolicyServer(service, port=port)):
        planner = RemotePlanner(f"127.0.0.1:{port}", reconnect=60.0)
        controller = Controller(planner, robot, hz=50, worker="thread", warm_up=1, watchdog=60, inference_timeout=60)
        thread = threading.Thread(target=controller.run, kwargs={"until": lambda: len(again.histories) >= 3})
        again = Counting()
        thread.start()
        wait_until(lambda: len(robot.actions) > 5)
    before = len(robot.actions)
    wait_until(lambda: len(robot.actions) > before + 5)  # it holds meanwhile
    with in_background(PolicyServer(again, port=port)):
        thread.join(30)
    assert not thread.is_alive() and robot.stops == 1 and len(again.histories) >= 3
    assert controller.log.summary()["misses"] >= 1


def test_another_policy_in_the_place_of_the_first_is_refused():
    port, other = free_port(), Counting()
    with in_background(PolicyServer(Counting(), port=port)):
        planner = RemotePlanner(f"127.0.0.1:{port}", reconnect=30.0)
        planner.reset(0)
    other.n_obs_steps, other.metadata = 3, type(other.metadata)(3, 3, other.shapes, 2)
    with (
        in_background(PolicyServer(other, port=port)),
        pytest.raises(SpecpolicyError, match="come back with another policy"),
    ):
        planner.reset(0)


def test_giving_up_takes_no_longer_than_told():
    port = free_port()
    with in_background(PolicyServer(Counting(), port=port)):
        planner = RemotePlanner(f"127.0.0.1:{port}", reconnect=0.3)
        planner.reset(0)
    start = time.monotonic()
    with pytest.raises(ConnectionLost, match="no policy server answers"):
        planner.reset(1)
    assert time.monotonic() - start >= 0.3


def by_hand(answers, first=None):
    """A server that sends `first` and then one answer of `answers` for each message; None means silence."""

    def handle(websocket):
        websocket.send(pack({"server": "other"}) if first is None else first)
        for answer in answers:
            seen.append(unpack(websocket.recv()))
            if answer is None:
                time.sleep(2)
            else:
                websocket.send(answer)

    seen: list = []
    server = serve_by_hand(handle, "127.0.0.1", 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"ws://127.0.0.1:{server.socket.getsockname()[1]}", seen


def test_a_server_of_openpi_plans_for_our_loop():
    actions = np.arange(12, dtype=np.float32).reshape(6, 2)
    answer = pack({"actions": actions, "policy_timing": {"infer_ms": 4.0}})
    server, address, seen = by_hand([answer] * 2)
    with pytest.raises(SpecpolicyError, match="give n_action_steps"):
        RemotePlanner(address)
    planner = RemotePlanner(address, n_action_steps=3, translate=lambda newest: {**newest, "prompt": "lift"})
    planner.reset(0)  # such a server knows no episodes
    chunk = planner.plan({"state": np.array([[1.0], [2.0]])})
    np.testing.assert_array_equal(chunk.actions, actions)
    assert chunk.network_seconds == pytest.approx(0.004) and chunk.encode_seconds == 0
    assert (planner.n_obs_steps, planner.n_action_steps) == (1, 3)
    assert seen[0]["state"].tolist() == [2.0] and seen[0]["prompt"] == "lift"
    server.shutdown()


@pytest.mark.parametrize(
    "answer, kind, complaint",
    [
        (
            "Traceback ...\nValueError: the policy fell over\n",
            ServerError,
            "answered: ValueError: the policy fell over",
        ),
        (b"\xc1", SpecpolicyError, "not a msgpack message"),
        (pack([1]), SpecpolicyError, "answered with list"),
        (pack({"action": 1}), SpecpolicyError, "answered without `actions`"),
        (pack({"actions": np.zeros(3)}), SpecpolicyError, "answered without `actions`"),
        (None, ConnectionLost, "has not answered for 0.3 s"),
        ("", ServerError, "an empty text frame"),
        ("a\x1b[2Jb" + "c" * 10_000, ServerError, "answered: a [2Jbccc"),
        (pack({"actions": np.zeros((3, 1, 2))}), SpecpolicyError, "answered without `actions`"),
        (pack({"actions": np.array([["a"]])}), SpecpolicyError, "answered without `actions`"),
        (pack({"actions": np.ones((3, 2), bool)}), SpecpolicyError, "answered without `actions`"),
        (pack({"actions": [[0.0, 1.0]]}), SpecpolicyError, "answered without `actions`"),
        (pack({"actions": np.zeros((0, 2))}), SpecpolicyError, "0 actions; 1 are to be executed"),
        (pack({"actions": np.zeros((3, 0))}), SpecpolicyError, "cannot be executed"),
        (pack({"actions": np.full((3, 2), np.nan)}), SpecpolicyError, "not finite"),
        (pack({"actions": np.full((3, 2), -np.inf, np.float32)}), SpecpolicyError, "not finite"),
        (pack({"actions": np.full((3, 2), 1e300)}), SpecpolicyError, "not finite"),
        (pack({"actions": np.zeros((3, 2)), "policy_timing": {"calls": "many"}}), SpecpolicyError, "`calls`"),
        (pack({"actions": np.zeros((3, 2)), "policy_timing": {"calls": 1e300}}), SpecpolicyError, "`calls`"),
        (pack({"actions": np.zeros((3, 2)), "policy_timing": {"rows": -1}}), SpecpolicyError, "`rows`"),
        (pack({"actions": np.zeros((3, 2)), "policy_timing": {"rows": True}}), SpecpolicyError, "`rows`"),
        (pack({"actions": np.zeros((3, 2)), "policy_timing": {"infer_ms": np.nan}}), SpecpolicyError, "`infer_ms`"),
        (pack({"actions": np.zeros((3, 2)), "policy_timing": {"network_ms": []}}), SpecpolicyError, "`network_ms`"),
        (pack({"actions": [["x" * 40_000] + [""] * 40_000]}), SpecpolicyError, "answered without `actions`"),
        (b"\x91" * 100_000, SpecpolicyError, "in each other"),
        (pack({"actions": np.zeros((2**22, 1))}), ServerError, "closed the connection"),  # 32 MiB
    ],
)
def test_what_a_server_may_answer_is_one_clear_line(answer, kind, complaint):
    server, address, _ = by_hand([answer])
    planner = RemotePlanner(address, n_action_steps=1, timeout=20.0 if answer is not None else 0.3)
    with pytest.raises(kind) as caught:
        planner.plan({"state": np.zeros((1, 1))})
    assert complaint in str(caught.value) and str(caught.value).isprintable() and len(str(caught.value)) < 1000
    server.shutdown()


METADATA = {
    "server": "specpolicy",
    "n_obs_steps": 1,
    "n_action_steps": 3,
    "observation": {"state": [1]},
    "action_dim": 2,
}


@pytest.mark.parametrize(
    "actions, complaint",
    [(np.zeros((4, 3)), "actions of 3 numbers, not of 2"), (np.zeros((2, 2)), "2 actions; 3 are to be executed")],
)
def test_an_answer_is_what_the_metadata_promised(actions, complaint):
    server, address, _ = by_hand([pack({"actions": actions})] * 2, pack(METADATA))
    with pytest.raises(SpecpolicyError, match=complaint):
        RemotePlanner(address).plan({"state": np.zeros((1, 1))})
    server.shutdown()


def test_openpis_interface_checks_its_answers_too():
    answers = [pack({"actions": np.zeros((4, 2))}), pack({"actions": np.full((4, 2), np.nan)}), pack({"action": 1})]
    server, address, _ = by_hand([*answers, pack({"actions": np.zeros((4, 3))}), pack({"reset": True})], pack(METADATA))
    client = WebsocketClientPolicy(address)
    assert client.infer({"state": np.zeros(1)})["actions"].shape == (4, 2)
    for complaint in ("not finite", "without `actions`", "actions of 3 numbers"):
        with pytest.raises(SpecpolicyError, match=complaint):
            client.infer({"state": np.zeros(1)})
    client.reset()
    server.shutdown()


@pytest.mark.parametrize(
    "first, complaint",
    [
        (pack({**METADATA, "n_obs_steps": True}), "`n_obs_steps` is a whole number"),
        (pack({**METADATA, "n_obs_steps": "2"}), "`n_obs_steps` is a whole number"),
        (pack({**METADATA, "n_action_steps": 0}), "`n_action_steps` is a whole number"),
        (pack({**METADATA, "action_dim": 2.0}), "`action_dim` is a whole number"),
        (pack({**METADATA, "action_dim": 2**40}), "`action_dim` is a whole number"),
        (pack({**METADATA, "observation": {"state": 1}}), "`observation` is"),
        (pack({**METADATA, "observation": {"state": [-1]}}), "`observation` is"),
        (pack({**METADATA, "observation": {"state": ["1"]}}), "`observation` is"),
        (pack({**METADATA, "observation": []}), "`observation` is"),
        (pack([1]), "is a map"),
        ("no GPU here", "answered: no GPU here"),
        (pack({"server": "specpolicy"}), "metadata is not understood"),
    ],
)
def test_a_server_that_is_none_of_ours_is_refused(first, complaint):
    server, address, _ = by_hand([], first)
    with pytest.raises(SpecpolicyError, match=complaint):
        Connection(address)
    server.shutdown()


def test_no_server_a_wrong_key_and_a_wrong_address_are_one_line(small_policy):
    with pytest.raises(ConnectionLost, match="no policy server answers at ws://127"):
        RemotePlanner(f"127.0.0.1:{free_port()}")
    with pytest.raises(SpecpolicyError):
        RemotePlanner("ws://")
    with in_background(PolicyServer(Counting(), port=0, api_key="secret")) as server:
        with pytest.raises(ServerError, match="HTTP 401"):
            RemotePlanner(url(server), api_key="wrong")
        RemotePlanner(url(server), api_key="secret").reset(0)
    with socket.create_server(("127.0.0.1", 0)) as deaf, pytest.raises(ConnectionLost):
        RemotePlanner(f"127.0.0.1:{deaf.getsockname()[1]}", timeout=0.2)


def test_a_message_too_big_is_the_clients_fault_and_not_tried_again():
    with in_background(PolicyServer(Counting(), port=0, max_message=10_000)) as server:
        planner = RemotePlanner(url(server), reconnect=30)
        start = time.monotonic()
        with pytest.raises(ServerError, match="10000 bytes"):
            planner.plan({"step": np.zeros((2, 1)), "image": np.zeros((2, 3, 40, 50))})
        assert time.monotonic() - start < 20


def test_a_run_begins_anew_where_the_server_has_closed_what_was_idle():
    with in_background(PolicyServer(Counting(), port=0, idle_seconds=0.2)) as server:
        planner = RemotePlanner(url(server))
        for seed in (3, 4):
            planner.reset(seed)
            assert planner.plan(frame(1)).actions[0, -1] == seed
            time.sleep(0.6)
    with pytest.raises(ConnectionLost):  # nobody is there any more
        planner.reset(5)


def test_a_server_that_computes_for_long_is_not_pinged_away():
    """Every request has its own time, and a server whose loop stands still while it plans answers no ping."""
    with in_background(PolicyServer(Counting(), port=0)) as server:
        assert Connection(url(server))._websocket.ping_interval is None


def test_the_largest_message_holds_what_the_policy_sees():
    class Seeing(Counting):
        shapes: ClassVar = {"step": (1,), "image": (3, 1200, 1000)}

    frames = {"step": np.zeros((2, 1), np.float32), "image": np.zeros((2, 3, 1200, 1000), np.float32)}
    with in_background(PolicyServer(Seeing(), port=0)) as server:
        assert RemotePlanner(url(server)).plan(frames).actions.shape == (6, 2)
    with pytest.raises(SpecpolicyError, match=r"takes 7200008 bytes, .* set max_message_mb higher"):
        PolicyServer(Seeing(), port=0, max_message=7_000_000)


def test_a_missing_key_is_named_before_anything_is_sent():
    missing = pytest.raises(SpecpolicyError, match="observes 'image', which is not observed here")
    with in_background(PolicyServer(Counting(), port=0)) as server, missing:
        RemotePlanner(url(server)).plan({"step": np.zeros((2, 1))})


def test_serving_is_imported_without_what_it_needs():
    code = "import sys, specpolicy.serving; sys.exit(not {'websockets', 'msgpack'}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
