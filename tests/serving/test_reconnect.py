"""A server that comes back: it is waited for as long as told, and compared with the first, in any process."""

import pickle
import threading

import numpy as np
import pytest
from services import Counting, frame
from websockets.sync.server import serve

from specpolicy.control.process_worker import ProcessWorker
from specpolicy.errors import SpecpolicyError
from specpolicy.serving import PolicyServer, RemotePlanner, in_background
from specpolicy.serving.codec import pack
from specpolicy.serving.protocol import Metadata

PATIENCE = 60.0
HISTORY = {key: np.stack([value, value]) for key, value in frame(3).items()}


def address(server):
    return f"ws://127.0.0.1:{server.port}"


class Turns:
    """A server that treats each connection as its turn says: "gone" leaves without a word, "silent" sends metadata
    only, "answers" answers; the last turn is that of all later connections."""

    def __init__(self, *turns):
        self.turns, self.seen, self.over = list(turns), [], threading.Event()

    def __enter__(self):
        self._server = serve(self._handle, "127.0.0.1", 0)
        self.port = self._server.socket.getsockname()[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self._server.shutdown()

    def _handle(self, websocket):
        turn = self.turns[min(len(self.seen), len(self.turns) - 1)]
        self.seen.append(turn)
        if turn == "gone":
            return
        websocket.send(pack(Counting().metadata.as_message()))
        if turn == "silent":
            self.over.wait(PATIENCE)
            return
        for _ in websocket:
            websocket.send(pack({"actions": np.full((6, 2), len(self.seen), np.float32)}))


@pytest.fixture
def two_servers():
    """The pickle of a planner whose server has gone, and a function that starts the next one in its place."""
    with in_background(PolicyServer(Counting(), port=0)) as server:
        planner = RemotePlanner(address(server))
        planner.reset(0)
        port, pickled = server.port, pickle.dumps(planner)
        planner.close()

    def another(hz):
        service = Counting()
        service.metadata = Metadata(2, 3, service.shapes, 2, {"sampler": "another"}, hz)
        return in_background(PolicyServer(service, port=port))

    return pickled, another


def test_a_process_compares_its_server_with_the_one_of_the_loop(two_servers):
    """The loop's rate is that of the first server, wherever the planner is by then."""
    pickled, another = two_servers
    with another(hz=5.0):
        with pytest.raises(SpecpolicyError, match="come back with another policy"):
            pickle.loads(pickled).reset(0)
        worker = ProcessWorker(pickle.loads(pickled))
        try:
            with pytest.raises(SpecpolicyError, match="come back with another policy"):
                worker.reset(0)
        finally:
            worker.close()


def test_a_process_takes_the_same_policy_of_another_server(two_servers):
    pickled, another = two_servers
    copy = pickle.loads(pickled)  # nobody is there: it connects when it is asked
    with another(hz=None):
        copy.reset(7)
        np.testing.assert_array_equal(copy.plan(HISTORY).actions[0], [3, 7])
        assert copy.metadata.more["sampler"] == "counting"
        copy.close()


def test_a_process_waits_for_its_first_server_as_for_later_ones():
    with Turns("answers", "gone", "answers") as server:
        worker = ProcessWorker(RemotePlanner(address(server), reconnect=PATIENCE))
        try:
            worker.reset(0)
            worker.submit(HISTORY)
            assert worker.result(PATIENCE).actions[0, 0] == 3
        finally:
            worker.close()
        assert server.seen == ["answers", "gone", "answers"]


def test_a_silent_server_is_left_however_short_the_time_to_come_back():
    """It counts from when the loss is noticed, which takes `timeout`."""
    with Turns("answers", "silent", "answers") as server:
        planner = RemotePlanner(address(server), timeout=2.0, reconnect=1.0)
        assert planner.plan(HISTORY).actions[0, 0] == 3
        planner.close()
        assert server.seen[:3] == ["answers", "silent", "answers"]
