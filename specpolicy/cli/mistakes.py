"""What can be wrong with a verb's settings, each as one line about the user's own words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from specpolicy.cli.groups import SHIPPED, default_groups, load_option, option_names
from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import closest


def _keys(config: Any, prefix: str = "") -> list[str]:
    """Dotted names of every node of a nested mapping."""
    names = []
    if isinstance(config, DictConfig):
        for key in map(str, config):
            names += [f"{prefix}{key}", *_keys(config._get_node(key), f"{prefix}{key}.")]
    return names


def explain(
    error: Exception, verb: str, overrides: list[Override], config_directories: Sequence[Path]
) -> SpecpolicyError:
    """Turn Hydra's complaint into one line about the user's own words."""
    groups = default_groups(verb)
    known = [*groups, *(key for key in _keys(OmegaConf.load(SHIPPED / f"{verb}.yaml")) if key != "defaults")]
    given = {}
    for override in overrides:
        key = override.key_or_group
        given[key] = override.value()
        if key in groups:
            names = option_names(key, config_directories)
            if override.value() not in names:
                hint = closest(str(override.value()), names)
                return SpecpolicyError(f"unknown {key} '{override.value()}'{hint}; known: {', '.join(names)}")
    required = [group for group, option in groups.items() if option is None and group not in given]
    if required:
        names = option_names(required[0], config_directories)
        return SpecpolicyError(f"{required[0]} is required: {required[0]}=<one of {', '.join(names)}>")
    for group, option in groups.items():
        chosen = given.get(group) or option
        if chosen:
            known += _keys(load_option(group, str(chosen), config_directories), f"{group}.")
    for override in overrides:
        key = override.key_or_group
        if key not in known and not override.is_add():
            parent = key.rpartition(".")[0]
            siblings = [name for name in known if name.rpartition(".")[0] == parent]
            hint = closest(key, siblings if parent in known else known)
            if not hint and parent in groups:
                name = key.rpartition(".")[2]
                options = option_names(parent, config_directories)
                having = [one for one in options if name in load_option(parent, one, config_directories)]
                hint = f"; {parent}={having[0]} has it" if having else ""
            if not hint and parent in known:
                hint = f"; to add a key write +{override.input_line}"
            return SpecpolicyError(f"unknown key '{key}'{hint} (specpolicy {verb} --help lists the keys)")
    return SpecpolicyError(" ".join(str(error).splitlines()[:2]))


def check_missing(config: DictConfig, verb: str) -> None:
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise SpecpolicyError(f"{missing[0]} is required: {missing[0]}=... (specpolicy {verb} --help)")


def check_types(config: DictConfig, default: DictConfig, prefix: str) -> None:
    """Compare each value with the type of its default; a default of null accepts anything."""
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
        elif OmegaConf.is_list(standard):
            if not OmegaConf.is_list(value) and value is not None:
                config[key] = [value]  # samplers=ddpm reads as samplers=[ddpm]
        elif isinstance(standard, bool):
            _require(isinstance(value, bool), name, value, "true or false")
        elif isinstance(standard, int):
            _require(isinstance(value, int) and not isinstance(value, bool), name, value, "a whole number")
        elif isinstance(standard, float):
            _require(isinstance(value, int | float) and not isinstance(value, bool), name, value, "a number")
        elif isinstance(standard, str):
            _require(value is not None, name, "null", "a value")


def _require(right: bool, name: str, value: object, wanted: str) -> None:
    if not right:
        raise SpecpolicyError(f"{name}={value}: expected {wanted}")
