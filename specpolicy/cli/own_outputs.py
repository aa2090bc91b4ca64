"""Checks that the files in an output directory are the verb's own: only those are replaced."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from specpolicy.cli.configuration import saved_line
from specpolicy.cli.groups import SHIPPED
from specpolicy.cli.records import foreign_record
from specpolicy.errors import SpecpolicyError
from specpolicy.outputs import LOCK, matching, remove_temporary
from specpolicy.policy.checkpoints import CONFIG, read_config

KNOWN_SHARE = 0.75  # least share of a verb's keys in a configuration that an earlier version saved


def check_own(
    output: Path,
    verb: str,
    names: Sequence[str],
    known: Callable[[Path], bool] = lambda output: False,
    overwrite: bool = False,
    settings: str = "config.yaml",
) -> bool:
    """Whether an earlier run has written any of `names` to `output`; half-written files of killed runs are removed.

    Hydra's record of another application is refused, too, if this run is to keep one of its own there.

    Args:
        output: the directory.
        verb: name of the verb.
        names: names and patterns of the files that the verb writes.
        known: another test of whether the files are ours.
        overwrite: whether files are to be deleted; then the directory must be an output of ours.
        settings: file of the verb's settings, which it writes before any of the others.

    Raises:
        SpecpolicyError: some of the files are there, but not from a run of this verb.
    """
    there = matching(output, names)
    others = [path for path in sorted(output.iterdir()) if path.name != LOCK] if overwrite else []
    if (there or others) and not saved_by(output / settings, verb) and not known(output):
        raise SpecpolicyError(
            f"output={output} holds {(there or others)[0].relative_to(output)} and is no output of specpolicy {verb}: "
            "choose another directory"
        )
    if record := foreign_record(output):
        raise SpecpolicyError(
            f"output={output} holds {record.name} of another application of Hydra: choose another directory"
        )
    remove_temporary(output, names)
    return bool(there)


def saved_by(path: Path, verb: str) -> bool:
    """Whether a run of `verb` saved the configuration at `path`."""
    try:
        text = path.read_text(encoding="utf-8")
        if named := re.match(saved_line(r"(\w+)"), text):
            return named[1] == verb  # verbs share many keys, so that these would not tell them apart
        config, own = OmegaConf.create(text), OmegaConf.load(SHIPPED / f"{verb}.yaml")
    except (OSError, ValueError, YAMLError, OmegaConfBaseException):
        return False
    if not isinstance(config, DictConfig) or not isinstance(own, DictConfig):
        return False
    keys = set(own) - {"defaults"}
    return len(keys & set(config)) >= KNOWN_SHARE * len(keys)


def made_here(output: Path, files: dict[str, set[str]]) -> bool:
    """Whether `output` holds one of these JSON files of ours: with our keys, or damaged beside a checkpoint of ours.

    Args:
        output: the directory.
        files: for the name of each file some keys that it has.
    """
    for name, keys in files.items():
        if (output / name).is_file():
            try:
                found = json.loads((output / name).read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError):
                found = None
            if (isinstance(found, dict) and keys <= found.keys()) or is_checkpoint(output):
                return True
    return False


def is_checkpoint(directory: Path) -> bool:
    """Whether a directory holds a checkpoint of ours."""
    try:
        return bool(read_config(directory)) and (directory / CONFIG).is_file()
    except SpecpolicyError:
        return False
