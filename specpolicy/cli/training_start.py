"""What a training begins with: demonstrations, the windows that are cut from them, and a new policy."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from specpolicy.cli.samplers import plain
from specpolicy.errors import SpecpolicyError

if TYPE_CHECKING:
    from specpolicy.data.dataset import DataSet, Sequences
    from specpolicy.data.episodes import Episode
    from specpolicy.policy import Policy
    from specpolicy.policy.config import PolicyOptions
    from specpolicy.policy.prediction import StatePredictor
    from specpolicy.training import TrainingOptions

GB = 1e9


@dataclasses.dataclass(frozen=True)
class Made:
    """What a training begins with, in each of its processes."""

    options: TrainingOptions
    data: DataSet
    stride: int
    training: Sequences
    validation: Sequences
    policy: Policy
    task: Mapping[str, Any]
    hz: float | None


def check_objective(config: DictConfig) -> None:
    """Refuse options of another objective than the chosen one, which would change nothing.

    Raises:
        SpecpolicyError: an option that differs from what the option `policy` holds, and from its default.
    """
    from specpolicy.cli.groups import load_option, option_names
    from specpolicy.policy.config import OBJECTIVES

    given, directories = plain(config.policy), config.get("config_directories", [])
    chosen = given.get("objective", "diffusion")
    names = [name for name in (given.get("name"), "unet") if name in option_names("policy", directories)]
    known = [plain(load_option("policy", name, directories)) for name in names]
    for objective, (part, kind) in OBJECTIVES.items():
        if objective == chosen:
            continue
        defaults = {field.name: field.default for field in dataclasses.fields(kind)}
        for option, value in (given.get(part) or {}).items():
            usual = [defaults.get(option), *((one.get(part) or {}).get(option) for one in known)]
            if value not in usual:
                own = OBJECTIVES[chosen][0]
                same = any(field.name == option for field in dataclasses.fields(OBJECTIVES[chosen][1]))
                raise SpecpolicyError(
                    f"policy.{part}.{option}={value} is of objective={objective}, this is {chosen}: "
                    + (f"set policy.{own}.{option}" if same else "leave it out")
                )


def make(config: DictConfig, options: TrainingOptions, chosen: PolicyOptions, device: str) -> Made:
    """Read the data and make the policy."""
    import torch

    from specpolicy.cli.image_keys import keys_to_read, task_with_cameras
    from specpolicy.data.dataset import read_data, windows
    from specpolicy.tasks import kept_task
    from specpolicy.training.new_policy import new_policy

    if config.threads:
        torch.set_num_threads(config.threads)
    keys, images = keys_to_read(config, chosen)
    data = read_data(config.data, keys)
    hz, stride = _rate(config, data.hz)
    shape, cache = (chosen.n_obs_steps, chosen.horizon), int(config.image_cache * GB)
    cache //= max(1, len(images)) * max(1, config.workers)  # of each camera in each process that reads
    training, validation = (
        windows(data, *shape, split, config.validation, config.pad_after, stride, cache if split == "train" else 0)
        for split in ("train", "valid")
    )
    if chosen.prefix and training.executed is None:
        print(f"{config.data} does not say what was executed: the labels are taken for it")
    task = kept_task(task_with_cameras(config, training))
    torch.manual_seed(config.seed)
    policy = new_policy(chosen, training, task, hz, shlex.join(["specpolicy", *sys.argv[1:]]))
    return Made(options, data, stride, training, validation, policy.to(device), task, hz)


def check_prediction(config: DictConfig, made: Made) -> None:
    """Raise before the training if `fit_predictor` cannot work after it."""
    from specpolicy.training.prediction import check_predictable, predicted_keys

    if config.predict:
        keys = predicted_keys(made.policy.config.observation)
        check_predictable(_episodes(config, made, "train"), keys, config.predict)


def fit_predictor(config: DictConfig, made: Made) -> StatePredictor:
    """Fit a model of what is observed after the next actions, and say how well it predicts."""
    from specpolicy.training.prediction import fit_predictor, predicted_keys

    training, held_out = _episodes(config, made, "train"), _episodes(config, made, "valid")
    keys = predicted_keys(made.policy.config.observation)
    predictor = fit_predictor(training, held_out, keys, made.policy.n_obs_steps, config.predict)
    errors = ", ".join(f"{error:.2f}" for error in predictor.options.errors)
    print(f"predicted observations: error {errors} of a held observation's, 1 to {config.predict} steps ahead")
    return predictor


def _episodes(config: DictConfig, made: Made, split: str) -> list[Episode]:
    """Return the episodes of one part of the data at the rate of the training."""
    from specpolicy.data.parts import choose

    return [made.data.episodes[name].every(made.stride) for name in choose(made.data, split, config.validation)]


def _rate(config: DictConfig, found: float | None) -> tuple[float | None, int]:
    """Return (control steps per second to train at, take every n-th frame) for data that state the rate `found`."""
    from specpolicy.data.rate import settle_rate
    from specpolicy.rates import one_rate, parse_hz
    from specpolicy.tasks import task_hz

    given = parse_hz(config.data_hz, "data_hz")
    data_hz = one_rate(found, given, f"{config.data} and data_hz")
    if data_hz is None and not config.resample:
        print(f"{config.data} does not say its control steps per second, so the policy will not: give data_hz=")
        return None, 1
    own: float | None = None
    try:
        own = task_hz(plain(config.task))
    except SpecpolicyError as error:  # a training machine may have no simulator
        print(f"the data's rate, {data_hz} Hz, is compared with no task's: {error}")
    return settle_rate(data_hz, own, config.resample, config.any_rate)
