"""Admission of clients: the number of sockets in a handshake, the number of clients inside, and the key."""

from __future__ import annotations

import asyncio
import hmac
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers

from specpolicy.serving.metrics import Metrics

HANDSHAKE_SECONDS = 5.0  # from a socket's opening to the end of its handshake
MOST_WAITING = 256


class Door:
    """Counts sockets from their opening, so that silent ones take nothing from others.

    Sockets in a handshake are few and short-lived. Each has `HANDSHAKE_SECONDS`. When there are more than four for each
    client that may come in, the oldest makes room; an honest client is the oldest for a round trip at most.

    Args:
        metrics: receives the figures.
        most: largest number of clients inside.
        key: clients must send it as `Authorization: Api-Key ...`; None for no key.
    """

    def __init__(self, metrics: Metrics, most: int, key: str | None = None):
        self._metrics, self.most, self._key = metrics, most, key
        self._most_waiting = min(MOST_WAITING, max(16, 4 * most))
        self._waiting: dict[Visitor, None] = {}  # in order of arrival
        self._inside: set[Visitor] = set()

    def knows(self, headers: Headers) -> bool:
        """Whether a request has the key."""
        if self._key is None:
            return True
        given = headers.get_all("Authorization")
        return len(given) == 1 and hmac.compare_digest(given[0].encode(), f"Api-Key {self._key}".encode())

    def enter(self, visitor: ServerConnection) -> bool:
        """Admit a client whose handshake is being answered; return False if all places are taken."""
        assert isinstance(visitor, Visitor)
        if len(self._inside) >= self.most:
            return False
        self._waiting.pop(visitor, None)
        self._inside.add(visitor)
        self._metrics.clients(1)
        return True

    def arrived(self, visitor: Visitor) -> None:
        """Record that a socket has been opened."""
        self._waiting[visitor] = None
        if len(self._waiting) > self._most_waiting:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            oldest.transport.abort()
            self._metrics.refused()

    def left(self, visitor: Visitor) -> None:
        """Record that a socket has been closed."""
        self._waiting.pop(visitor, None)
        if visitor in self._inside:
            self._inside.remove(visitor)
            self._metrics.clients(-1)


class Visitor(ServerConnection):
    """A connection that is counted while its socket is open."""

    def __init__(self, *arguments: Any, door: Door, **options: Any):
        super().__init__(*arguments, **options)
        self._door = door

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._door.arrived(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._door.left(self)
        super().connection_lost(exc)
