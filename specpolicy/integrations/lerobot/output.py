"""Finds the policy that LeRobot evaluates in an output directory of lerobot-train.

A training writes `checkpoints/<step>/pretrained_model`, and `checkpoints/last` leads to the newest step. With
`--ema.enable` (LeRobot after 0.6.1), a checkpoint also holds `pretrained_model_ema` with the averaged weights.
LeRobot's own evaluation during training uses them, unless `ema.use_for_eval` is false, and its documentation evaluates
them afterwards. A path to one of the two is used as given.
"""

from collections.abc import Iterator
from pathlib import Path

from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import read_json, shown

RAW, AVERAGED = "pretrained_model", "pretrained_model_ema"
TRAINING = "train_config.json"


def trained_by_lerobot(path: Path) -> Iterator[Path]:
    """Yield directories that may hold the policy of a checkpoint, or of a whole output directory, in order."""
    for checkpoint in (path, path / "checkpoints" / "last"):
        averaged, raw = checkpoint / AVERAGED, checkpoint / RAW
        if averaged.is_dir() and (not raw.is_dir() or _evaluates_averaged(averaged)):
            yield averaged
        else:
            yield raw


def _evaluates_averaged(directory: Path) -> bool:
    """Whether the training evaluated averaged weights; LeRobot's default if the configuration does not say."""
    if not (directory / TRAINING).exists():
        return True
    settings = read_json(directory / TRAINING).get("ema")
    if settings is None:
        return True
    value = settings.get("use_for_eval", True) if isinstance(settings, dict) else settings
    if not isinstance(value, bool):
        raise SpecpolicyError(f"{directory / TRAINING}: 'ema.use_for_eval' is {shown(value)}: it must be true or false")
    return value
