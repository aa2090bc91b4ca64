"""A verb as a job of Hydra's: alone, or one of a sweep, then maybe in another process."""

from __future__ import annotations

import functools
import importlib
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict, read_write

from specpolicy.cli.extras import NEEDS, check_installed, error_line
from specpolicy.cli.places import COMMAND_LINE, output_key, settle, task_overrides, told_directory
from specpolicy.cli.records import keep_record
from specpolicy.errors import SpecpolicyError

# Verbs whose settings lie beside what may be another's, and that so keep no .hydra, unless Hydra gave the directory.
BESIDE = ("collect", "calibrate", "train_drafter", "convert")


class JobFailed(SpecpolicyError):
    """A job of a sweep has failed, and has said why."""


def job_of(verb: str, output_subdir: str | None, common: Sequence[str] = ()) -> Callable[[DictConfig], None]:
    """The task function of a verb; launchers take it to other processes.

    Args:
        output_subdir: what the directory for Hydra's files is called beside results; None: there is none.
        common: settings that all jobs of a sweep have: what says which job it is leaves them out.
    """
    return functools.partial(_run, verb, output_subdir, common)


def _run(verb: str, output_subdir: str | None, common: Sequence[str], config: DictConfig) -> None:
    hydra: Any = HydraConfig.get()
    with read_write(hydra), open_dict(hydra):
        hydra.output_subdir, hydra.job.chdir = output_subdir, False
    if hydra.mode != RunMode.MULTIRUN:
        _work(verb, config, hydra)
        return
    if multiprocessing.get_start_method() not in multiprocessing.get_all_start_methods():
        # joblib's processes are started its own way, and those that a verb starts from there would look for that way.
        multiprocessing.set_start_method("spawn", force=True)
    command, given = sys.argv, task_overrides(hydra)
    label = f"job {hydra.job.num} ({' '.join([text for text in given if text not in common] or given)})"
    try:
        _work(verb, config, hydra)
    except Exception as error:
        line = error_line(error)
        if line is None or os.environ.get("SPECPOLICY_DEBUG", "0") not in ("", "0"):
            traceback.print_exc()
        print(f"specpolicy {verb}: {label}: {line or 'failed'}", file=sys.stderr)
        raise JobFailed(f"{label} failed") from error
    finally:
        sys.argv = command


def _work(verb: str, config: DictConfig, hydra: Any) -> None:
    # As with `python -m`, a task or an expert of the user's own may be a module in the current directory.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    directory = told_directory(hydra)
    settle(config, hydra, verb)
    if hydra.mode == RunMode.MULTIRUN:  # what results say they were made by: this job alone
        key = output_key(verb)
        given = [text for text in task_overrides(hydra) if not text.startswith(f"{key}=")]
        switches = [f"--config-dir={one.path}" for one in hydra.runtime.config_sources if one.provider == COMMAND_LINE]
        switches += [f"--config-name={hydra.job.config_name}"] if hydra.job.config_name != verb else []
        sys.argv = ["specpolicy", verb, *switches, *given, f"{key}={config[key]}"]
    check_installed(NEEDS.get(verb, ()))
    importlib.import_module(f"specpolicy.cli.{verb}").run(config)
    if verb in BESIDE and directory is not None:
        keep_record(config, Path(directory))
