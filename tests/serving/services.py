"""Services that do as they are told, faults included."""

import threading
import time

import numpy as np

from specpolicy.control.chunk import Chunk
from specpolicy.errors import SpecpolicyError
from specpolicy.serving.protocol import Metadata


class Counting:
    """Plans the newest step's number and those after it; the last number of an action is the stream's seed.

    A frame's `step` is (1,). Fault: what to do with a history whose newest step is negative: "raise", "explain",
    "nan", "few". While `gate` is cleared, inference stands still.
    """

    n_obs_steps, shapes = 2, {"step": (1,), "image": (3, 4, 5)}

    def __init__(self, fault=None, length=6):
        self.fault, self.length = fault, length
        self.metadata = Metadata(2, 3, self.shapes, 2, {"sampler": "counting"})
        self.histories, self.batches, self.threads = [], [], set()
        self.gate = threading.Event()
        self.gate.set()

    def begin(self, seed):
        return seed

    def plan(self, histories, streams):
        self.gate.wait(30)
        self.threads.add(threading.current_thread().name)
        self.histories += histories
        self.batches.append(len(histories))
        return [self._chunk(history, stream) for history, stream in zip(histories, streams, strict=True)][
            : 0 if self.fault == "few" else None
        ]

    def _chunk(self, history, stream):
        step = history["step"][-1, 0]
        if step < 0 and self.fault == "raise":
            raise ZeroDivisionError("a service divided by zero")
        if step < 0 and self.fault == "explain":
            raise SpecpolicyError("the policy cannot see negative numbers")
        actions = np.stack([step + np.arange(self.length), np.full(self.length, stream)], axis=1).astype(np.float32)
        if step < 0 and self.fault == "nan":
            actions[1] = np.nan
        return Chunk(actions, seconds=0.02, network_seconds=0.01, calls=3, rows=6, encode_seconds=0.004)


def frame(step):
    """One observation of `Counting`."""
    return {"step": np.array([step], np.float32), "image": np.full((3, 4, 5), 0.5, np.float32)}


def wait_until(condition, seconds=20.0):
    """Wait for something that another thread does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it has not come about"
        time.sleep(0.005)
