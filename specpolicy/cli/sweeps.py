"""`--multirun`: one job for each combination of the given values, with any launcher and sweeper of Hydra."""

from __future__ import annotations

import importlib
import os
import time
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from specpolicy.cli.extras import NEEDS, check_installed
from specpolicy.cli.jobs import JobFailed, job_of
from specpolicy.cli.places import SWEEP_DIR, finished, output_key, raw, task_overrides
from specpolicy.cli.printing import results_are_kept
from specpolicy.errors import SpecpolicyError

ENDLESS = ("serve",)  # verbs that run until they are stopped
PATHS = ("policy", "path", "data", "observations", "trace")  # keys of files that a verb reads


def sweep(hydra: Hydra, verb: str, name: str, overrides: list[str]) -> None:
    """Check all jobs, then run them.

    Args:
        hydra: the Hydra application.
        verb: name of the verb.
        name: name of the primary configuration, the verb's or the user's own.
        overrides: the settings, some with several values.

    Raises:
        SpecpolicyError: a job cannot work; raised before the first begins.
        JobFailed: a job has failed.
    """
    if verb in ENDLESS:
        raise SpecpolicyError(f"--multirun: specpolicy {verb} runs until it is stopped, start one by one")
    check_installed(NEEDS.get(verb, ()))
    overrides = [*(text for text in overrides if not text.startswith("hydra.mode=")), "hydra.mode=MULTIRUN"]
    config = hydra.compose_config(name, overrides, RunMode.MULTIRUN)
    if raw(config.hydra.sweep, "dir") == SWEEP_DIR:  # fixed now, as a date with seconds would change from job to job
        overrides.append(f"hydra.sweep.dir='{time.strftime('multirun/%Y-%m-%d/%H-%M-%S')}'")
        config = hydra.compose_config(name, overrides, RunMode.MULTIRUN)
    with results_are_kept(verb):
        _sweep(hydra, verb, name, overrides, config)


def _sweep(hydra: Hydra, verb: str, name: str, overrides: list[str], config: DictConfig) -> None:
    """Check the jobs and run them."""
    _check_jobs(hydra, verb, config)
    try:
        task = job_of(verb, config.hydra.output_subdir, tuple(task_overrides(config.hydra)))
        hydra.multirun(name, task, overrides)
    except JobFailed as error:
        raise JobFailed(f"{error}; what the jobs wrote is kept. {_resumption(config)}") from error
    except (HydraException, OmegaConfBaseException) as error:
        raise SpecpolicyError(" ".join(str(error).split())) from error
    print(f"all jobs are done, see {config.hydra.sweep.dir}")


def _check_jobs(hydra: Hydra, verb: str, config: DictConfig) -> None:
    """Check every job before the first begins.

    Sweepers other than Hydra's own decide later which jobs to run; those jobs are checked as they come.
    """
    sweeper, loader = config.hydra.sweeper, hydra.config_loader
    if not str(sweeper._target_).endswith(BasicSweeper.__name__):
        return
    texts = [f"{key}={value}" for key, value in (sweeper.params or {}).items()] + task_overrides(config.hydra)
    overrides = OverridesParser.create(config_loader=loader).parse_overrides(texts)
    jobs = [job for batch in BasicSweeper.split_arguments(overrides, None) for job in batch]
    key, places = output_key(verb), dict[str, int]()
    for number, job in enumerate(jobs):
        composed = loader.load_sweep_config(config, job)
        with open_dict(composed.hydra):
            composed.hydra.job.num, composed.hydra.job.id = number, str(number)
        own = finished(composed, verb)
        other = places.setdefault(os.path.realpath(own[key]), number)
        if other != number:
            raise SpecpolicyError(
                f"jobs {other} and {number} would share {key}={own[key]}: leave {key} out, or let it differ, such as "
                f"{Path(own[key]).name}-${{hydra:job.num}}"
            )
        _check_settings(verb, own)
    print(f"{len(jobs)} jobs. {_resumption(config)}")


def _check_settings(verb: str, config: DictConfig) -> None:
    """Refuse settings that are seen to be wrong without beginning a job's work."""
    from specpolicy.artifacts import is_reference
    from specpolicy.cli.samplers import given_sampler, plain, sampler_specs
    from specpolicy.evaluation.player import EXPERT
    from specpolicy.sampler_names import make_sampler

    for key in PATHS:
        path: Any = config.get(key)
        elsewhere = not isinstance(path, str) or path == EXPERT or "://" in path or is_reference(path)
        if not elsewhere and not Path(path).exists():
            raise SpecpolicyError(f"{key}={path}: no such file or directory")
    if config.get("samplers") is not None:
        for spec in sampler_specs(plain(config.samplers), config.get("config_directories", [])).values():
            if spec["name"] != EXPERT:
                make_sampler(**spec)
    elif "sampler" in config:
        given_sampler(config)
    module = importlib.import_module(f"specpolicy.cli.{verb}")
    if hasattr(module, "check"):
        module.check(config)


def _resumption(config: DictConfig) -> str:
    return f"To go on later: the same command with hydra.sweep.dir={config.hydra.sweep.dir}"
