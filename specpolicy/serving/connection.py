"""A client's connection to a policy server, ours or openpi's, with clear error messages."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI, WebSocketException
from websockets.sync.client import ClientConnection, connect
from websockets.uri import parse_uri

from specpolicy.errors import SpecpolicyError
from specpolicy.serving.codec import ProtocolError, pack, unpack
from specpolicy.serving.lines import last_line, one_line
from specpolicy.serving.pages import quiet_logger
from specpolicy.serving.protocol import PORT, Metadata

CONNECT_SECONDS, CLOSE_SECONDS = 10.0, 1.0
SMALL = 2**15  # bytes; guarding a message takes a thread, which costs as much as sending it
MOST_BYTES = 16 * 2**20  # of an answer: chunks and metadata are thousands of times smaller


class ConnectionLost(SpecpolicyError):
    """There is no server, or it has gone or does not answer. Trying again may help."""


class ServerError(SpecpolicyError):
    """The server answered with an error: the message or the policy is at fault."""


class Connection:
    """An open connection to a policy server.

    Args:
        url: `ws://host:port`, `wss://...`, or `host`; the port is 8000 if none is given with ws.
        api_key: sent along if the server needs one.
        timeout: seconds that an answer may take.

    Attributes:
        url: with the port.
        metadata: the server's description of its policy.

    Raises:
        ConnectionLost: there is no server.
        SpecpolicyError: the server refuses the connection, or is not a policy server.
    """

    def __init__(self, url: str, api_key: str | None = None, timeout: float = 30.0):
        self.url, self._timeout = full_url(url), timeout
        headers = {"Authorization": f"Api-Key {api_key}"} if api_key else None
        self._websocket: ClientConnection | None = None
        try:
            self._websocket = connect(
                self.url,
                sock=_socket(url, self.url, min(timeout, CONNECT_SECONDS)),
                additional_headers=headers,
                compression=None,
                max_size=MOST_BYTES,
                open_timeout=min(timeout, CONNECT_SECONDS),
                close_timeout=CLOSE_SECONDS,
                proxy=None,  # a robot talks to its own network
                ping_interval=None,  # a server that computes may answer none for long; every request has its own time
                logger=quiet_logger(),
            )
        except (InvalidURI, ValueError):  # only the given address: with our own socket no redirect is followed
            raise ServerError(f"the server at {self.url} sends us to another address: give that one") from None
        except InvalidStatus as error:
            reason = one_line((error.response.body or b"").decode(errors="replace"))
            text = f"the server at {self.url} refuses us (HTTP {error.response.status_code}; {reason})"
            raise (ConnectionLost if error.response.status_code == 503 else ServerError)(text) from None
        except (OSError, TimeoutError, EOFError) as error:
            reason = one_line(str(error)) or type(error).__name__
            raise ConnectionLost(f"no policy server answers at {self.url} ({reason})") from None
        except (InvalidHandshake, WebSocketException) as error:
            raise ConnectionLost(f"no policy server answers at {self.url} ({one_line(str(error))})") from None
        try:
            self.metadata = Metadata.from_message(self._receive())
        except SpecpolicyError:
            self.close()
            raise

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to one message.

        Raises:
            ConnectionLost: the server has gone, or did not answer in time. The connection is then closed.
            ServerError: the server answered with an error.
        """
        data = pack(message)
        try:
            if self._websocket is None:
                raise ConnectionLost(f"the connection to {self.url} is closed")
            self._check_silence(self._websocket)
            try:
                # A small message fits into the buffers of the two machines.
                patience = _cut_after(self._websocket, self._timeout) if len(data) > SMALL else contextlib.nullcontext()
                with patience:
                    self._websocket.send(data)
            except (ConnectionClosed, OSError) as error:
                raise self._gone(error) from None
            answer = self._receive()
        except (ConnectionLost, ProtocolError):
            self.close()
            raise
        if not isinstance(answer, dict):
            raise ProtocolError(f"the server at {self.url} answered with {type(answer).__name__}, not with a map")
        return answer

    def close(self) -> None:
        """Close the connection without a long wait for a server that does not answer."""
        websocket, self._websocket = self._websocket, None
        if websocket is not None:
            with _cut_after(websocket, 2 * CLOSE_SECONDS):
                websocket.close()

    def _check_silence(self, websocket: ClientConnection) -> None:
        """Raise if an unrequested message has arrived: all later answers would belong to older questions."""
        try:
            data = websocket.recv(0)
        except TimeoutError:
            return
        except (ConnectionClosed, OSError) as error:
            raise self._gone(error) from None
        if isinstance(data, str):  # usually a farewell
            raise ConnectionLost(f"the server at {self.url} said: {last_line(data) or 'an empty text frame'}")
        raise ProtocolError(f"the server at {self.url} has answered more than it was asked")

    def _receive(self) -> Any:
        assert self._websocket is not None
        try:
            data = self._websocket.recv(self._timeout)
        except TimeoutError:
            raise ConnectionLost(f"the server at {self.url} has not answered for {self._timeout:g} s") from None
        except (ConnectionClosed, OSError) as error:
            raise self._gone(error) from None
        if isinstance(data, str):
            raise ServerError(f"the server at {self.url} answered: {last_line(data) or 'an empty text frame'}")
        return unpack(data)

    def _gone(self, error: Exception) -> SpecpolicyError:
        close = getattr(error, "rcvd", None)
        why = close if close is not None and close.reason else error  # its own words, if it has any
        text = f"the server at {self.url} has closed the connection ({one_line(str(why))})"
        # 1009: message too big, ours or the server's. Asking again would not help.
        codes = [one.code for one in (close, getattr(error, "sent", None)) if one is not None]
        return ServerError(text) if 1009 in codes else ConnectionLost(text)


def _socket(url: str, full: str, timeout: float) -> socket.socket:
    try:
        address = parse_uri(full)
        return socket.create_connection((address.host, address.port), timeout)
    except (InvalidURI, ValueError) as error:  # the latter for an invalid port or name
        raise SpecpolicyError(f"{url} is no address of a server: write ws://host:port ({error})") from None


@contextlib.contextmanager
def _cut_after(websocket: ClientConnection, seconds: float) -> Iterator[None]:
    """Cut a connection unless the block ends in time, because sending to a server that does not read would never
    end."""

    def cut() -> None:
        with contextlib.suppress(OSError):
            websocket.socket.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def full_url(url: str) -> str:
    """Return `url` with scheme and port."""
    full = url if re.match(r"wss?://", url) else f"ws://{url}"
    if "://" in full.partition("://")[2]:
        raise SpecpolicyError(f"{url} is no address of a policy server: write ws://host:port")
    scheme, _, rest = full.partition("://")
    host, slash, path = rest.partition("/")
    if scheme == "ws" and not re.search(r":\d+$", host):
        host = f"{host}:{PORT}"
    return f"{scheme}://{host}{slash}{path}"
