"""Time that a control step needs to hand its observation to inference in another process.

    python benchmarks/observation_transfer.py

Prints for each camera size, in ms: `keep`, the copy of the newest frame that every control step makes, as a driver may
reuse its arrays; `stack`, building the history from the frames when a chunk is requested; `submit`, writing into shared
memory; `pipe`, sending the same history through a pipe while the other side reads at once. The last column is `submit`
while the process is stopped (SIGSTOP), where a pipe would block forever.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np

from specpolicy.control import Chunk
from specpolicy.control.process_worker import ProcessWorker

SIZES = ((96, 96), (240, 320), (480, 640), (720, 1280))
FRAMES = 2
REPEATS = 100


class Nothing:
    """A planner that plans nothing, at once."""

    n_obs_steps, n_action_steps = FRAMES, 1

    def reset(self, seed: int) -> None:
        pass

    def plan(self, history: object) -> Chunk:
        return Chunk(np.zeros((1, 1)))


def milliseconds(call: Callable[[], object], after: Callable[[], object] = lambda: None) -> str:
    """Return median and largest time of a call, without the time of `after`."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
        after()
    return f"{np.median(times):.2f} ({max(times):.1f})"


def through_a_pipe(history: dict[str, np.ndarray]) -> str:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    reader = context.Process(target=read, args=(theirs,))
    reader.start()
    ours.recv()
    told = milliseconds(lambda: ours.send(history), ours.recv)
    ours.send(None)
    reader.join()
    return told


def read(connection: Connection) -> None:
    """Read everything that comes, and confirm it."""
    while True:
        connection.send(True)
        if connection.recv() is None:
            return


def measure(height: int, width: int) -> list[str]:
    """Return a line of the table."""
    frame = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    history = {"camera": np.stack([frame] * FRAMES), "state": np.zeros((FRAMES, 9), np.float32)}
    worker = ProcessWorker(Nothing())
    worker.reset(0)
    worker.submit(history)
    worker.result(60.0)
    line = [f"{width}x{height}", f"{history['camera'].nbytes / 2**20:.2f}", milliseconds(frame.copy)]
    line.append(milliseconds(lambda: np.stack([frame] * FRAMES)))
    line.append(milliseconds(lambda: worker.submit(history), lambda: worker.result(60.0)))
    line.append(through_a_pipe(history))
    os.kill(worker._process.pid, signal.SIGSTOP)
    line.append(milliseconds(lambda: worker.submit(history)))
    os.kill(worker._process.pid, signal.SIGCONT)
    worker.close()
    return line


def main() -> None:
    print(f"ms, median (max) of {REPEATS}; {FRAMES} frames of a history")
    print("camera | MiB | keep | stack | submit | pipe | submit, stopped")
    for height, width in SIZES:
        print(" | ".join(measure(height, width)), flush=True)


if __name__ == "__main__":
    main()
