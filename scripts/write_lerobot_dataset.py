"""Write a small data set with LeRobot's own code; or load one and take a training step of LeRobot's policy on it.

Needs LeRobot, which requires another numpy than robosuite. Run it in a separate environment, for example

    python -m venv .venv-lerobot && .venv-lerobot/bin/pip install 'lerobot==0.4.4'
    .venv-lerobot/bin/python scripts/write_lerobot_dataset.py write tests/data/lerobot_dataset_v3
    .venv-lerobot/bin/python scripts/write_lerobot_dataset.py load data/lift_lerobot

LeRobot 0.3 writes version 2.1 of the format, 0.4 version 3.0. The stored numbers tell the episode and step they belong
to.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset, LeRobotDatasetMetadata
from lerobot.datasets.utils import dataset_to_policy_features
from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

LENGTHS, HZ = (5, 7, 4), 10
WIDTHS = {"observation.state": 3, "observation.environment_state": 2, "action": 2}


def write(root: Path) -> None:
    """Write three episodes with the numbers step, episode and their sum, as many as an entry is wide."""
    features = {name: {"dtype": "float32", "shape": (width,), "names": None} for name, width in WIDTHS.items()}
    dataset = LeRobotDataset.create("local/steps", HZ, features=features, root=root, use_videos=False)
    for episode, length in enumerate(LENGTHS):
        for step in range(length):
            numbers = np.array([step, 100 + episode, step + episode], np.float32)
            frame = {name: numbers[:width] for name, width in WIDTHS.items()}
            try:
                dataset.add_frame({**frame, "task": "count the steps"})
            except TypeError:  # before 0.4 the task is an argument
                dataset.add_frame(frame, "count the steps")
        dataset.save_episode()
    if hasattr(dataset, "finalize"):
        dataset.finalize()


def load(root: Path) -> None:
    """Load with LeRobot, and compute the loss of its diffusion policy on a batch."""
    metadata = LeRobotDatasetMetadata("local/any", root=root)
    features = dataset_to_policy_features(metadata.features)
    actions = {"action": features["action"]}
    observations = {key: features[key] for key in features if key.startswith("observation")}
    config = DiffusionConfig(
        input_features=observations, output_features=actions, horizon=8, n_action_steps=4, down_dims=(16, 32),
        device="cpu",
    )  # fmt: skip
    times = {key: [step / metadata.fps for step in config.observation_delta_indices] for key in observations}
    times["action"] = [step / metadata.fps for step in config.action_delta_indices]
    dataset = LeRobotDataset("local/any", root=root, delta_timestamps=times)
    batch = next(iter(torch.utils.data.DataLoader(dataset, batch_size=min(16, len(dataset)), shuffle=True)))
    try:
        from lerobot.policies.diffusion.processor_diffusion import make_diffusion_pre_post_processors
    except ImportError:  # before 0.4 the policy itself normalises
        policy = DiffusionPolicy(config, dataset_stats=metadata.stats)
    else:
        policy = DiffusionPolicy(config)
        batch = make_diffusion_pre_post_processors(config, metadata.stats)[0](batch)
    loss, _ = policy.forward(batch)
    loss.backward()
    print(f"{metadata.total_episodes} episodes, {len(dataset)} frames at {metadata.fps} Hz, loss {loss.item():.3f}")
    for key, feature in features.items():
        print(f"{key}: {feature.type.value}, {feature.shape}")


if __name__ == "__main__":
    {"write": write, "load": load}[sys.argv[1]](Path(sys.argv[2]))
