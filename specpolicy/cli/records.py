"""Hydra's record beside results: `.hydra/` with config.yaml, hydra.yaml and overrides.yaml.

Hydra itself would write it before a verb has checked its output. Here it is written once the run holds the output.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from specpolicy.cli.groups import SHIPPED
from specpolicy.cli.places import settle_directory, task_overrides
from specpolicy.files import write_text

SECRET = "api_key"  # must not be written to a file


def running_job() -> Any:
    """Return Hydra's part of the configuration if the verb runs as a Hydra job of ours.

    None if it was called from Python, perhaps within another Hydra application.
    """
    if not HydraConfig.initialized():
        return None
    hydra: Any = HydraConfig.get()
    ours = any(source.provider == "main" and Path(source.path) == SHIPPED for source in hydra.runtime.config_sources)
    return hydra if ours else None


def keep_record(config: DictConfig, directory: Path) -> None:
    """Write Hydra's record to a directory that this run holds, if it is a Hydra job.

    Args:
        config: the verb's part, resolved, without secrets.
        directory: the directory of the results.
    """
    hydra = running_job()
    if hydra is None or hydra.output_subdir is None or (directory / hydra.output_subdir).is_symlink():
        return
    if foreign_record(directory):  # most verbs have refused it by now; those that write beside files leave it alone
        return
    settle_directory(hydra, directory)
    shown = copy.deepcopy(hydra)
    given = [_without_secret(text) for text in task_overrides(hydra)]
    with flag_override(shown, ["struct", "readonly"], [False, False]):
        shown.overrides.task = given
        if given != task_overrides(hydra):
            shown.job.override_dirname = ""
        for name in ("help", "hydra_help"):  # long, and always the same
            del shown[name]
    place = directory / hydra.output_subdir
    # First the file by which a later run knows the directory as ours.
    write_text(place / "hydra.yaml", OmegaConf.to_yaml(OmegaConf.create({"hydra": OmegaConf.to_container(shown)})))
    write_text(place / "config.yaml", OmegaConf.to_yaml(config))
    write_text(place / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(given)))


def foreign_record(directory: Path) -> Path | None:
    """Return the directory of Hydra's record if this run would write there, and another application has."""
    hydra = running_job()
    if hydra is None or hydra.output_subdir is None:
        return None
    place = directory / hydra.output_subdir
    there = place.is_dir() and any(place.iterdir())
    return place if there and not place.is_symlink() and not _is_ours(place / "hydra.yaml") else None


def _is_ours(path: Path) -> bool:
    """Whether a record is of a verb: all others keep Hydra's texts of help, and its name is that of a verb."""
    from specpolicy.cli import VERBS

    try:
        found = OmegaConf.load(path)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException):
        return False
    hydra = found.get("hydra") if isinstance(found, DictConfig) else None
    if not isinstance(hydra, DictConfig) or "help" in hydra:
        return False
    return OmegaConf.select(hydra, "job.name") in VERBS


def _without_secret(text: str) -> str:
    key = text.partition("=")[0]
    return f"{key}=..." if key.lstrip("+") == SECRET else text
