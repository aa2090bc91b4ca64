"""A verb's configuration, composed by Hydra from its yaml, the config groups and the command line.

Hydra's compose interface is used rather than its decorator: the output directory stays ours, the working
directory never changes, and every mistake becomes one line that names the closest right word.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import specpolicy_configs
from specpolicy.errors import SpecpolicyError
from specpolicy.files import write_text

SHIPPED = Path(next(iter(specpolicy_configs.__path__))).resolve()


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
    parsed = [_parse(override) for override in overrides]
    groups = default_groups(verb)
    # A key such as evaluate's `policy` may share its name with a group that only another verb uses. Hydra
    # would look for an option of that group, so such a key is set by hand.
    own = OmegaConf.load(SHIPPED / f"{verb}.yaml")
    assert isinstance(own, DictConfig)
    by_hand = [o for o in parsed if o.key_or_group in own and o.key_or_group not in groups and _is_group(o)]
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
        OmegaConf.set_struct(composed, True)
        for override in by_hand:
            OmegaConf.update(composed, override.key_or_group, override.value())
    except (HydraException, OmegaConfBaseException) as error:
        raise _explain(error, verb, parsed, config_directories) from error
    _check_missing(composed, verb)
    _check_types(composed, own, "")
    for group in groups:
        if group in composed and isinstance(choices.get(group), str):
            _check_types(composed[group], load_option(group, choices[group], config_directories), f"{group}.")
    if config_directories:
        OmegaConf.set_struct(composed, False)
        composed.config_directories = [str(path) for path in config_directories]
    try:
        OmegaConf.resolve(composed)
    except OmegaConfBaseException as error:
        raise SpecpolicyError(str(error).splitlines()[0]) from error
    OmegaConf.set_struct(composed, True)
    return composed


def load_option(group: str, name: str, config_directories: Iterable[Path | str] = ()) -> DictConfig:
    """Return one option of a config group, such as `load_option("sampler", "ddim")`.

    A verb that takes a list of options (`samplers=[ddpm,ddim]`) resolves each by this; it passes
    `config.get("config_directories", [])` so that the user's own options are found too.
    """
    for directory in [*map(Path, config_directories), SHIPPED]:
        path = directory / group / f"{name}.yaml"
        if path.is_file():
            loaded = OmegaConf.load(path)
            assert isinstance(loaded, DictConfig)
            return loaded
    known = option_names(group, config_directories)
    raise SpecpolicyError(f"unknown {group} '{name}'{closest(name, known)}; known: {', '.join(known)}")


def option_names(group: str, config_directories: Iterable[Path | str] = ()) -> list[str]:
    """The names of a group's options, sorted; empty if there is no such group."""
    directories = [*map(Path, config_directories), SHIPPED]
    return sorted({path.stem for directory in directories for path in (directory / group).glob("*.yaml")})


def default_groups(verb: str) -> dict[str, str | None]:
    """The config groups in the verb's defaults list, with their default options (None if required)."""
    own = OmegaConf.load(SHIPPED / f"{verb}.yaml")
    assert isinstance(own, DictConfig)
    groups: dict[str, str | None] = {}
    for entry in own.get("defaults", []):
        if isinstance(entry, DictConfig):
            for name in entry:
                groups[str(name)] = None if OmegaConf.is_missing(entry, name) else entry[name]
    return groups


def save_config(config: DictConfig, path: Path | str) -> Path:
    """Write the resolved configuration to `path`, or to `path/config.yaml` unless `path` ends in .yaml."""
    path = Path(path)
    if path.suffix != ".yaml":
        path = path / "config.yaml"
    write_text(path, OmegaConf.to_yaml(config, resolve=True))
    return path


def closest(word: str, words: Iterable[str]) -> str:
    """`; did you mean 'right'?` for the nearest of `words`, or nothing if none is near."""
    found = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f"; did you mean '{found[0]}'?" if found else ""


def _is_group(override: Override) -> bool:
    return (SHIPPED / override.key_or_group).is_dir()


def _parse(text: str) -> Override:
    if "=" not in text and not text.startswith("~"):
        raise SpecpolicyError(f"cannot read '{text}': settings are written key=value")
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise SpecpolicyError(
            f"cannot read '{text}': quote a value that holds spaces or any of =,()[]{{}}, such as \"key='a=b'\""
        ) from error


def _keys(config: Any, prefix: str = "") -> list[str]:
    """Dotted names of every node of a nested mapping."""
    names = []
    if isinstance(config, DictConfig):
        for key in map(str, config):
            names += [f"{prefix}{key}", *_keys(config._get_node(key), f"{prefix}{key}.")]
    return names


def _explain(
    error: Exception, verb: str, overrides: list[Override], config_directories: Sequence[Path]
) -> SpecpolicyError:
    """Turn Hydra's complaint into one line about the user's own words."""
    groups = default_groups(verb)
    known = [*groups, *(key for key in _keys(OmegaConf.load(SHIPPED / f"{verb}.yaml")) if key != "defaults")]
    given = {}
    for override in overrides:
        key = override.key_or_group
        given[key] = override.value() if not override.is_delete() else None
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
            if not hint and parent in known:
                hint = f"; to add a key write +{override.input_line}"
            return SpecpolicyError(f"unknown key '{key}'{hint} (specpolicy {verb} --help lists the keys)")
    return SpecpolicyError(str(error).splitlines()[0])


def _check_missing(config: DictConfig, verb: str) -> None:
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise SpecpolicyError(f"{missing[0]} is required: {missing[0]}=... (specpolicy {verb} --help)")


def _check_types(config: DictConfig, default: DictConfig, prefix: str) -> None:
    """Compare each value with the type of its default; a default of null accepts anything."""
    for key in map(str, default):
        if OmegaConf.is_missing(default, key) or OmegaConf.is_interpolation(default, key) or key not in config:
            continue
        if OmegaConf.is_interpolation(config, key):
            continue
        value, standard, name = config[key], default[key], f"{prefix}{key}"
        if isinstance(standard, DictConfig) and isinstance(value, DictConfig):
            _check_types(value, standard, f"{name}.")
        elif OmegaConf.is_list(standard) and not OmegaConf.is_list(value) and value is not None:
            config[key] = [value]  # samplers=ddpm reads as samplers=[ddpm]
        elif isinstance(standard, bool):
            _require(isinstance(value, bool), name, value, "true or false")
        elif isinstance(standard, int):
            _require(isinstance(value, int) and not isinstance(value, bool), name, value, "a whole number")
        elif isinstance(standard, float):
            _require(isinstance(value, int | float) and not isinstance(value, bool), name, value, "a number")


def _require(right: bool, name: str, value: object, wanted: str) -> None:
    if not right:
        raise SpecpolicyError(f"{name}={value}: expected {wanted}")
