"""openpi's client with another inside: for programs that are written for `openpi_client.WebsocketClientPolicy`.

    from specpolicy.integrations.openpi_client import WebsocketClientPolicy

It needs neither openpi-client nor what that brings, speaks to the same servers, and differs in three things: `reset`
begins a new episode on a server of ours, nothing waits for ever, and an error leaves the connection usable. To run a
policy server in our control loop, see `specpolicy.serving.RemotePlanner`.
"""

from typing import Any

from specpolicy.serving.answers import check_actions
from specpolicy.serving.connection import Connection
from specpolicy.serving.protocol import NAME, RESET


class WebsocketClientPolicy:
    """A policy on a server: `infer` sends an observation and returns the answer.

    Args:
        host: a name or an address, with `ws://` or `wss://` or without.
        port: None for the one in `host`, or 8000.
        api_key: if the server wants one.
        timeout: seconds that an answer may take.

    Raises:
        SpecpolicyError: no server there, or one that refuses us.
    """

    def __init__(
        self, host: str = "127.0.0.1", port: int | None = None, api_key: str | None = None, timeout: float = 30.0
    ):
        url = host if port is None else f"{host}:{port}"
        self._connection = Connection(url, api_key, timeout)

    def get_server_metadata(self) -> dict[str, Any]:
        """What the server says of its policy."""
        return self._connection.metadata.as_message() if self._ours else dict(self._connection.metadata.more)

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        """The answer to an observation {key: array}: `actions` (T, D), `server_timing`, `policy_timing`.

        Raises:
            SpecpolicyError: the server's error, actions that are none, or the connection is lost.
        """
        answer = self._connection.ask(obs)
        if RESET not in answer:  # which is all that a server of ours says to a `reset` without an observation
            check_actions(answer, self._connection.metadata.action_dim)
        return answer

    def reset(self) -> None:
        """Begin an episode: a server of ours forgets the frames before. Others know no episodes."""
        if self._ours:
            self._connection.ask({RESET: True})

    def close(self) -> None:
        """Leave the server."""
        self._connection.close()

    @property
    def _ours(self) -> bool:
        return self._connection.metadata.more.get("server") == NAME
