"""The server: openpi's protocol over websockets, with `/healthz` and `/metrics` on the same port.

The event loop only moves messages. Inference has its own thread, and so has the reading of large messages. The answer
to a bad message is a text frame of one line to that client; no other client notices.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http
import itertools
import logging
import math
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response
from websockets.protocol import State

from specpolicy.errors import SpecpolicyError
from specpolicy.serving.codec import pack, unpack
from specpolicy.serving.door import HANDSHAKE_SECONDS, Door, Visitor
from specpolicy.serving.inference import Inference, InferenceEnded
from specpolicy.serving.lines import close_reason, one_line, without_places
from specpolicy.serving.metrics import Metrics
from specpolicy.serving.pages import page, quiet_logger
from specpolicy.serving.protocol import PORT, Request, answer_message, read_request, request_limits, timing
from specpolicy.serving.scan import ProtocolError
from specpolicy.serving.service import Service
from specpolicy.serving.session import Session

LOGGER = logging.getLogger("specpolicy.serving")
LOOPBACK = "127.0.0.1"
HUNG_SECONDS = 30.0  # a batch that takes longer makes /healthz report trouble
SENDING_SECONDS = 10.0  # in which a client must take an answer; one that never reads loses its place
CLOSING_SECONDS = 2.0  # for clients to say goodbye
WATCH_SECONDS = 0.25  # between checks of the inference thread
FAREWELL_SECONDS = 3.0  # for which a server without inference says so before it ends
USUAL_MESSAGE = 16 * 2**20  # bytes of the largest accepted message, unless the policy sees more
SPARE = 2**20  # bytes of what a message may have beside an observation
AT_ONCE = 8192  # bytes of a message that is read in the event loop: a few milliseconds at worst
POLICY_VIOLATION, GOING_AWAY, INTERNAL_ERROR = 1008, 1001, 1011  # close codes of RFC 6455


class PolicyServer:
    """Serves a policy to several clients at once.

    Args:
        service: plans the chunks, see `PolicyService`.
        host: the address to listen on; the default is reachable from this machine alone, "0.0.0.0" from any machine.
        port: 0 lets the system choose one; `port` says which.
        api_key: clients must send it as `Authorization: Api-Key ...`; None for no key.
        max_message: bytes of the largest accepted message; None: 16 MiB, or what an observation of the policy takes.
        max_clients: connections at a time.
        max_batch: most requests planned together.
        idle_seconds: a client without a request for this long is told so and disconnected; None for any time.
        seed: of the episodes whose clients send none.

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
        max_message: int | None = None,
        max_clients: int = 64,
        max_batch: int = 8,
        idle_seconds: float | None = 600.0,
        seed: int = 0,
    ):
        for name, value in (("max_message", max_message), ("max_clients", max_clients), ("max_batch", max_batch)):
            if value is not None and value < 1:
                raise SpecpolicyError(f"{name}={value}: expected at least one")
        if idle_seconds is not None and idle_seconds <= 0:
            raise SpecpolicyError(f"idle_seconds={idle_seconds}: expected a positive number")
        if not host:  # an empty host would mean every address
            raise SpecpolicyError("host is empty: name an address, 0.0.0.0 for all")
        if not 0 <= port < 65536:
            raise SpecpolicyError(f"port={port}: expected 0 to 65535")
        if api_key is not None and not (api_key and api_key.isascii() and api_key.isprintable()):
            raise SpecpolicyError("api_key: expected one or more printable ASCII characters")
        self.service, self.host, self.port = service, host, port
        self.metrics = Metrics()
        self._door = Door(self.metrics, max_clients, api_key)
        self._limits = request_limits(service.shapes, service.n_obs_steps)
        self._max_message = _message_limit(service, max_message)
        self._max_batch, self._idle = max_batch, idle_seconds
        self._seeds = itertools.count(seed)
        self._readers: ThreadPoolExecutor | None = None
        self._inference: Inference | None = None

    async def serve(self, stop: asyncio.Event, ready: Callable[[], object] = lambda: None) -> None:
        """Serve until `stop` is set. `ready` is called once clients can connect, when `port` is known.

        Raises:
            InferenceEnded: inference cannot go on. Waiting clients have been told, and `/healthz` has been 503 for
                `FAREWELL_SECONDS`.
            SpecpolicyError: the server cannot listen on the address.
        """
        self._inference = Inference(self.service, self.metrics, self._max_batch)
        try:
            server = await serve(
                self._handle,
                self.host,
                self.port,
                process_request=self._answer_http,
                create_connection=cast(Any, functools.partial(Visitor, door=self._door)),
                open_timeout=HANDSHAKE_SECONDS,
                origins=[None],  # browsers name their page, robots do not: no web page can use a server on localhost
                compression=None,  # arrays hardly shrink, and no small message can unfold into a huge one
                max_size=self._max_message,
                max_queue=2,
                server_header=None,
                close_timeout=CLOSING_SECONDS,
                logger=quiet_logger(),
            )
        except OSError as error:
            self._inference.close()
            reason = error.strerror or str(error)
            raise SpecpolicyError(
                f"cannot listen on {self.host}:{self.port} ({reason}): choose another host or port"
            ) from None
        self._readers = ThreadPoolExecutor(2, "reader")
        try:
            self.port = next(iter(server.sockets)).getsockname()[1]
            ready()
            await self._until(stop, self._inference)
        finally:
            self._inference.close()
            self._readers.shutdown(wait=False, cancel_futures=True)
            server.close()
            await server.wait_closed()

    async def _until(self, stop: asyncio.Event, inference: Inference) -> None:
        """Wait for `stop`, or for the end of inference, which ends the server."""
        while not stop.is_set():
            if not inference.alive:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), FAREWELL_SECONDS)
                raise InferenceEnded("inference has ended: the log says why. Start the server again")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), WATCH_SECONDS)

    def run(self, ready: Callable[[], object] = lambda: None) -> None:
        """Serve until Ctrl-C or SIGTERM, then say goodbye to the clients. For the main thread.

        Raises:
            SpecpolicyError: as `serve`.
        """

        async def until_signal() -> None:
            stop = asyncio.Event()
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
            await self.serve(stop, ready)

        asyncio.run(until_signal())

    def _answer_http(self, connection: ServerConnection, request: HttpRequest) -> Response | None:
        """Answer a plain HTTP request, or refuse a client; None lets the client connect."""
        path = request.path.partition("?")[0]
        if path == "/healthz":
            trouble = self._trouble()
            status = http.HTTPStatus.OK if trouble is None else http.HTTPStatus.SERVICE_UNAVAILABLE
            return page(status, f"{trouble or 'OK'}\n")
        if not self._door.knows(request.headers):
            self.metrics.refused()
            return page(http.HTTPStatus.UNAUTHORIZED, "wrong or missing key: send 'Authorization: Api-Key KEY'\n")
        if path == "/metrics":
            return page(http.HTTPStatus.OK, self.metrics.text(), self.metrics.content_type)
        if not self._door.enter(connection):
            self.metrics.refused()
            return page(http.HTTPStatus.SERVICE_UNAVAILABLE, f"{self._door.most} clients are connected already\n")
        return None

    def _trouble(self) -> str | None:
        """Return the reason why requests cannot be answered; None if they can."""
        if self._inference is None or not self._inference.alive:
            return "inference has ended"
        busy = self._inference.busy_seconds()
        return f"inference has not answered for {busy:.0f} s" if busy > HUNG_SECONDS else None

    async def _handle(self, connection: ServerConnection) -> None:
        """Serve one connection until it ends."""
        try:
            await _send(connection, pack(self.service.metadata.as_message()))
            session = Session(self.service, self._seeds)
            before: float | None = None
            while (message := await self._receive(connection)) is not None:
                start = time.perf_counter()
                await _send(connection, await self._answer(connection, session, message, before))
                before = time.perf_counter() - start
        except ConnectionClosed:
            pass
        except InferenceEnded as error:  # no answer to this request, but the end of the server: it may come back
            await connection.close(INTERNAL_ERROR, close_reason(without_places(error)))
        except asyncio.CancelledError:  # its request was dropped: the server ends, or the client has left already
            await connection.close(GOING_AWAY, "the server ends")

    async def _receive(self, connection: ServerConnection) -> bytes | str | None:
        """Return the next message. Disconnect a client that has sent nothing for too long, and return None."""
        try:
            return await asyncio.wait_for(connection.recv(), self._idle)
        except TimeoutError:
            await _send(connection, f"no request for {self._idle:g} s: connect again when there is one")
            await connection.close(POLICY_VIOLATION, "idle")
            return None

    async def _answer(
        self, connection: ServerConnection, session: Session, message: bytes | str, before: float | None
    ) -> bytes | str:
        """Answer one message: bytes, or a text that describes its error. The end of inference is raised."""
        assert self._inference is not None
        start = time.perf_counter()
        outcome = "refused"
        try:
            request = await self._read(message)
            history = session.take(request)
            if history is None:
                outcome = "reset"
                return pack({"reset": True, "server_timing": timing(start, 0.0, before)})
            outcome = "failed"
            planned = await self._inference.plan(
                history, session.stream, lambda: connection.state is State.OPEN, request.committed
            )
            session.keep()
            answer = pack(answer_message(planned.chunk, planned.batch, timing(start, planned.waited, before)))
            outcome = "answered"
            return answer
        except ProtocolError as error:  # the client's own message is at fault
            return one_line(str(error))
        except InferenceEnded:
            raise
        except SpecpolicyError as error:
            return without_places(error)
        except asyncio.CancelledError:
            outcome = "dropped"
            raise
        except Exception as error:
            LOGGER.exception("a request failed")
            return one_line(f"this request failed: {type(error).__name__}: {without_places(error)}")
        finally:
            self.metrics.request(outcome, time.perf_counter() - start)

    async def _read(self, message: bytes | str) -> Request:
        """Check a message. A large one is read outside the event loop, because it may take a while to be refused."""
        if isinstance(message, str):
            raise ProtocolError("expected a binary frame of msgpack, got a text frame")
        if len(message) <= AT_ONCE:
            return self._parse(message)
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._parse, message)

    def _parse(self, message: bytes) -> Request:
        return read_request(unpack(message, self._limits), self.service.shapes, self.service.n_obs_steps)


async def _send(connection: ServerConnection, message: bytes | str) -> None:
    """Send a message to a client; close the socket of one that does not take it."""
    try:
        async with asyncio.timeout(SENDING_SECONDS):
            await connection.send(message)
    except TimeoutError:
        connection.transport.abort()
        await connection.wait_closed()


def _message_limit(service: Service, given: int | None) -> int:
    """Return the bytes of the largest accepted message.

    Raises:
        SpecpolicyError: an observation of the policy is larger than the given limit, its images as bytes.
    """
    numbers = service.n_obs_steps * sum(math.prod(shape) for shape in service.shapes.values())
    least = service.n_obs_steps * sum(math.prod(one) * (1 if len(one) == 3 else 4) for one in service.shapes.values())
    if given is None:
        return max(USUAL_MESSAGE, 4 * numbers + SPARE)
    if given < least:
        raise SpecpolicyError(
            f"an observation of this policy takes {least} bytes, the largest accepted message is {given}: "
            "set max_message_mb higher"
        )
    return given
