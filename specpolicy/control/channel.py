"""Messages between the control loop and its inference process that never make the loop wait."""

import collections
import contextlib
import math
import pickle
import select
import socket
import struct
import time
from typing import Any

LENGTH = struct.Struct("!Q")
PIECE = 1 << 18  # bytes read by one system call
MOST_AT_ONCE = 1 << 20  # bytes read in one look at the socket; the rest waits for the next look


class Channel:
    """One end of a socket that carries Python objects, each with its length before it.

    Nothing here waits unless told to. Bytes that the other side does not take yet are kept and sent later. A message
    that arrived in part is kept until the rest arrives. So a process that was suspended in the middle of a message, or
    does not read, delays nobody.
    """

    def __init__(self, ours: socket.socket):
        ours.setblocking(False)
        self._socket = ours
        self._outgoing: collections.deque[memoryview] = collections.deque()
        self._incoming = bytearray()

    def send(self, message: Any) -> None:
        """Send `message`, now as far as the other side takes it. If the other side is gone, receiving reports it."""
        self.send_pickled(pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL))

    def send_pickled(self, message: bytes) -> None:
        """Send an already pickled message."""
        self._outgoing += [memoryview(LENGTH.pack(len(message))), memoryview(message)]
        self._flush()

    def receive(self, seconds: float = 0.0) -> Any:
        """Return the next message, None if it does not arrive within `seconds`. Pending data is sent meanwhile.

        Raises:
            EOFError: the other side is gone, or another thread has closed this one.
        """
        message = self.receive_pickled(seconds)
        return None if message is None else pickle.loads(message)

    def receive_pickled(self, seconds: float = 0.0) -> bytes | None:
        """Receive a message that stays pickled."""
        deadline = time.perf_counter() + seconds
        taken = 0
        while (message := self._complete()) is None:
            left = deadline - time.perf_counter()
            if left <= 0 and taken >= MOST_AT_ONCE:
                return None
            ready = self._wait(max(0.0, left))
            if not ready:
                return None
            if ready & select.POLLOUT:
                self._flush()
            if ready & ~select.POLLOUT:
                taken += self._take_in()
        return message

    def drain(self) -> None:
        """Wait until all data is sent."""
        while self._outgoing:
            self._wait(math.inf)
            self._flush()

    def close(self) -> None:
        """Close this end. The other end notices, and so does a thread that waits at this one."""
        with contextlib.suppress(OSError):  # the other side may have closed it
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _wait(self, seconds: float) -> int:
        """Return the socket events that are wanted and ready; 0 after `seconds`."""
        poll = select.poll()
        if (descriptor := self._socket.fileno()) < 0:
            raise EOFError
        poll.register(descriptor, select.POLLIN | (select.POLLOUT if self._outgoing else 0))
        # Rounded up: a millisecond early would be too early for a deadline.
        events = poll.poll(None if math.isinf(seconds) else math.ceil(1e3 * seconds))
        return events[0][1] if events else 0

    def _flush(self) -> None:
        while self._outgoing:
            try:
                sent = self._socket.send(self._outgoing[0])
            except BlockingIOError:
                return
            except OSError:
                self._outgoing.clear()
                return
            rest = self._outgoing.popleft()[sent:]
            if rest:
                self._outgoing.appendleft(rest)

    def _take_in(self) -> int:
        """Read what has arrived; return the number of bytes."""
        try:
            data = self._socket.recv(PIECE)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""
        if not data:
            raise EOFError
        self._incoming += data
        return len(data)

    def _complete(self) -> bytes | None:
        """Return the first message, if it is complete."""
        if len(self._incoming) < LENGTH.size:
            return None
        end = LENGTH.size + LENGTH.unpack_from(self._incoming)[0]
        if len(self._incoming) < end:
            return None
        message = bytes(memoryview(self._incoming)[LENGTH.size : end])
        del self._incoming[:end]
        return message
