"""Time of a training step of an image policy: its encoder, its precision, and how many images that makes a second.

    python benchmarks/image_training.py [threads]

One camera, 84 x 84 cropped to 76 x 76, two frames a window, 64 windows a step, random images in memory: no files are
read. Prints for each encoder and precision the parameters that see, ms a step (the best of five) and images a second.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from specpolicy.cli.configuration import load_option
from specpolicy.data.episodes import Episode, cut
from specpolicy.data.frames import Frames, Source
from specpolicy.parsing import parse
from specpolicy.policy.config import PolicyOptions
from specpolicy.training import TrainingOptions
from specpolicy.training.batches import Batches
from specpolicy.training.learner import Learner
from specpolicy.training.new_policy import new_policy

SIZE, LENGTH, WINDOWS, STEPS = (84, 84, 3), 128, 64, 5


class Noise(Source):
    """Random images, in memory."""

    def open(self) -> np.ndarray:
        """See `Source.open`."""
        return np.random.default_rng(0).integers(0, 256, (LENGTH, *SIZE), np.uint8)

    def read(self, where: str, steps: np.ndarray) -> np.ndarray:
        """See `Source.read`."""
        return self.opened[steps]


def main() -> None:
    """Print the table."""
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    torch.set_num_threads(threads)
    source = np.random.default_rng(1)
    seen = {
        "position": source.normal(size=(LENGTH, 2)).astype(np.float32),
        "top_image": Frames(Noise(), "", np.arange(LENGTH), SIZE),
    }
    windows = cut([Episode(source.normal(size=(LENGTH, 2)).astype(np.float32), seen)], 2, 16)
    print("| encoder | precision | parameters | ms a step | images a second |\n|---|---|---|---|---|")
    for kind in ("small", "resnet"):
        config: Any = OmegaConf.to_container(load_option("policy", "unet_image"))
        config["vision"]["kind"] = kind
        policy = new_policy(parse(PolicyOptions, config, "unet_image"), windows, {"name": "noise"})
        count = sum(one.numel() for one in policy.encoder.parameters())
        for precision in ("float32", "bfloat16"):
            options = TrainingOptions(steps=STEPS, batch_size=WINDOWS, precision=precision)
            batches = Batches(policy, windows)
            learner = Learner(policy, batches.objective, precision == "bfloat16", options.colour_jitter)
            times = []
            for passes in batches.steps(options, 0):
                start = time.perf_counter()
                learner(*passes[0]).backward()
                times.append(time.perf_counter() - start)
            best = min(times)
            print(f"| {kind} | {precision} | {count / 1e6:.2f} M | {1e3 * best:.0f} | {2 * WINDOWS / best:.0f} |")


if __name__ == "__main__":
    main()
