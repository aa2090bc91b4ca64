"""Errors in a verb's settings, each as one line in terms of what the user wrote."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from specpolicy.cli.groups import REQUIRED, SHIPPED, default_groups, load_option, option_names, shorthand
from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import closest


def _keys(config: Any, prefix: str = "") -> list[str]:
    """Return the dotted names of all nodes of a nested mapping."""
    names = []
    if isinstance(config, DictConfig):
        for key in map(str, config):
            names += [f"{prefix}{key}", *_keys(config._get_node(key), f"{prefix}{key}.")]
    return names


def explain(
    error: Exception,
    verb: str,
    overrides: list[Override],
    config_directories: Sequence[Path],
    loader: ConfigLoader,
) -> SpecpolicyError:
    """Turn Hydra's error into one line in terms of what the user wrote."""
    groups = default_groups(verb)
    known = [*groups, *(key for key in _keys(OmegaConf.load(SHIPPED / f"{verb}.yaml")) if key != "defaults")]
    given = {override.key_or_group: override.value() for override in overrides if not override.is_sweep_override()}
    for key, value in given.items():
        names = option_names(key, config_directories) if key in groups else []
        if key.startswith("hydra/"):
            names = loader.get_group_options(key)
        if names and value is not None and value not in names and not _short(key, str(value), names):
            others = "; others come with packages, such as hydra-joblib-launcher" if key == "hydra/launcher" else ""
            return SpecpolicyError(
                f"unknown {key} '{value}'{closest(str(value), names)}; known: {', '.join(names)}{others}"
            )
    choices = {group: given.get(group, option) for group, option in groups.items()}
    check_chosen(groups, choices, OmegaConf.create(), overrides, config_directories)
    named = {override.key_or_group for override in overrides}
    required = [group for group, option in groups.items() if option == REQUIRED and group not in named]
    if required:
        names = option_names(required[0], config_directories)
        return SpecpolicyError(f"{required[0]} is required: {required[0]}=<one of {', '.join(names)}>")
    for group, option in groups.items():
        chosen = given.get(group) or option
        if chosen and chosen != REQUIRED:
            known += _keys(load_option(group, str(chosen), config_directories), f"{group}.")
    for override in overrides:
        key = override.key_or_group
        if key.startswith("hydra.") and not override.is_add():
            names = ["hydra", *_keys(OmegaConf.structured(HydraConf), "hydra.")]
            parts = key.split(".")
            ways = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
            if wrong := [way for way in ways[:3] if way not in names and way.rpartition(".")[0] not in OPEN]:
                hint = f"{closest(wrong[0], names)} (specpolicy {verb} --cfg hydra lists them)"
                return SpecpolicyError(f"unknown key '{key}'{hint}")
            continue
        if key not in known and not override.is_add() and not key.startswith("hydra/"):
            parent = key.rpartition(".")[0]
            siblings = [name for name in known if name.rpartition(".")[0] == parent]
            hint = closest(key, siblings if parent in known else known)
            if not hint and parent in groups:
                name = key.rpartition(".")[2]
                options = option_names(parent, config_directories)
                having = [one for one in options if name in load_option(parent, one, config_directories)]
                hint = f"; {parent}={having[0]} has it" if having else ""
            # A policy's and a sampler's yaml name all that there is; a part of them that is null there takes keys, too.
            inside = parent.partition(".")[0] in ELSEWHERE and not siblings
            open_mapping = parent.endswith((".kwargs", ".rename", ".config")) or inside
            if not hint and parent in known and open_mapping:
                hint = f"; to add a key write +{override.input_line}"
            return SpecpolicyError(f"unknown key '{key}'{hint} (specpolicy {verb} --help lists the keys)")
    return SpecpolicyError(" ".join(str(error).splitlines()[:2]))


def check_chosen(
    groups: Mapping[str, str | None],
    choices: Mapping[str, Any],
    config: DictConfig,
    overrides: Sequence[Override],
    config_directories: Sequence[Path | str],
) -> None:
    """Refuse keys of a group of which nothing is chosen, and null where a choice is required.

    Args:
        groups: the verb's groups, with their defaults.
        choices: the option chosen in each group.
        config: the composed configuration.
        overrides: the settings of the command line.
        config_directories: directories with more options.

    Raises:
        SpecpolicyError: for example sampler.steps=4 without a sampler, or task=null.
    """
    for group, option in groups.items():
        if choices.get(group) is not None:
            continue
        names = option_names(group, config_directories)
        if option is not None:
            raise SpecpolicyError(f"{group}=null: expected one of {', '.join(names)}")
        unnamed = [one.key_or_group for one in overrides if one.key_or_group.startswith(f"{group}.")]
        unnamed += [f"{group}.{key}" for key in config.get(group) or ()]
        if unnamed:
            name = unnamed[0].rpartition(".")[2]
            having = [one for one in names if name in load_option(group, one, config_directories)] or names
            raise SpecpolicyError(f"{unnamed[0]} is an option of one {group}: name it too, such as {group}={having[0]}")


def _short(group: str, name: str, names: Sequence[str]) -> bool:
    """Whether a name is an option with the value of one of its keys, such as a sampler with its number of steps."""
    short = shorthand(group, name)
    return short is not None and short[0] in names


def check_missing(config: DictConfig, verb: str) -> None:
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise SpecpolicyError(f"{missing[0]} is required: {missing[0]}=... (specpolicy {verb} --help)")


# Parts of Hydra's configuration that plugins or users fill.
OPEN = ("hydra.launcher", "hydra.sweeper", "hydra.callbacks", "hydra.env", "hydra.hydra_logging", "hydra.job_logging")
# Groups whose options have their own schemas; these are checked where the options are used.
ELSEWHERE = ("policy", "sampler")
# A user's own option may have the keys of the shipped option of its name; a task without one, the keys of this one.
ANY_TASK = "gym"


def check_known(config: DictConfig, own: DictConfig, verb: str) -> None:
    """Refuse keys that nothing reads; `+key=value` and users' own files may add such keys.

    Args:
        config: the configuration composed for the verb.
        own: the verb's shipped yaml.
        verb: name of the verb.
    """
    groups, known = default_groups(verb), [str(key) for key in own]  # `in` does not find required keys
    for key in map(str, config):
        if key == "hydra":
            continue
        if key not in known and key not in groups:
            raise _unknown(key, [*known, *groups], verb)
        if key not in groups:
            _check_inside(config._get_node(key), own._get_node(key), key, verb)
    for group in groups:
        if group in config and group not in ELSEWHERE and isinstance(config[group], DictConfig):
            name = ANY_TASK if group == "task" else str(config[group].get("name"))
            if name in option_names(group):
                _check_inside(config[group], load_option(group, name), group, verb)


def _check_inside(config: Any, default: Any, prefix: str, verb: str) -> None:
    """Do the same for the keys of a mapping; one that is empty by default accepts any key."""
    if not isinstance(config, DictConfig) or not isinstance(default, DictConfig) or not default:
        return
    known = [str(key) for key in default]
    for key in map(str, config):
        if key not in known:
            raise _unknown(f"{prefix}.{key}", [f"{prefix}.{name}" for name in known], verb)
        _check_inside(config._get_node(key), default._get_node(key), f"{prefix}.{key}", verb)


def _unknown(key: str, known: Sequence[str], verb: str) -> SpecpolicyError:
    names = closest(key, known) or f"; known: {', '.join(name for name in known if name != 'defaults')}"
    return SpecpolicyError(f"unknown key '{key}'{names} (specpolicy {verb} --help lists the keys)")
