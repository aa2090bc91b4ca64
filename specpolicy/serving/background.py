"""Runs a policy server beside other work of this process."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator

from specpolicy.serving.server import PolicyServer


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
