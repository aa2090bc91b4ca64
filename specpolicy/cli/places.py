"""Where a run of a verb writes: one directory for `output`, `hydra.run.dir` and the directory of a sweep's job.

The verb's `output` decides. If the user gave none, `hydra.run.dir` is used, or the job's directory in a sweep. If the
user gave only `output`, `hydra.run.dir` is set to it. Two different directories are refused.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from specpolicy.cli.groups import SHIPPED, default_groups
from specpolicy.cli.mistakes import check_missing
from specpolicy.cli.overrides import TEXT, check_texts
from specpolicy.cli.values import check_ranges
from specpolicy.errors import SpecpolicyError

COMMAND_LINE = "command-line"  # Hydra's name for a directory of configurations given on the command line
OUTPUTS = {"convert": "out", "merge": "out"}  # verbs whose key for the output has another name
# Hydra's defaults. A single run does not use the first, as every verb has an output; jobs of a sweep use the second.
RUN_DIR = "outputs/${now:%Y-%m-%d}/${now:%H-%M-%S}"
SWEEP_DIR = "multirun/${now:%Y-%m-%d}/${now:%H-%M-%S}"


def output_key(verb: str) -> str:
    """Return the name of the key that says where a verb writes."""
    return OUTPUTS.get(verb, "output")


def finished(config: DictConfig, verb: str) -> DictConfig:
    """Return the verb's part of a composed configuration, see `settle`; `config` is not changed.

    Raises:
        SpecpolicyError: a value is missing or wrong, or there are two different outputs.
    """
    whole = copy.deepcopy(config)
    own = copy.deepcopy(config)
    OmegaConf.set_struct(own, False)
    del own["hydra"]
    OmegaConf.set_struct(own, True)
    hydra_config = HydraConfig.instance()
    before = hydra_config.cfg
    try:
        hydra_config.set_config(whole)
        settle(own, whole.hydra, verb)
    finally:
        hydra_config.cfg = before
    return own


def settle(config: DictConfig, hydra: Any, verb: str) -> None:
    """Decide where the verb writes, resolve all interpolations, and run the checks that had to wait for this.

    Args:
        config: the verb's part, changed in place.
        hydra: Hydra's part, as `${hydra:...}` finds it; its directory is set to the output.
        verb: name of the verb.

    Raises:
        SpecpolicyError: a value is missing or wrong, or there are two different outputs.
    """
    key = output_key(verb)
    try:
        directory = told_directory(hydra)
        with read_write(hydra), open_dict(hydra):
            hydra.runtime.output_dir = os.path.abspath(directory or hydra.run.dir)
        if directory is not None and not _given(config, verb):
            config[key] = str(_within(Path(directory), config, verb))
        check_texts(config, TEXT - default_groups(verb).keys())  # train's `policy` is a network
        check_missing(config, verb)
        OmegaConf.resolve(config)
    except OmegaConfBaseException as error:
        raise SpecpolicyError(str(error).splitlines()[0]) from error
    check_ranges(config, verb)
    if config[key] is None or hydra.mode == RunMode.MULTIRUN:
        return
    place = Path(config[key]).parent if verb == "collect" else Path(config[key])
    if directory is not None and os.path.abspath(directory) != os.path.abspath(place):
        raise SpecpolicyError(
            f"{key}={config[key]} and hydra.run.dir={directory} are two places, and both mean the output: give one"
        )
    settle_directory(hydra, place)


def settle_directory(hydra: Any, directory: Path) -> None:
    """Tell Hydra where a run writes."""
    with read_write(hydra), open_dict(hydra):
        hydra.runtime.output_dir = os.path.abspath(directory)
        if hydra.mode != RunMode.MULTIRUN:
            hydra.run.dir = str(directory)


def told_directory(hydra: Any) -> str | None:
    """Return the directory that Hydra was given, or that a job has in its sweep; None: Hydra's dated default."""
    if hydra.mode == RunMode.MULTIRUN:
        return os.path.join(hydra.sweep.dir, str(hydra.sweep.subdir))
    return None if raw(hydra.run, "dir") == RUN_DIR else str(hydra.run.dir)


def task_overrides(hydra: Any) -> list[str]:
    """Return the settings of a run or a job, as they were written."""
    return OmegaConf.to_container(hydra.overrides.task, resolve=False)  # type: ignore[return-value]


def raw(config: DictConfig, key: str) -> Any:
    """Return the value of a key before interpolation; None if there is none."""
    node = config._get_node(key)
    return None if node is None else node._value()  # type: ignore[union-attr]


def _given(config: DictConfig, verb: str) -> bool:
    """Whether the output differs from that of the verb's yaml."""
    own, key = OmegaConf.load(SHIPPED / f"{verb}.yaml"), output_key(verb)
    assert isinstance(own, DictConfig)
    return bool(raw(config, key) != raw(own, key))


def _within(directory: Path, config: DictConfig, verb: str) -> Path:
    """Return a verb's output inside its own directory: for demonstrations one file or data set, else the directory."""
    if verb != "collect":
        return directory
    return directory / (f"{config.task.name}_lerobot" if config.format == "lerobot" else f"{config.task.name}.hdf5")
