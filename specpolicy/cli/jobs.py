"""A verb as a Hydra job: a single run, or one job of a sweep, perhaps in another process."""

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
from specpolicy.cli.printing import results_are_kept
from specpolicy.cli.records import keep_record
from specpolicy.errors import SpecpolicyError

# Verbs that write beside files that may be another's. They keep no .hydra there, unless Hydra gave the directory.
BESIDE = ("collect", "calibrate", "train_drafter", "convert")


class JobFailed(SpecpolicyError):
    """A job of a sweep has failed; its own message has been printed."""


def job_of(verb: str, output_subdir: str | None, common: Sequence[str] = ()) -> Callable[[DictConfig], None]:
    """Return a verb's task function, which launchers can take to other processes.

    Args:
        verb: the verb to run.
        output_subdir: name of the directory for Hydra's files beside the results; None: no such directory.
        common: settings that all jobs of a sweep share; left out of a job's label.
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
        # joblib has its own way to start processes. Processes that a verb starts from there would not find it.
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
    # As with `python -m`: the user's own task or expert may be a module in the current directory.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    directory = told_directory(hydra)
    settle(config, hydra, verb)
    if hydra.mode == RunMode.MULTIRUN:  # the command that results name: this job alone
        key = output_key(verb)
        given = [text for text in task_overrides(hydra) if not text.startswith(f"{key}=")]
        switches = [f"--config-dir={one.path}" for one in hydra.runtime.config_sources if one.provider == COMMAND_LINE]
        switches += [f"--config-name={hydra.job.config_name}"] if hydra.job.config_name != verb else []
        sys.argv = ["specpolicy", verb, *switches, *given, f"{key}={config[key]}"]
    check_installed(NEEDS.get(verb, ()))
    if config.get("logger") is not None:  # before the verb writes anything
        from specpolicy.logging import check_logger

        check_logger(config.logger)
    with results_are_kept(verb):
        importlib.import_module(f"specpolicy.cli.{verb}").run(config)
        if verb in BESIDE and directory is not None:
            keep_record(config, Path(directory))
