"""A verb's configuration, composed by Hydra from yaml, config groups and settings, and where it is saved."""

from collections.abc import Sequence
from pathlib import Path

from hydra._internal.hydra import Hydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from specpolicy.cli.application import read_overrides
from specpolicy.cli.groups import load_option, option_names
from specpolicy.cli.loader import VerbLoader
from specpolicy.cli.places import finished
from specpolicy.cli.records import keep_record
from specpolicy.files import write_text

__all__ = ["compose_verb", "load_option", "option_names", "save_config", "saved_line"]


def compose_verb(verb: str, overrides: Sequence[str] = (), config_directories: Sequence[Path] = ()) -> DictConfig:
    """Return the verb's configuration with the overrides applied and interpolations resolved.

    Args:
        verb: name of a file `<verb>.yaml` in the shipped configs.
        overrides: Hydra overrides such as `task=lift` or `+task.kwargs.max_seconds=5`.
        config_directories: directories with more options for the config groups.

    Raises:
        SpecpolicyError: a key is unknown or missing, an option of a group is unknown, or a value has a wrong type.
    """
    hydra = Hydra(verb, VerbLoader(verb, config_directories))
    return finished(hydra.compose_config(verb, read_overrides(verb, overrides), RunMode.RUN), verb)


def save_config(config: DictConfig, path: Path | str, verb: str | None = None) -> Path:
    """Write the resolved configuration to `path`, or to `path/config.yaml` unless `path` ends in .yaml.

    A directory also gets Hydra's `.hydra` if the verb runs from the command line.

    Args:
        config: the configuration.
        path: file or directory.
        verb: named in the first line, so that a later run recognises the directory as one of its own.

    Returns:
        The file that was written.
    """
    path = Path(path)
    own = path.suffix != ".yaml"
    file = path / "config.yaml" if own else path
    write_text(file, ("" if verb is None else saved_line(verb)) + OmegaConf.to_yaml(config, resolve=True))
    if own:
        keep_record(config, path)
    return file


def saved_line(verb: str) -> str:
    """Return the first line of a verb's saved configuration."""
    return f"# specpolicy {verb}\n"
