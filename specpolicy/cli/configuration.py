"""A verb's configuration, composed by Hydra from its yaml, the config groups and the command line.

Hydra's compose interface is used rather than its decorator: the output directory stays ours, the working
directory never changes, and every mistake becomes one line that names the closest right word.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from specpolicy.cli.groups import SHIPPED, default_groups, load_option, option_names
from specpolicy.cli.mistakes import check_chosen, check_known, check_missing, explain
from specpolicy.cli.overrides import TEXT, check_texts, parse_override
from specpolicy.cli.values import check_ranges, check_types
from specpolicy.errors import SpecpolicyError
from specpolicy.files import write_text
from specpolicy.parsing import closest

__all__ = ["Arguments", "compose_verb", "load_option", "option_names", "parse_arguments", "save_config"]


@dataclass
class Arguments:
    """What followed the verb on the command line."""

    overrides: list[str] = field(default_factory=list)
    config_directories: list[Path] = field(default_factory=list)
    help: bool = False
    show_config: bool = False


def parse_arguments(arguments: Sequence[str]) -> Arguments:
    """Split a verb's arguments into options (`--help`, `--config-dir DIR`, `--cfg`) and Hydra overrides."""
    parsed = Arguments()
    rest = iter(arguments)
    for argument in rest:
        name, _, value = argument.partition("=")
        if argument in ("-h", "--help"):
            parsed.help = True
        elif name == "--cfg" or argument == "-c":
            parsed.show_config = True
        elif argument == "job" and parsed.show_config:
            continue  # Hydra's own spelling is `--cfg job`
        elif name in ("--config-dir", "-cd"):
            directory = Path(value or next(rest, ""))
            if not directory.is_dir() or directory == Path(""):
                raise SpecpolicyError(f"--config-dir {directory}: no such directory")
            parsed.config_directories.append(directory.resolve())
        elif argument.startswith("-"):
            hint = closest(name, ("--help", "--config-dir", "--cfg"))
            raise SpecpolicyError(f"unknown option '{argument}'{hint}; settings are written key=value")
        else:
            parsed.overrides.append(argument)
    return parsed


def compose_verb(verb: str, overrides: Sequence[str] = (), config_directories: Sequence[Path] = ()) -> DictConfig:
    """Return the verb's configuration with the overrides applied and interpolations resolved.

    Args:
        verb: name of a file `<verb>.yaml` in the shipped configs.
        overrides: Hydra overrides such as `task=lift` or `+task.kwargs.max_seconds=5`.
        config_directories: directories with more options for the config groups.

    Raises:
        SpecpolicyError: an unknown or missing key, an unknown option of a group, a value of a wrong type.
    """
    groups = default_groups(verb)
    given = [override for text in overrides for override in _with_steps(text, config_directories)]
    parsed = [parse_override(text, {*TEXT, *groups, "task"}) for text in given]
    check_chosen(groups, parsed, config_directories)
    parsed = [override for override in parsed if override.key_or_group not in groups or override.value() is not None]
    # A key such as evaluate's `policy` may share its name with a group that only another verb uses. Hydra
    # would look for an option of that group, so such a key is set by hand.
    own = OmegaConf.load(SHIPPED / f"{verb}.yaml")
    assert isinstance(own, DictConfig)
    plain = own.keys() - groups.keys()
    by_hand = [o for o in parsed if o.key_or_group in plain and (SHIPPED / o.key_or_group).is_dir()]
    by_hydra = [o.input_line or "" for o in parsed if o not in by_hand]
    if config_directories:
        paths = ",".join(f"'file://{path}'" for path in config_directories)
        by_hydra.insert(0, f"hydra.searchpath=[{paths}]")
    try:
        with initialize_config_dir(str(SHIPPED), version_base="1.3", job_name=verb):
            composed = compose(verb, by_hydra, return_hydra_config=True)
        choices = dict(composed.hydra.runtime.choices)
        OmegaConf.set_struct(composed, False)
        del composed["hydra"]
        for group in groups:  # a group of which nothing was chosen is there, too
            composed.setdefault(group, None)
        for override in by_hand:
            OmegaConf.update(composed, override.key_or_group, override.value())
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, verb, parsed, config_directories) from error
    check_known(composed, own, verb)
    if config_directories:
        OmegaConf.set_struct(composed, False)
        composed.config_directories = [str(path) for path in config_directories]
    OmegaConf.set_struct(composed, True)
    check_types(composed, own)
    for group in groups:
        if group in composed and isinstance(choices.get(group), str):
            check_types(composed[group], load_option(group, choices[group], config_directories), f"{group}.")
    check_texts(composed, TEXT - groups.keys())  # train's `policy` is a network
    try:
        check_missing(composed, verb)
        OmegaConf.resolve(composed)
    except OmegaConfBaseException as error:
        raise SpecpolicyError(str(error).splitlines()[0]) from error
    check_ranges(composed, verb)
    return composed


def save_config(config: DictConfig, path: Path | str, verb: str | None = None) -> Path:
    """Write the resolved configuration to `path`, or to `path/config.yaml` unless `path` ends in .yaml.

    `verb`: named in its first line, so that a later run knows the directory as one of its own.
    """
    path = Path(path)
    if path.suffix != ".yaml":
        path = path / "config.yaml"
    write_text(path, ("" if verb is None else saved_line(verb)) + OmegaConf.to_yaml(config, resolve=True))
    return path


def saved_line(verb: str) -> str:
    """The first line of a verb's saved configuration."""
    return f"# specpolicy {verb}\n"


def _with_steps(text: str, config_directories: Sequence[Path]) -> list[str]:
    """`sampler=ddim-10` is short for `sampler=ddim sampler.steps=10`."""
    short = re.fullmatch(r"sampler=(\w+)-(\d+)", text)
    if not short or f"{short[1]}-{short[2]}" in option_names("sampler", config_directories):
        return [text]
    return [f"sampler={short[1]}", f"sampler.steps={short[2]}"]
