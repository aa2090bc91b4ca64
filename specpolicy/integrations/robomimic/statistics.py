"""Statistics in robomimic's checkpoints, by which observations and actions are normalised."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from specpolicy.errors import SpecpolicyError
from specpolicy.integrations.interpolation import Config
from specpolicy.integrations.robomimic.settings import ActionFormat
from specpolicy.integrations.unpickling import plain
from specpolicy.parsing import parse
from specpolicy.policy.config import SIX

ROTATIONS = {"rot_axis_angle": "axis_angle", "rot_euler": "euler_xyz"}


def observation_statistics(
    content: Mapping[str, Any], cfg: Config, observation: Mapping[str, Any], path: Path
) -> dict[str, Any]:
    """Return our normaliser of each observation key: its statistics, or none where the checkpoint has none."""
    found = content.get("obs_normalization_stats") or {}
    if not found and cfg.get("train.hdf5_normalize_obs", False):
        raise SpecpolicyError(f"{path} lacks obs_normalization_stats, though train.hdf5_normalize_obs is true")
    normaliser = {}
    for key, shape in observation.items():
        length = shape if isinstance(shape, int) else 1
        normaliser[key] = {"scale": [1.0] * length, "offset": [0.0] * length}
        if not found:
            continue
        if key not in found:
            raise SpecpolicyError(f"{path}: obs_normalization_stats lacks '{key}'")
        if not isinstance(shape, int):
            raise SpecpolicyError(f"{path} normalises the images '{key}' by statistics, which is not supported")
        try:
            normaliser[key] = _statistics(found[key])
        except (KeyError, ValueError, TypeError, ZeroDivisionError) as error:
            raise SpecpolicyError(f"{path}: obs_normalization_stats of '{key}' are not understood ({error})") from None
    return normaliser


def action_statistics(
    content: Mapping[str, Any], cfg: Config, action_dim: int, path: Path
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return statistics of the whole action vector, and {index: rotation} of the parts converted at run time."""
    found = content.get("action_normalization_stats")
    identity: dict[str, Any] = {"scale": [1.0] * action_dim, "offset": [0.0] * action_dim, "shift": [0.0] * action_dim}
    given = cfg.get("train.action_config") or {}
    keys = parse(tuple[str, ...], cfg.get("train.action_keys") or list(found or given), path, "train.action_keys")
    # Entries for other parts of an action, which the data may have, do not matter.
    given = {key: value for key, value in given.items() if key in keys}
    formats = parse(dict[str, ActionFormat], given, path, "train.action_config")
    if not found:  # robomimic then converts nothing
        if any(format.format == "rot_6d" for format in formats.values()):
            raise SpecpolicyError(f"{path} lacks action_normalization_stats, though train.action_config has a format")
        return identity, {}
    total: dict[str, list[float]] = {"scale": [], "offset": [], "shift": []}
    rotations: dict[str, str] = {}
    for key in keys:
        try:
            statistics = _statistics(found[key])
        except (KeyError, ValueError, TypeError, ZeroDivisionError) as error:
            raise SpecpolicyError(
                f"{path}: action_normalization_stats of '{key}' are not understood ({error})"
            ) from None
        entry = formats.get(key, ActionFormat())
        if entry.format == "rot_6d":
            target = entry.convert_at_runtime or "rot_axis_angle"
            if target not in ROTATIONS:
                raise SpecpolicyError(f"{path}: the rotation format '{target}' is not supported")
            if len(statistics["scale"]) != SIX:
                raise SpecpolicyError(f"{path}: '{key}' is rot_6d and has {len(statistics['scale'])} numbers")
            rotations[str(len(total["scale"]))] = ROTATIONS[target]
        for name, values in total.items():
            values += statistics[name]
    if len(total["scale"]) != action_dim:
        raise SpecpolicyError(
            f"{path}: its network plans {action_dim} numbers, {', '.join(keys)} have {len(total['scale'])}"
        )
    return total, rotations


def _statistics(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the statistics: raw = scale * normalised + offset, or mean and std in older files, with a leading axis of
    one."""
    offset, scale = (entry[name] for name in (("offset", "scale") if "offset" in entry else ("mean", "std")))
    (shift,), (width,) = plain(offset), plain(scale)
    if len(shift) != len(width):
        raise ValueError(f"{len(shift)} and {len(width)} numbers")
    return {"scale": [1 / value for value in width], "offset": [0.0] * len(width), "shift": shift}
