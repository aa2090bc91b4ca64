"""Config groups: directories of yaml files, the user's own and the shipped ones."""

import functools
import re
from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

import specpolicy_configs
from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import closest

REQUIRED = "???"
SHIPPED = Path(next(iter(specpolicy_configs.__path__))).resolve()


def load_option(group: str, name: str, config_directories: Iterable[Path | str] = ()) -> DictConfig:
    """Return one option of a config group, such as `load_option("sampler", "ddim")`; a `shorthand` gives its option.

    Verbs that take a list of options (`samplers=[ddpm,ddim]`) load each with this function. They pass
    `config.get("config_directories", [])`, so that the user's own options are found too.
    """
    for directory in [*map(Path, config_directories), SHIPPED]:
        path = directory / group / f"{name}.yaml"
        if path.is_file():
            loaded = OmegaConf.load(path)
            assert isinstance(loaded, DictConfig)
            return loaded
    short = shorthand(group, name)
    if short is not None:
        return load_option(group, short[0], config_directories)
    known = option_names(group, config_directories)
    raise SpecpolicyError(f"unknown {group} '{name}'{closest(name, known)}; known: {', '.join(known)}")


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
