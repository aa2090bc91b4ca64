"""Whether what lies in an output directory is a verb's own: only that is replaced."""

from collections.abc import Callable, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from specpolicy.checkpoints import CONFIG, read_config
from specpolicy.cli.configuration import saved_line
from specpolicy.cli.groups import SHIPPED
from specpolicy.errors import SpecpolicyError
from specpolicy.outputs import LOCK, matching, remove_temporary

KNOWN_SHARE = 0.75  # of a verb's keys that a configuration of an earlier version has


def check_own(
    output: Path,
    verb: str,
    names: Sequence[str],
    known: Callable[[Path], bool] = lambda output: False,
    overwrite: bool = False,
    settings: str = "config.yaml",
) -> bool:
    """Whether an earlier run has written any of `names` into `output`; what killed runs left half-written is removed.

    Args:
        names: names and patterns of the files that the verb writes.
        known: what else shows that the files are ours.
        overwrite: whether some are to be deleted: then nothing but an output of ours will do.
        settings: the file of the verb's settings, which it writes before any of the others.

    Raises:
        SpecpolicyError: some of them are there, and no run of this verb has written them.
    """
    there = matching(output, names)
    others = [path for path in sorted(output.iterdir()) if path.name != LOCK] if overwrite else []
    if (there or others) and not saved_by(output / settings, verb) and not known(output):
        raise SpecpolicyError(
            f"output={output} holds {(there or others)[0].relative_to(output)} and is no output of specpolicy {verb}: "
            "choose another directory"
        )
    remove_temporary(output, names)
    return bool(there)


def saved_by(path: Path, verb: str) -> bool:
    """Whether `path` is the configuration that a run of `verb` has saved."""
    try:
        text = path.read_text(encoding="utf-8")
        if text.startswith(saved_line(verb)):
            return True
        config, own = OmegaConf.create(text), OmegaConf.load(SHIPPED / f"{verb}.yaml")
    except (OSError, ValueError, YAMLError, OmegaConfBaseException):
        return False
    if not isinstance(config, DictConfig) or not isinstance(own, DictConfig):
        return False
    keys = set(own) - {"defaults"}
    return len(keys & set(config)) >= KNOWN_SHARE * len(keys)


def is_checkpoint(directory: Path) -> bool:
    """Whether a checkpoint of ours lies in a directory."""
    try:
        return bool(read_config(directory)) and (directory / CONFIG).is_file()
    except SpecpolicyError:
        return False
