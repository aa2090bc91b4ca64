"""Features of images that were seen lately, so that a frame is encoded once, however often it is part of a history."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

MOST = 128  # frames of one policy: those of several control loops, with several cameras each


class FrameCache:
    """Features by frame, bounded and safe for threads.

    A frame is known by a digest of its bytes, and not by an array's identity. So it is found again wherever histories
    come from (a runner, another process, a client), and an array that was filled anew is another frame. The digest of
    a camera's image takes some microseconds, its encoding milliseconds.
    """

    def __init__(self, most: int = MOST):
        self.most = most
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()  # the one used last at the end
        self._state: Any = None

    def __len__(self) -> int:
        return len(self._kept)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle without the features: another policy, or one in another process, sees its own frames."""
        return type(self), (self.most,)

    def clear(self) -> None:
        """Forget all frames."""
        with self._lock:
            self._kept.clear()

    def features(self, state: Any, name: bytes, make: Callable[[], Tensor]) -> Tensor:
        """Return the features of a frame, made now or before.

        Args:
            state: what features depend on besides the frame, see `state_of`; a change forgets all features.
            name: of the frame, see `frame_name`.
            make: encodes the frame. Two threads that meet may both do it, with the same result.
        """
        with self._lock:
            if state != self._state:
                self._kept.clear()
                self._state = state
            found = self._kept.get(name)
            if found is not None:
                self._kept.move_to_end(name)
                return found
        made = make()
        with self._lock:
            if state == self._state:  # else the weights have changed meanwhile
                self._kept[name] = made
                while len(self._kept) > self.most:
                    self._kept.popitem(last=False)
        return made


def frame_name(key: str, frame: Tensor) -> bytes:
    """Return the name of a frame of a camera: a digest of its bytes, shape and kind.

    `frame`: contiguous, on the CPU.
    """
    digest = hashlib.blake2b(f"{key} {frame.dtype} {tuple(frame.shape)} ".encode(), digest_size=16)
    digest.update(frame.view(torch.uint8).numpy().data)
    return digest.digest()
