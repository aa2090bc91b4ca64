"""openpi's client interface on our own client: for programs that use `openpi_client.WebsocketClientPolicy`.

    from specpolicy.integrations.openpi_client import WebsocketClientPolicy

It needs neither openpi-client nor its dependencies, and speaks to the same servers. It differs in three things: `reset`
begins a new episode on a specpolicy server, nothing waits for ever, and an error leaves the connection usable. To run a
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
        api_key: if the server needs one.
        timeout: longest wait for an answer in seconds.

    Raises:
        SpecpolicyError: no server there, or one that refuses the connection.
    """

    def __init__(
        self, host: str = "127.0.0.1", port: int | None = None, api_key: str | None = None, timeout: float = 30.0
    ):
        url = host if port is None else f"{host}:{port}"
        self._connection = Connection(url, api_key, timeout)

    def get_server_metadata(self) -> dict[str, Any]:
        """Return the server's description of its policy."""
        return self._connection.metadata.as_message() if self._ours else dict(self._connection.metadata.more)

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to an observation {key: array}: `actions` (T, D), `server_timing`, `policy_timing`.

        Raises:
            SpecpolicyError: the server's error, invalid actions, or a lost connection.
        """
        answer = self._connection.ask(obs)
        if RESET not in answer:  # the only answer of a specpolicy server to a `reset` without an observation
            check_actions(answer, self._connection.metadata.action_dim)
        return answer

    def reset(self) -> None:
        """Begin an episode: a specpolicy server forgets the earlier frames. Other servers have no episodes."""
        if self._ours:
            self._connection.ask({RESET: True})

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    @property
    def _ours(self) -> bool:
        return self._connection.metadata.more.get("server") == NAME
