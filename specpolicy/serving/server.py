"""The server: openpi's protocol over websockets, `/healthz` and `/metrics` beside it on the same port.

The event loop only moves messages; inference has a thread of its own. Whatever a client sends, the answer is a text
frame to that client, and nobody else notices.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import http
import itertools
import logging
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response
from websockets.protocol import State

from specpolicy.errors import SpecpolicyError
from specpolicy.serving.codec import pack, unpack
from specpolicy.serving.inference import Inference
from specpolicy.serving.metrics import Metrics
from specpolicy.serving.protocol import PORT, read_request
from specpolicy.serving.service import Service
from specpolicy.serving.session import Session

LOGGER = logging.getLogger("specpolicy.serving")
LOOPBACK = "127.0.0.1"
HUNG_SECONDS = 30.0  # a batch that takes longer makes /healthz report trouble
CLOSING_SECONDS = 2.0  # what clients are given to say goodbye
POLICY_VIOLATION, GOING_AWAY = 1008, 1001  # close codes of RFC 6455


class PolicyServer:
    """Serves a policy to several clients at once.

    Args:
        service: what is served, see `PolicyService`.
        host: the address to listen on; the default is reachable from this machine alone, "0.0.0.0" from everywhere.
        port: 0 lets the system choose one; `port` says which.
        api_key: what clients must send as `Authorization: Api-Key ...`; None for no key.
        max_message: bytes of the largest message that is taken.
        max_clients: connections at a time.
        max_batch: requests planned together at most.
        idle_seconds: a client that asks for nothing for so long is told so and sent away; None for any time.
        seed: of the episodes whose clients give none.

    Attributes:
        port: the port listened on, once the server runs.
    """

    def __init__(
        self,
        service: Service,
        host: str = LOOPBACK,
        port: int = PORT,
        *,
        api_key: str | None = None,
        max_message: int = 16 * 2**20,
        max_clients: int = 64,
        max_batch: int = 8,
        idle_seconds: float | None = 600.0,
        seed: int = 0,
    ):
        for name, value in (("max_message", max_message), ("max_clients", max_clients), ("max_batch", max_batch)):
            if value < 1:
                raise SpecpolicyError(f"{name}={value}: expected at least one")
        if idle_seconds is not None and idle_seconds <= 0:
            raise SpecpolicyError(f"idle_seconds={idle_seconds}: expected a positive number")
        if not host:  # which would mean every address
            raise SpecpolicyError("host is empty: name an address, 0.0.0.0 for all")
        if not 0 <= port < 65536:
            raise SpecpolicyError(f"port={port}: expected 0 to 65535")
        if api_key is not None and not (api_key and api_key.isascii() and api_key.isprintable()):
            raise SpecpolicyError("api_key: expected one or more printable ASCII characters")
        self.service, self.host, self.port = service, host, port
        self.metrics = Metrics()
        self._key, self._max_message, self._max_clients = api_key, max_message, max_clients
        self._max_batch, self._idle = max_batch, idle_seconds
        self._seeds = itertools.count(seed)
        self._clients = 0
        self._inference: Inference | None = None

    async def serve(self, stop: asyncio.Event, ready: Callable[[], object] = lambda: None) -> None:
        """Serve until `stop` is set. ready: called once clients can connect, when `port` is known.

        Raises:
            SpecpolicyError: the address cannot be listened on.
        """
        self._inference = Inference(self.service, self.metrics, self._max_batch)
        try:
            server = await serve(
                self._handle,
                self.host,
                self.port,
                process_request=self._answer_http,
                origins=[None],  # browsers name their page, robots do not: no web page reaches a server on localhost
                compression=None,  # arrays hardly shrink, and nothing small unfolds into something huge
                max_size=self._max_message,
                max_queue=2,
                server_header=None,
                close_timeout=CLOSING_SECONDS,
                logger=_quiet_logger(),
            )
        except OSError as error:
            self._inference.close()
            reason = error.strerror or str(error)
            raise SpecpolicyError(f"cannot listen on {self.host}:{self.port} ({reason}): choose another port") from None
        try:
            self.port = next(iter(server.sockets)).getsockname()[1]
            ready()
            await stop.wait()
        finally:
            self._inference.close()
            server.close()
            await server.wait_closed()

    def run(self, ready: Callable[[], object] = lambda: None) -> None:
        """Serve until Ctrl-C or SIGTERM, which say goodbye to the clients first. For the main thread."""

        async def until_signal() -> None:
            stop = asyncio.Event()
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
            await self.serve(stop, ready)

        asyncio.run(until_signal())

    def _answer_http(self, connection: ServerConnection, request: HttpRequest) -> Response | None:
        """The answer to a plain HTTP request, or why a client may not connect; None lets it."""
        path = request.path.partition("?")[0]
        if path == "/healthz":
            busy = self._inference.busy_seconds() if self._inference else 0.0
            if busy > HUNG_SECONDS:
                return _text(http.HTTPStatus.SERVICE_UNAVAILABLE, f"inference has not answered for {busy:.0f} s\n")
            return _text(http.HTTPStatus.OK, "OK\n")
        if not self._may_enter(request.headers):
            self.metrics.refused()
            return _text(http.HTTPStatus.UNAUTHORIZED, "wrong or missing key: send 'Authorization: Api-Key KEY'\n")
        if path == "/metrics":
            return _text(http.HTTPStatus.OK, self.metrics.text(), self.metrics.content_type)
        if self._clients >= self._max_clients:
            self.metrics.refused()
            return _text(http.HTTPStatus.SERVICE_UNAVAILABLE, f"{self._clients} clients are connected already\n")
        return None

    def _may_enter(self, headers: Headers) -> bool:
        if self._key is None:
            return True
        given = headers.get_all("Authorization")
        return len(given) == 1 and hmac.compare_digest(given[0].encode(), f"Api-Key {self._key}".encode())

    async def _handle(self, connection: ServerConnection) -> None:
        """The life of one connection."""
        self._clients += 1
        self.metrics.clients(1)
        try:
            await connection.send(pack(self.service.metadata.as_message()))
            session = Session(self.service, self._seeds)
            before: float | None = None
            while (message := await self._receive(connection)) is not None:
                start = time.perf_counter()
                await connection.send(await self._answer(connection, session, message, before))
                before = time.perf_counter() - start
        except ConnectionClosed:
            pass
        except asyncio.CancelledError:  # its request was dropped: the server ends, or the client has left already
            await connection.close(GOING_AWAY, "the server ends")
        finally:
            self._clients -= 1
            self.metrics.clients(-1)

    async def _receive(self, connection: ServerConnection) -> bytes | str | None:
        """The next message; None after a client that has sent nothing for too long was sent away."""
        try:
            return await asyncio.wait_for(connection.recv(), self._idle)
        except TimeoutError:
            await connection.send(f"no request for {self._idle:g} s: connect again when there is one")
            await connection.close(POLICY_VIOLATION, "idle")
            return None

    async def _answer(
        self, connection: ServerConnection, session: Session, message: bytes | str, before: float | None
    ) -> bytes | str:
        """The answer to one message: bytes, or text that says what is wrong with it."""
        assert self._inference is not None
        start = time.perf_counter()
        outcome = "refused"
        try:
            if isinstance(message, str):
                raise SpecpolicyError("expected a binary frame of msgpack, got a text frame")
            request = read_request(unpack(message), self.service.shapes, self.service.n_obs_steps)
            history = session.take(request)
            if history is None:
                outcome = "reset"
                return pack({"reset": True, "server_timing": _timing(start, 0.0, before)})
            outcome = "failed"
            planned = await self._inference.plan(history, session.stream, lambda: connection.state is State.OPEN)
            outcome = "answered"
            chunk = planned.chunk
            return pack(
                {
                    "actions": chunk.actions,
                    "server_timing": _timing(start, planned.waited, before),
                    "policy_timing": {
                        "infer_ms": 1e3 * chunk.seconds,
                        "network_ms": 1e3 * chunk.network_seconds,
                        "calls": chunk.calls,
                        "rows": chunk.rows,
                        "batch": planned.batch,
                    },
                }
            )
        except SpecpolicyError as error:
            return " ".join(str(error).split())
        except asyncio.CancelledError:
            outcome = "dropped"
            raise
        except Exception:
            LOGGER.exception("inference failed")
            return traceback.format_exc()
        finally:
            self.metrics.request(outcome, time.perf_counter() - start)


@contextlib.contextmanager
def in_background(server: PolicyServer) -> Iterator[PolicyServer]:
    """Run a server in a thread of this process while the block lasts: for tests, and for trying things out."""
    loop = asyncio.new_event_loop()
    stop, ready = asyncio.Event(), threading.Event()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            loop.run_until_complete(server.serve(stop, ready.set))
        except BaseException as error:
            errors.append(error)
        finally:
            loop.close()
            ready.set()

    thread = threading.Thread(target=work, name="server", daemon=True)
    thread.start()
    ready.wait()
    try:
        if errors:
            raise errors[0]
        yield server
    finally:
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            loop.call_soon_threadsafe(stop.set)
        thread.join()


def _timing(start: float, waited: float, before: float | None) -> dict[str, float]:
    """Milliseconds: from the message to its answer, those of it in the queue, and all of the answer before."""
    timing = {"infer_ms": 1e3 * (time.perf_counter() - start), "queue_ms": 1e3 * waited}
    return timing if before is None else {**timing, "prev_total_ms": 1e3 * before}


def _text(status: http.HTTPStatus, body: str | bytes, content_type: str = "text/plain; charset=utf-8") -> Response:
    data = body.encode() if isinstance(body, str) else body
    headers = Headers({"Content-Type": content_type, "Content-Length": str(len(data)), "Connection": "close"})
    if status is http.HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Api-Key"
    return Response(status.value, status.phrase, headers, data)


def _quiet_logger() -> logging.Logger:
    """A port scan, a lost connection or a health check are no news; tracebacks of the library are, in debug mode."""
    logger = logging.getLogger("specpolicy.serving.websockets")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.CRITICAL)
    return logger
