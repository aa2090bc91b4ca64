"""A task that only who looks can learn: the action is where a bright square is in the image."""

import h5py
import numpy as np

from specpolicy.data.dataset import load_sequences

SIDE, CROP, EPISODES, LENGTH = 32, 28, 40, 6
KEYS = ["still", "top_image"]
CONFIG = {
    "name": "toy_image",
    "network": {"kind": "unet", "diffusion_step_embed_dim": 16, "down_dims": [16, 32], "kernel_size": 3},
    "chain": {"train_steps": 20, "steps": 20, "prediction": "sample"},
    "horizon": 4,
    "n_obs_steps": 2,
    "n_action_steps": 2,
    "vision": {"kind": "small", "widths": [16, 32, 32], "keypoints": 8, "features": 16, "crop": [CROP, CROP]},
}


def write(path, episodes=EPISODES, seed=0):
    """Write demonstrations as robomimic has them; in each the square stays where it is, and the vector says nothing."""
    source = np.random.default_rng(seed)
    with h5py.File(path, "w") as file:
        for number in range(episodes):
            place = source.integers(3, SIDE - 8, 2)
            images = source.integers(0, 60, (LENGTH, SIDE, SIDE, 3), np.uint8)
            images[:, place[0] : place[0] + 5, place[1] : place[1] + 5] = 255
            group = file.create_group(f"data/demo_{number}")
            group.attrs["num_samples"] = LENGTH
            group["actions"] = np.tile(place / SIDE, (LENGTH, 1))
            group["obs/still"] = source.normal(size=(LENGTH, 1))
            group.create_dataset("obs/top_image", data=images, chunks=(1, SIDE, SIDE, 3), compression="gzip")
        names = [f"demo_{number}".encode() for number in range(episodes)]
        file["mask/train"], file["mask/valid"] = np.array(names[4:]), np.array(names[:4])
    return path


def read(path, keys=KEYS):
    """Return windows for training and for validation."""
    return tuple(load_sequences(path, keys, 2, 4, split) for split in ("train", "valid"))
