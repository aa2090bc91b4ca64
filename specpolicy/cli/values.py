"""Checks of values: a value has the type of the key's default, and numbers lie within bounds.

Hydra's structured configurations are not enough: they turn '3' into 3 and 3 into true, accept nan and have no bounds. A
setting that was not meant must be refused (tests/cli/test_values.py).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from specpolicy.errors import SpecpolicyError
from specpolicy.parsing.words import LONGEST, one_line

WORDS = {int: "a whole number", float: "a number"}
LARGEST = 2**63  # larger whole numbers fit no tensor and no clock

# Types of keys whose default is null; null itself is always accepted.
KINDS: Mapping[str, type] = {
    **dict.fromkeys(("episodes", "lead", "pad_after", "execute_steps", "threads", "workers"), int),
    **dict.fromkeys(("hz", "inference_timeout"), float),
}
NUMBERS = ("start",)  # a number, or a list of them
NAMES = ("task.observation_keys", "shards")  # a list of names; a single name is accepted
LISTS = ("samplers",)  # the same, of names or mappings
OPTIONAL = ("idle_seconds", "watchdog")  # have another default, and may be null

# (least, most) of numbers that nothing else checks before the work begins.
POSITIVE, COUNT, NOT_NEGATIVE = (math.ulp(0.0), math.inf), (1, math.inf), (0, math.inf)
SEED, THREADS = (0, 2**32 - 1), (1, 4096)
SHARE = (math.ulp(0.0), math.nextafter(1.0, 0.0))
LEARNING = {
    **dict.fromkeys(("chains", "count", "episodes", "training_steps"), COUNT),
    "max_seconds": POSITIVE,
    "seed": SEED,
    "threads": THREADS,
    "workers": NOT_NEGATIVE,
}
RANGES: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "benchmark": {"seed": SEED, "threads": THREADS},
    "calibrate": {
        **LEARNING,
        **dict.fromkeys(("held_out", "invented", "rounds"), NOT_NEGATIVE),
        "held_out_megabytes": POSITIVE,
        "steps": COUNT,
        "student_blocks": (0, 256),
    },
    "collect": {"seed": SEED},
    "control": {
        **dict.fromkeys(("hz", "inference_timeout", "watchdog"), POSITIVE),
        **dict.fromkeys(("delay", "ensemble_decay", "lead", "reconnect", "time_scale", "warm_up"), NOT_NEGATIVE),
        "in_flight": COUNT,
        "seed": SEED,
        "threads": THREADS,
    },
    "evaluate": {"in_flight": COUNT, "seed": SEED},
    "replay": {"episodes": COUNT},
    "rollout": {"max_seconds": POSITIVE, "seed": SEED},
    "serve": {
        "idle_seconds": POSITIVE,
        "max_message_mb": POSITIVE,
        "max_clients": COUNT,
        "port": (0, 65535),
        "seed": SEED,
        "threads": THREADS,
    },
    "train": {
        **dict.fromkeys(("batch_size", "log_every", "rollout_episodes", "save_every", "steps"), COUNT),
        **dict.fromkeys(("pad_after", "rollout_every", "warmup_steps"), NOT_NEGATIVE),
        **dict.fromkeys(("ema_power", "learning_rate", "weight_decay"), NOT_NEGATIVE),
        "rollout_seconds": POSITIVE,
        "seed": SEED,
        "threads": THREADS,
        "validate_every": COUNT,
        "validation": SHARE,
    },
    "train_drafter": {**LEARNING, "down_dims": COUNT},
}


def check_types(config: DictConfig, default: DictConfig, prefix: str = "") -> None:
    """Compare each value with the type of its default; a single value stands for a list of one.

    Raises:
        SpecpolicyError: a value has another type, or a number is not finite.
    """
    for key in map(str, default):
        name = f"{prefix}{key}"
        if key == "defaults" or OmegaConf.is_missing(config, key) or key not in config:
            continue
        if OmegaConf.is_interpolation(config, key):
            continue
        value = config[key]
        if OmegaConf.is_missing(default, key) or OmegaConf.is_interpolation(default, key):
            _require(value is not None, name, "null", "a value")
            continue
        standard = default[key]
        if isinstance(standard, DictConfig):
            _require(isinstance(value, DictConfig), name, value, "a mapping, such as {key: value}")
            check_types(value, standard, f"{name}.")
        elif name in NAMES:
            if value is None:  # all that exist
                continue
            names = list(value) if OmegaConf.is_list(value) else [value]
            _require(all(isinstance(one, str) for one in names), name, value, "a list of names")
            config[key] = names
        elif OmegaConf.is_list(standard):
            _require(value is not None, name, "null", "a list")
            if not OmegaConf.is_list(value):
                config[key] = [value]  # samplers=ddpm means samplers=[ddpm]
            if not prefix:  # keys of groups are checked where they are used
                _check_entries(config[key], standard, name)
        elif value is None and (standard is None or name in OPTIONAL):
            continue
        elif name in LISTS:
            config[key] = value if OmegaConf.is_list(value) else [value]
            _check_entries(config[key], (), name)
        elif name in NUMBERS:
            for one in value if OmegaConf.is_list(value) else [value]:
                _require(_is(one, float), name, value, "a number, or a list of them")
        elif standard is not None or name in KINDS:
            _check_plain(value, KINDS.get(name) or type(standard), name)


def check_ranges(config: DictConfig, verb: str) -> None:
    """Check the numbers that nothing else checks before the work begins.

    Raises:
        SpecpolicyError: a number is too small or too large.
    """
    for name, (least, most) in RANGES.get(verb, {}).items():
        value = config[name]
        for one in value if OmegaConf.is_list(value) else [value]:
            if one is not None and not least <= one <= most:
                _require(False, name, value, _range(least, most))


def _check_plain(value: Any, kind: type, name: str) -> None:
    if kind is bool:
        _require(isinstance(value, bool), name, value, "true or false")
    elif kind in WORDS:
        _require(
            _is(value, kind),
            name,
            value,
            "a finite number" if isinstance(value, float) and kind is float else WORDS[kind],
        )
    elif kind is str:
        _require(value is not None, name, "null", "a value")
        _require(not OmegaConf.is_config(value), name, value, "a single value")


def _check_entries(values: Sequence[Any], standard: Sequence[Any], name: str) -> None:
    """Check a list's entries: whole numbers if the default's are, else names or mappings that hold one."""
    whole = len(standard) > 0 and isinstance(standard[0], int)
    for value in values:
        if whole:
            _require(_is(value, int), name, values, "a list of whole numbers")
        else:
            _require(value is not None and not OmegaConf.is_list(value), name, values, "a list of names")


def _is(value: Any, kind: type) -> bool:
    """Whether a value is a number of this type; whole numbers also count as float."""
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return abs(value) < LARGEST
    return kind is float and isinstance(value, float) and math.isfinite(value)


def _range(least: float, most: float) -> str:
    if (least, most) == SHARE:
        return "a share between 0 and 1"
    if least not in (0, 1):
        return "a positive number"
    return f"at least {'one' if least else 0}" + (f" and at most {most}" if most < math.inf else "")


def _require(right: bool, name: str, value: object, wanted: str) -> None:
    if not right:
        raise SpecpolicyError(f"{name}={one_line(value, LONGEST)}: expected {wanted}")
