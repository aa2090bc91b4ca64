"""Maps each project's names of weights to the names in our own networks. All key maps are here.

A map is a list of (pattern, replacement) for `re.sub` on the whole name, tried in turn. The first match gives our name.
Names without a match are returned separately: a loader decides which of them it may ignore.
"""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from specpolicy.policy.base import ENCODER

Rules = Sequence[tuple[str, str]]

# torch.compile and DataParallel put these into the middle of a name.
WRAPPERS = re.compile(r"(?<![^.])(_orig_mod|module)\.")

# robomimic's VisualCore, also used by Diffusion Policy's hybrid policies. {camera} becomes a number of ours.
# Each weight is there twice, as `backbone.nets...` and inside `nets...`; the second set is ignored.
VISUAL_CORE: Rules = [
    (r"(?P<camera>.+)\.backbone\.nets\.(.+)", ENCODER + r"vision.{camera}.backbone.\2"),
    (r"(?P<camera>.+)\.pool\.nets\.(.+)", ENCODER + r"vision.{camera}.pool.projection.\2"),
    (r"(?P<camera>.+)\.pool\.temperature", ENCODER + r"vision.{camera}.pool.temperature"),
    (r"(?P<camera>.+)\.nets\.3\.(weight|bias)", ENCODER + r"vision.{camera}.linear.\2"),
]
VISUAL_CORE_POSITIONS = r"(.+)\.pool\.pos_[xy]", 1
VISUAL_CORE_IGNORED = re.compile(r".+\.(pool\.pos_[xy]|nets\.[012]\..+)")

UNCHANGED: Rules = [(r"(.+)", r"\1")]

# LeRobot's U-Net: convolution blocks by name in place of a list, bare convolutions for the sampling layers.
LEROBOT_UNET: Rules = [
    (r"(.+)\.conv1\.block\.(.+)", r"\1.blocks.0.block.\2"),
    (r"(.+)\.conv2\.block\.(.+)", r"\1.blocks.1.block.\2"),
    (r"((?:down|up)_modules\.\d+\.2)\.(weight|bias)", r"\1.conv.\2"),
    (r"(.+)", r"\1"),
]
LEROBOT_RGB: Rules = [
    (r"(?P<camera>\d+)\.backbone\.(.+)", ENCODER + r"vision.{camera}.backbone.\2"),
    (r"(?P<camera>\d+)\.pool\.nets\.(.+)", ENCODER + r"vision.{camera}.pool.projection.\2"),
    (r"(?P<camera>\d+)\.out\.(weight|bias)", ENCODER + r"vision.{camera}.linear.\2"),
]
LEROBOT_RGB_POSITIONS = r"(\d+)\.pool\.pos_grid", 2
LEROBOT_RGB_IGNORED = re.compile(r"\d+\.pool\.pos_grid")

# The towers of CLIP in LeRobot's multi_task_dit; transformers before version 5 has one more level in the names.
CLIP: Rules = [
    (r"vision_encoder\.model\.(?:vision_model\.)?(.+)", ENCODER + r"vision.0.tower.\1"),
    (r"vision_encoders\.(?P<camera>\d+)\.model\.(?:vision_model\.)?(.+)", ENCODER + r"vision.{camera}.tower.\2"),
    (r"text_encoder\.text_encoder\.(?:text_model\.)?(.+)", ENCODER + r"language.tower.\1"),
    (r"text_encoder\.projection\.(.+)", ENCODER + r"language.projection.\1"),
]
# What follows the state that is used, and tables of older versions.
CLIP_IGNORED = re.compile(r".+\.(post_layernorm\.(weight|bias)|embeddings\.position_ids)")


def unwrapped(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights without the marks of torch.compile and DataParallel in their names."""
    return {WRAPPERS.sub("", name): value for name, value in weights.items()}


def below(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the weights whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def renamed(
    weights: Mapping[str, Tensor], rules: Rules, cameras: Sequence[str] = ()
) -> tuple[dict[str, Tensor], list[str]]:
    """Return weights under our names, and names without a rule. `cameras`: the keys of images, in our order."""
    ours: dict[str, Tensor] = {}
    unknown = []
    for name, value in weights.items():
        for pattern, replacement in rules:
            match = re.fullmatch(pattern, name)
            if match and "camera" not in match.groupdict():
                ours[match.expand(replacement)] = value
            elif match and match["camera"] in cameras:
                ours[match.expand(replacement).format(camera=cameras.index(match["camera"]))] = value
            else:
                continue
            break
        else:
            unknown.append(name)
    return ours, unknown
