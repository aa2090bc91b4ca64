"""Time of encoding the images of a chunk: all frames new or one new frame a camera, by torch and on an engine.

    python benchmarks/encoding.py [engine]

Untrained policies of the size of `policy=unet_image` see two frames of two cameras of 84 x 84 pixels, on one thread.
Prints for each encoder the median ms of an encoding, and of a chunk of the sampler `block` in whose time it is, by
`encode_seconds` and `seconds` of the chunk's statistics; then ms to hand such a history to the inference process.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from specpolicy.control.chunk import Chunk, History
from specpolicy.control.process_worker import ProcessWorker
from specpolicy.policy import DiffusionPolicy

CAMERAS, SIDE, CROP, STEPS = 2, 84, 76, 20
ENCODERS = ("resnet", "small")


def make_policy(encoder: str) -> DiffusionPolicy:
    """Return an untrained policy with an encoder of that kind."""
    torch.manual_seed(0)
    observation: dict[str, Any] = {f"camera_{index}": [3, SIDE, SIDE] for index in range(CAMERAS)} | {"position": 9}
    config = {
        "network": {"kind": "unet", "diffusion_step_embed_dim": 64, "down_dims": [48, 96, 192], "kernel_size": 5},
        "chain": {"train_steps": 100, "steps": 100},
        "observation": observation,
        "action_dim": 7,
        "horizon": 16,
        "n_obs_steps": 2,
        "n_action_steps": 8,
        "normaliser": {key: {"scale": [2.0], "offset": [-1.0]} for key in (*observation, "action")},
        "vision": {"kind": encoder, "crop": [CROP, CROP]},
    }
    return DiffusionPolicy.from_config(config)


def histories() -> list[History]:
    """Return the histories of a loop that asks at every step: each has one new frame."""
    source = np.random.default_rng(0)
    frames: list[Mapping[str, np.ndarray]] = [
        {f"camera_{index}": source.integers(0, 256, (SIDE, SIDE, 3), np.uint8) for index in range(CAMERAS)}
        | {"position": source.normal(size=9)}
        for _ in range(STEPS + 1)
    ]
    return [{key: np.stack([one[key], two[key]]) for key in one} for one, two in itertools.pairwise(frames)]


def measure(policy: DiffusionPolicy, forgetful: bool) -> tuple[float, float]:
    """Return the median ms of an encoding, and of a chunk. `forgetful`: all frames are new."""
    generator, found = torch.Generator().manual_seed(0), []
    for history in histories():
        if forgetful:
            policy.forget_frames()
        stats = policy.predict(history, "block", generator).stats
        found.append((1e3 * stats.encode_seconds, 1e3 * stats.seconds))
    encoding, chunk = zip(*found[2:], strict=True)  # the first ones warm up
    return statistics.median(encoding), statistics.median(chunk)


class Still:
    """A planner that only answers."""

    n_obs_steps, n_action_steps = 2, 1

    def reset(self, seed: int) -> None:
        """Begin an episode."""

    def plan(self, history: History) -> Chunk:
        """Return a chunk of zeros."""
        return Chunk(np.zeros((1, 7)))


def handing_over() -> tuple[float, float]:
    """Return the median ms of `submit`, and from there to the answer of a process that only answers."""
    worker, found = ProcessWorker(Still()), []
    worker.reset(0)
    for history in histories():
        start = time.perf_counter()
        worker.submit(history)
        submitted = time.perf_counter()
        worker.result(60.0)
        found.append((1e3 * (submitted - start), 1e3 * (time.perf_counter() - start)))
    worker.close()
    submit, answer = zip(*found, strict=True)
    return statistics.median(submit), statistics.median(answer)


def main(engine: str = "openvino") -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    print(
        "| encoder | engine | all frames new: encoding | chunk | one new: encoding | chunk |\n|---|---|---|---|---|---|"
    )
    for encoder in ENCODERS:
        policy = make_policy(encoder)
        for run in (policy, policy.with_engine(engine)):
            numbers = [*measure(run, forgetful=True), *measure(run, forgetful=False)]
            print(f"| {encoder} | {run.engine_name} | " + " | ".join(f"{number:.3g}" for number in numbers) + " |")
    print("To the inference process: submit {:.2g} ms, answer after {:.2g} ms".format(*handing_over()))


if __name__ == "__main__":
    main(*sys.argv[1:])
