"""A lock for shared buffers: one thread at a time, and on CUDA one stream."""

import contextlib
import threading
from collections.abc import Iterator

import torch


class Turn:
    """A lock that on CUDA also waits for the stream of the previous turn. A turn is over when its work has been
    computed, not when it has been launched."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stream: torch.cuda.Stream | None = None

    @contextlib.contextmanager
    def on(self, device: torch.device) -> Iterator[None]:
        """Take the turn, for work on the current stream of a device."""
        with self._lock:
            if device.type == "cuda":
                current = torch.cuda.current_stream(device)
                if self._stream is not None and self._stream != current:
                    current.wait_stream(self._stream)
                self._stream = current
            yield
