"""A verb as a Hydra application: one run, a sweep (--multirun), or a look at the configuration (--cfg, --info)."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra.core.utils import JobStatus, run_job
from hydra.types import HydraContext, RunMode
from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from specpolicy.cli.groups import default_groups
from specpolicy.cli.jobs import job_of
from specpolicy.cli.loader import VerbLoader
from specpolicy.cli.options import Parser
from specpolicy.cli.overrides import HYDRA_TEXT, TEXT, parse_override, with_paths
from specpolicy.cli.places import finished
from specpolicy.cli.sweeps import sweep
from specpolicy.errors import SpecpolicyError

# Verbs print and do not log, so a log file beside each result (hydra/job_logging=default) would be empty.
DEFAULTS = {"hydra/job_logging": "none"}


def start(verb: str, options: argparse.Namespace) -> None:
    """Run, sweep or show a verb, as the command line asks.

    Raises:
        SpecpolicyError: bad input, or a failed job of a sweep.
    """
    hydra, name = Hydra(verb, VerbLoader(verb, options.config_dir)), options.config_name or verb
    mode = RunMode.MULTIRUN if options.multirun or "hydra.mode=MULTIRUN" in options.overrides else RunMode.RUN
    overrides = read_overrides(verb, options.overrides, mode)
    if options.hydra_help:
        options.overrides = [text for text in options.overrides if text.startswith("hydra")]
        hydra.hydra_help(None, Parser(), options)
    elif options.cfg:
        _show(hydra, verb, name, overrides, options)
    elif options.info:
        hydra.compose_config(name, overrides, mode)  # errors are reported in our own words
        hydra.show_info(options.info, name, overrides, mode)
    elif mode == RunMode.MULTIRUN:
        sweep(hydra, verb, name, overrides)
    else:
        _run(hydra, verb, name, overrides)


def read_overrides(verb: str, texts: Sequence[str], mode: RunMode = RunMode.RUN) -> list[str]:
    """Return the settings of a command line in Hydra's notation; paths and names stay text."""
    texts = with_paths(verb, texts)
    named = {*TEXT, *HYDRA_TEXT, *default_groups(verb), "task"}
    overrides = [parse_override(text, named, mode == RunMode.MULTIRUN) for text in texts]
    keys = {override.key_or_group for override in overrides}
    own = [f"{key}={value}" for key, value in DEFAULTS.items() if key not in keys]
    return [*own, *(override.input_line or "" for override in overrides)]


def _run(hydra: Hydra, verb: str, name: str, overrides: list[str]) -> None:
    config = hydra.compose_config(name, overrides, RunMode.RUN)
    if config.hydra.mode == RunMode.MULTIRUN:  # a user's own primary configuration may say so
        sweep(hydra, verb, name, overrides)
        return
    config.hydra.mode = RunMode.RUN
    subdir, config.hydra.output_subdir = config.hydra.output_subdir, None
    callbacks = Callbacks(config)
    callbacks.on_run_start(config=config, config_name=name)
    # Hydra would make the output directory now. The verb makes it later, once it has checked that it may.
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


def _show(hydra: Hydra, verb: str, name: str, overrides: list[str], options: argparse.Namespace) -> None:
    """Print the verb's configuration as the verb would receive it, Hydra's own, or both."""
    config = hydra.compose_config(name, overrides, RunMode.RUN)
    own = finished(config, verb)
    OmegaConf.set_struct(config, False)
    config.update(own)
    if options.resolve:
        _resolve(config)
    shown = hydra.get_sanitized_cfg(config, options.cfg)
    if options.package not in (None, "_global_"):
        shown = OmegaConf.select(shown, options.package)
        if shown is None:
            raise SpecpolicyError(f"--package {options.package}: the configuration has none of this name")
    if not isinstance(shown, Container):
        print(shown)
        return
    print(OmegaConf.to_yaml(shown), end="")


def _resolve(config: Any) -> None:
    """Resolve everything that can be resolved before a run; the number of a job, for example, cannot."""
    for key in list(config) if isinstance(config, DictConfig) else range(len(config)):
        if OmegaConf.is_interpolation(config, key):
            with contextlib.suppress(OmegaConfBaseException):
                config[key] = config[key]
        elif not OmegaConf.is_missing(config, key) and OmegaConf.is_config(config[key]):
            _resolve(config[key])
