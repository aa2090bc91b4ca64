"""A verb as a Hydra application: one run, a sweep (--multirun), or a look at what would run (--cfg, --info)."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobStatus, run_job
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import Container, DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from specpolicy.cli.extras import NEEDS, check_installed
from specpolicy.cli.groups import default_groups
from specpolicy.cli.jobs import JobFailed, job_of
from specpolicy.cli.loader import VerbLoader
from specpolicy.cli.options import Parser
from specpolicy.cli.overrides import HYDRA_TEXT, TEXT, parse_override
from specpolicy.cli.places import SWEEP_DIR, finished, output_key, raw
from specpolicy.errors import SpecpolicyError

# A log of one's own beside each result (hydra/job_logging=default) would be empty: verbs print.
DEFAULTS = {"hydra/job_logging": "none"}
ENDLESS = ("serve",)  # verbs whose run ends when it is stopped


def start(verb: str, options: argparse.Namespace) -> None:
    """Do what the command line asks of a verb.

    Raises:
        SpecpolicyError: whatever the user can mend; JobFailed: a job of a sweep has failed.
    """
    hydra, name = Hydra(verb, VerbLoader(verb, options.config_dir)), options.config_name or verb
    mode = RunMode.MULTIRUN if options.multirun or "hydra.mode=MULTIRUN" in options.overrides else RunMode.RUN
    overrides = read_overrides(verb, options.overrides, mode)
    if options.hydra_help:
        hydra.hydra_help(None, Parser(), options)
    elif options.cfg:
        _show(hydra, verb, name, overrides, options)
    elif options.info:
        hydra.compose_config(name, overrides, mode)  # what is wrong is said in our words
        hydra.show_info(options.info, name, overrides, mode)
    elif mode == RunMode.MULTIRUN:
        _sweep(hydra, verb, name, overrides)
    else:
        _run(hydra, verb, name, overrides)


def read_overrides(verb: str, texts: Sequence[str], mode: RunMode = RunMode.RUN) -> list[str]:
    """Settings of a command line as Hydra reads them: what is a path or a name stays text."""
    named = {*TEXT, *HYDRA_TEXT, *default_groups(verb), "task"}
    overrides = [parse_override(text, named, mode == RunMode.MULTIRUN) for text in texts]
    keys = {override.key_or_group for override in overrides}
    own = [f"{key}={value}" for key, value in DEFAULTS.items() if key not in keys]
    return [*own, *(override.input_line or "" for override in overrides)]


def _run(hydra: Hydra, verb: str, name: str, overrides: list[str]) -> None:
    config = hydra.compose_config(name, overrides, RunMode.RUN)
    if config.hydra.mode == RunMode.MULTIRUN:  # as a configuration of the user's own may say
        _sweep(hydra, verb, name, overrides)
        return
    config.hydra.mode = RunMode.RUN
    subdir, config.hydra.output_subdir = config.hydra.output_subdir, None
    callbacks = Callbacks(config)
    callbacks.on_run_start(config=config, config_name=name)
    # Hydra would make the output directory now. The verb makes it, once it knows that it may.
    job = run_job(
        task_function=job_of(verb, subdir),
        config=config,
        job_dir_key="hydra.runtime.cwd",
        job_subdir_key=None,
        hydra_context=HydraContext(config_loader=hydra.config_loader, callbacks=callbacks),
    )
    callbacks.on_run_end(config=config, config_name=name, job_return=job)
    if job.status == JobStatus.FAILED:
        raise job._return_value


def _sweep(hydra: Hydra, verb: str, name: str, overrides: list[str]) -> None:
    """Run a job for each combination of the values that were given, by the launcher and the sweeper that were named."""
    if verb in ENDLESS:
        raise SpecpolicyError(f"--multirun: specpolicy {verb} runs until it is stopped, start one by one")
    overrides = [*(text for text in overrides if not text.startswith("hydra.mode=")), "hydra.mode=MULTIRUN"]
    config = hydra.compose_config(name, overrides, RunMode.MULTIRUN)
    if raw(config.hydra.sweep, "dir") == SWEEP_DIR:  # which must not be another when a second has passed
        overrides.append(f"hydra.sweep.dir='{time.strftime('multirun/%Y-%m-%d/%H-%M-%S')}'")
        config = hydra.compose_config(name, overrides, RunMode.MULTIRUN)
    check_installed(NEEDS.get(verb, ()))
    _check_jobs(hydra, verb, config)
    try:
        hydra.multirun(name, job_of(verb, config.hydra.output_subdir), overrides)
    except JobFailed as error:
        raise JobFailed(f"{error}; what the jobs wrote is kept, {_resumption(config)}") from error
    except (HydraException, OmegaConfBaseException) as error:
        raise SpecpolicyError(" ".join(str(error).split())) from error
    print(f"all jobs are done, their outputs in {config.hydra.sweep.dir}")


def _check_jobs(hydra: Hydra, verb: str, config: DictConfig) -> None:
    """Look at every job before the first begins.

    What other sweepers than Hydra's own will try is not known yet: their jobs are checked as they come.
    """
    sweeper, loader = config.hydra.sweeper, hydra.config_loader
    if not str(sweeper._target_).endswith(BasicSweeper.__name__):
        return
    texts = [f"{key}={value}" for key, value in (sweeper.params or {}).items()] + list(config.hydra.overrides.task)
    overrides = OverridesParser.create(config_loader=loader).parse_overrides(texts)
    jobs = [job for batch in BasicSweeper.split_arguments(overrides, None) for job in batch]
    key, places = output_key(verb), dict[str, int]()
    for number, job in enumerate(jobs):
        composed = loader.load_sweep_config(config, job)
        with open_dict(composed.hydra):
            composed.hydra.job.num, composed.hydra.job.id = number, str(number)
        output = finished(composed, verb)[key]
        other = places.setdefault(os.path.realpath(output), number)
        if other != number:
            raise SpecpolicyError(
                f"jobs {other} and {number} would share {key}={output}: leave {key} out, or let it differ, such as "
                f"{Path(output).name}-${{hydra:job.num}}"
            )
    print(f"{len(jobs)} jobs, {_resumption(config)}")


def _resumption(config: DictConfig) -> str:
    return f"the same command with hydra.sweep.dir={config.hydra.sweep.dir} goes on with them"


def _show(hydra: Hydra, verb: str, name: str, overrides: list[str], options: argparse.Namespace) -> None:
    """Print the verb's configuration as the verb would receive it, Hydra's own, or both."""
    config = hydra.compose_config(name, overrides, RunMode.RUN)
    own = finished(config, verb)
    OmegaConf.set_struct(config, False)
    config.update(own)
    shown = hydra.get_sanitized_cfg(config, options.cfg)
    if options.package not in (None, "_global_"):
        shown = OmegaConf.select(shown, options.package)
        if shown is None:
            raise SpecpolicyError(f"--package {options.package}: the configuration has none of this name")
    if not isinstance(shown, Container):
        print(shown)
        return
    if options.resolve:
        _resolve(shown)
    print(OmegaConf.to_yaml(shown), end="")


def _resolve(config: Any) -> None:
    """Resolve what can be before a run; the number of a job, for instance, cannot."""
    for key in list(config) if isinstance(config, DictConfig) else range(len(config)):
        if OmegaConf.is_interpolation(config, key):
            with contextlib.suppress(OmegaConfBaseException):
                config[key] = config[key]
        elif not OmegaConf.is_missing(config, key) and OmegaConf.is_config(config[key]):
            _resolve(config[key])
