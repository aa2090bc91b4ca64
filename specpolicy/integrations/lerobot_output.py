"""Which policy in an output directory of lerobot-train is the one that LeRobot evaluates.

A training writes `checkpoints/<step>/pretrained_model`, and `checkpoints/last` leads to the newest step. Trained with
`--ema.enable` (LeRobot after 0.6.1), a checkpoint also holds `pretrained_model_ema` with the averaged weights. They are
the ones that LeRobot's own evaluation during training takes, unless `ema.use_for_eval` is false, and those that its
documentation evaluates afterwards. A path that leads to one of the two is taken as it is.
"""

from collections.abc import Iterator
from pathlib import Path

from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import read_json, shown

RAW, AVERAGED = "pretrained_model", "pretrained_model_ema"
TRAINING = "train_config.json"


def trained_by_lerobot(path: Path) -> Iterator[Path]:
    """Directories in which the policy of a checkpoint, or of a whole output directory, is to be looked for, in turn."""
    for checkpoint in (path, path / "checkpoints" / "last"):
        averaged, raw = checkpoint / AVERAGED, checkpoint / RAW
        if averaged.is_dir() and (not raw.is_dir() or _evaluates_averaged(averaged)):
            yield averaged
        else:
            yield raw


def _evaluates_averaged(directory: Path) -> bool:
    """What the training said of its evaluation; LeRobot's default where it said nothing."""
    if not (directory / TRAINING).exists():
        return True
    settings = read_json(directory / TRAINING).get("ema")
    if settings is None:
        return True
    value = settings.get("use_for_eval", True) if isinstance(settings, dict) else settings
    if not isinstance(value, bool):
        raise SpecpolicyError(f"{directory / TRAINING}: 'ema.use_for_eval' is {shown(value)}: it must be true or false")
    return value
