"""A remote policy as a planner, for a `Controller` whose policy is computed on another machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from specpolicy.committed import Committed, require_way
from specpolicy.control.chunk import Chunk, History
from specpolicy.errors import SpecpolicyError
from specpolicy.serving.answers import check_actions, check_timing
from specpolicy.serving.connection import Connection, ConnectionLost
from specpolicy.serving.protocol import COMMITTED, RESET, SEED, Metadata, committed_message
from specpolicy.serving.scan import ProtocolError

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0  # seconds between attempts to reconnect


class RemotePlanner:
    """Plans on a policy server, ours (`specpolicy serve`) or one of openpi.

    To the control loop it is a planner like any other: network time is part of the chunk's time, and the loop's miss
    policy handles a late chunk.

    If the connection is lost, `reconnect` decides. With 0, an error is raised, and the loop stops the robot. Otherwise
    it tries for that many seconds to connect again, while the loop follows its miss policy. A server that goes silent
    is noticed after `timeout`, so give the loop an `inference_timeout` longer than both together. A server that comes
    back with another policy is an error, in a process that the planner is sent to as well.

    Args:
        url: `ws://host:port`; `wss://` through a proxy that does TLS.
        api_key: if the server needs one.
        timeout: longest wait for an answer in seconds, before the connection counts as lost.
        reconnect: seconds, see above.
        n_action_steps: actions of a chunk to execute; None: the server's number. Servers of openpi send none.
        translate: makes the observation for such a server, with its keys and its prompt, from the newest {key: array}.

    Raises:
        SpecpolicyError: no server there, or one that refuses the connection.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        reconnect: float = 0.0,
        n_action_steps: int | None = None,
        translate: Callable[[dict[str, np.ndarray]], dict[str, Any]] | None = None,
    ):
        if timeout <= 0 or reconnect < 0:
            raise SpecpolicyError(f"timeout={timeout}, reconnect={reconnect}: expected seconds, not below 0")
        self._url, self._key, self._timeout, self._reconnect = url, api_key, timeout, reconnect
        self._translate = translate
        # Only to fetch the metadata: the process that plans, perhaps another one, connects at its first request.
        introduction = Connection(url, api_key, timeout)
        introduction.close()
        self.metadata: Metadata = introduction.metadata
        self._connection: Connection | None = None
        if self.metadata.observation is None and n_action_steps is None:
            raise SpecpolicyError(f"the server at {url} does not say how many actions to execute: give n_action_steps")
        self.n_obs_steps = self.metadata.n_obs_steps
        # A server of openpi does not say what it looks at.
        self.pictures = None if self.metadata.observation is None else tuple(self.metadata.observation)
        self.control_hz, self.continues = self.metadata.control_hz, self.metadata.continues
        self.n_action_steps = n_action_steps or self.metadata.n_action_steps

    def __getstate__(self) -> dict[str, Any]:
        """Give each process its own connection. The metadata goes along, so that the process's first server is compared
        with the one that the loop was made for; and nothing is connected before `reconnect` counts."""
        return {**vars(self), "_connection": None}

    def reset(self, seed: int) -> None:
        """Begin an episode. A specpolicy server draws its random numbers from `seed`, as long as the connection
        lasts."""
        if self.metadata.observation is None:
            return
        message = {RESET: True, SEED: int(seed)}
        kept = self._connection is not None
        try:
            self._ask(message)
        except ConnectionLost:
            if not kept or self._reconnect:  # then it has been tried already
                raise
            self._ask(message)  # the server may have closed a connection that was idle between two runs

    def check_way(self, way: str) -> None:
        """See `Planner`; older servers do not say which ways their policy has."""
        if self.metadata.ways is not None:
            require_way(way, self.metadata.ways)

    def plan(self, history: History, committed: Committed | None = None) -> Chunk:
        """See `Planner.plan`."""
        start = time.perf_counter()
        told = {} if committed is None else {COMMITTED: committed_message(committed)}
        answer = self._ask(self._message(history) | told)
        try:
            actions = check_actions(answer, self.metadata.action_dim, self.n_action_steps)
            spent = check_timing(answer)
        except ProtocolError as error:
            raise ProtocolError(f"{self._url}: {error}") from None
        return Chunk(
            actions,
            seconds=time.perf_counter() - start,
            network_seconds=1e-3 * spent["network_ms"],
            calls=int(spent["calls"]),
            rows=int(spent["rows"]),
            encode_seconds=1e-3 * spent["encode_ms"],
        )

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _message(self, history: History) -> dict[str, Any]:
        shapes = self.metadata.observation
        if shapes is None:
            newest = {key: frames[-1] for key, frames in history.items()}
            return self._translate(newest) if self._translate else newest
        missing = [key for key in shapes if key not in history]
        if missing:
            raise SpecpolicyError(
                f"the policy observes '{missing[0]}', which is not observed here (there is {', '.join(history)})"
            )
        return {key: history[key] for key in shapes}

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Return the answer, over a new connection if the old one is lost and `reconnect` allows it."""
        deadline: float | None = None
        pause = FIRST_PAUSE
        while True:
            try:
                if self._connection is None:
                    self._connection = self._again()
                return self._connection.ask(message)
            except ConnectionLost:
                self.close()
                now = time.perf_counter()
                if deadline is None:  # not from the question on: a silent server is noticed only after `timeout`
                    deadline = now + self._reconnect
                left = deadline - now
                if left <= 0:
                    raise
                time.sleep(min(pause, left))
                pause = min(2 * pause, LONGEST_PAUSE)

    def _again(self) -> Connection:
        connection = Connection(self._url, self._key, self._timeout)
        if not connection.metadata.same_policy(self.metadata):
            connection.close()
            raise SpecpolicyError(f"the server at {self._url} has come back with another policy")
        return connection
