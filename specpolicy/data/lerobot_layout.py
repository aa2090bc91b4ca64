"""Which of our observations make which features of a LeRobot data set."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from specpolicy.data.lerobot_images import feature_of
from specpolicy.data.robomimic_hdf5 import EXECUTED as EXECUTED_OF_PART
from specpolicy.errors import SpecpolicyError

STATE, ENVIRONMENT = "observation.state", "observation.environment_state"
EXECUTED = "executed_action"  # a name beginning with "action" would be one more output of LeRobot's policies
ROBOT_PREFIXES = ("robot", "agent", STATE)
Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Layout:
    """Which observations make which feature.

    Attributes:
        vectors: by feature, {observation: its width}.
        images: by feature, the observation.
    """

    vectors: Mapping[str, Mapping[str, int]]
    images: Mapping[str, str]


def layout_of(part: Path) -> Layout:
    """Assign the observations to features."""
    widths, images = {}, {}
    with h5py.File(part, "r") as file:
        for key, values in file["demo/obs"].items():
            if values.ndim == 4 and values.shape[-1] == 3 and values.dtype == np.uint8:
                images[feature_of(key)] = key
            elif values.ndim == 2:
                widths[key] = int(values.shape[1])
            else:
                raise SpecpolicyError(
                    f"observation '{key}' has shape {values.shape[1:]} and holds {values.dtype}: only vectors and "
                    "images (height, width, 3) of bytes can be written"
                )
    if not widths:
        raise SpecpolicyError("there are images alone: a LeRobot data set has a state beside them")
    robot = {key: width for key, width in widths.items() if key.startswith(ROBOT_PREFIXES)}
    others = {key: width for key, width in widths.items() if key not in robot}
    return Layout({STATE: robot, ENVIRONMENT: others} if robot and others else {STATE: widths}, images)


def parts_of(layout: Layout) -> dict[str, tuple[str, int, int]]:
    """Return {observation: (feature, first entry, entry after the last)}."""
    found = {}
    for feature, widths in layout.vectors.items():
        start = 0
        for key, width in widths.items():
            found[key] = (feature, start, start + width)
            start += width
    return found


def read_frames(part: Path, layout: Layout) -> Columns:
    """Read the frames of one demonstration, without the columns that depend on its place in the data set."""
    with h5py.File(part, "r") as file:
        demo = file["demo"]
        vectors = {
            feature: np.concatenate([demo[f"obs/{key}"][()] for key in widths], axis=1)
            for feature, widths in layout.vectors.items()
        }
        done = demo["dones"][()].astype(bool)
        return {
            **{feature: values.astype(np.float32) for feature, values in vectors.items()},
            **{feature: demo[f"obs/{key}"][()] for feature, key in layout.images.items()},
            "action": demo["actions"][()].astype(np.float32),
            # Attempts that an earlier version has recorded lack it.
            EXECUTED: demo[EXECUTED_OF_PART if EXECUTED_OF_PART in demo else "actions"][()].astype(np.float32),
            "next.reward": demo["rewards"][()].astype(np.float32),
            "next.done": done,
            "next.success": done & bool(demo.attrs["success"]),
        }
