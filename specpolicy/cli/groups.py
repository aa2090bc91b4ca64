"""Config groups: directories of yaml files, the user's own and the shipped ones."""

import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

import specpolicy_configs
from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import closest

REQUIRED = "???"
TASK_KEYS = ("name", "id")  # without which no verb can use a task
SHIPPED = Path(next(iter(specpolicy_configs.__path__))).resolve()


def load_option(group: str, name: str, config_directories: Iterable[Path | str] = ()) -> DictConfig:
    """Return one option of a config group, such as `load_option("sampler", "ddim")`; a `shorthand` gives its option.

    Verbs that take a list of options (`samplers=[ddpm,ddim]`) load each with this function. They pass
    `config.get("config_directories", [])`, so that the user's own options are found too.
    """
    for directory in [*map(Path, config_directories), SHIPPED]:
        path = directory / group / f"{name}.yaml"
        if path.is_file():
            loaded: Any = OmegaConf.load(path)
            _check_option(loaded, group, path)
            return loaded
    short = shorthand(group, name)
    if short is not None:
        return load_option(group, short[0], config_directories)
    known = option_names(group, config_directories)
    raise SpecpolicyError(f"unknown {group} '{name}'{closest(name, known)}; known: {', '.join(known)}")


def _check_option(loaded: Any, group: str, path: Path) -> None:
    """Refuse a file that is no option: its own keys, or those of the options in its defaults list, must be there."""
    if not isinstance(loaded, DictConfig) or (not loaded and group == "task"):
        raise SpecpolicyError(f"{path}: expected keys with their values, such as 'name: mine'")
    known = list(loaded)  # `in` does not find keys that are required
    missing = [key for key in TASK_KEYS if key not in known] if group == "task" and "defaults" not in known else []
    if missing:
        raise SpecpolicyError(f"{path}: the key '{missing[0]}' is missing, and a task needs {' and '.join(TASK_KEYS)}")


def shorthand(group: str, name: str) -> tuple[str, str, str | int] | None:
    """Split a name that also sets a key of its option into (option, key, value): ddim-10 of the group sampler into
    (ddim, steps, 10), lerobot:so101_follower of the group robot into (lerobot, type, so101_follower); None for others.
    """
    if group == "sampler" and (found := re.fullmatch(r"(\w+)-(\d+)", name)):
        return found[1], "steps", int(found[2])
    if group == "robot" and (found := re.fullmatch(r"(\w+):(\S+)", name)):
        return found[1], "type", found[2]
    return None


def option_names(group: str, config_directories: Iterable[Path | str] = ()) -> list[str]:
    """Return the names of a group's options, sorted; empty if there is no such group."""
    directories = [*map(Path, config_directories), SHIPPED]
    return sorted({path.stem for directory in directories for path in (directory / group).glob("*.yaml")})


def default_groups(verb: str) -> dict[str, str | None]:
    """Return the config groups in the verb's defaults list, each with its default option.

    The default is `REQUIRED` if the user must choose, and None if the verb chooses one itself.
    """
    return dict(_shipped_defaults(verb))


@functools.cache  # asked for six times in a start, which was a fifth of the time to compose a configuration
def _shipped_defaults(verb: str) -> dict[str, str | None]:
    own = OmegaConf.load(SHIPPED / f"{verb}.yaml")
    assert isinstance(own, DictConfig)
    groups: dict[str, str | None] = {}
    for entry in own.get("defaults", []):
        if isinstance(entry, DictConfig):
            for name in entry:
                groups[str(name)] = REQUIRED if OmegaConf.is_missing(entry, name) else entry[name]
    return groups
