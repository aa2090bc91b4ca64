"""Train a policy on demonstrations: a diffusion policy, or one of action tokens.

`output` becomes a checkpoint directory: model.safetensors (EMA weights) and config.json, which `load_policy` and
`specpolicy evaluate` read, and the training curves. To continue an interrupted training from its last save, run the
same command again.

`data` is a file of `specpolicy collect` or of robomimic, a LeRobot data set directory (v2 or v3; its vectors, not its
images), or a zarr replay buffer of diffusion_policy. Its control steps per second must be the task's and become the
policy's (data_hz, resample and any_rate change that). With logger=wandb the policy becomes an artifact in the end,
which other verbs take as policy=wandb:team/project/lift-unet:best.

Examples:
  specpolicy train task=lift
  specpolicy train task=can policy=transformer steps=20000 logger=wandb
  specpolicy train task=can policy=tokens policy.tokens.bins=128
  specpolicy train task=push_t policy.chain.prediction=sample precision=bfloat16
  specpolicy train task=gym task.id=gym_pusht:gym_pusht/PushT-v0 task.name=pusht data=datasets/pusht
  specpolicy train task=push_t data=data/pusht/pusht_cchi_v7_replay.zarr 'task.observation_keys=[keypoint,state]'
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from specpolicy.errors import SpecpolicyError

if TYPE_CHECKING:
    from specpolicy.data.dataset import Sequences
    from specpolicy.policy_base import Policy
    from specpolicy.policy_config import PolicyOptions
    from specpolicy.training import TrainingOptions
    from specpolicy.training.trainer import Rollout

# Files that other verbs put beside a policy's weights; they are of no use for other weights.
BESIDE = (
    "observations.safetensors",
    "speculation.safetensors",
    "speculation.json",
    "calibrate.yaml",
    "drafters.safetensors",
    "drafters.json",
    "train_drafter.yaml",
    "drafts.json",
)
# Files that overwrite=true deletes. Those that mark the directory as ours come last, so that an interrupted deletion
# can be repeated.
FILES = (
    "training.pt",
    "metrics.csv",
    "wandb_run_id.txt",
    "wandb_row.txt",
    *BESIDE,
    "model.safetensors",
    "config.json",
    "config.yaml",
)
ROLLOUT_SEED = 50_000  # first reset seed of the rollouts during training


def run(config: DictConfig) -> None:
    """Train as `config` (configs/train.yaml) says."""
    import torch

    from specpolicy.checkpoints import CONFIG
    from specpolicy.cli.configuration import save_config
    from specpolicy.cli.made_policies import log_trained
    from specpolicy.cli.own_outputs import check_own, is_checkpoint
    from specpolicy.data.dataset import read_data, windows
    from specpolicy.logging import make_logger
    from specpolicy.logging.progress import progress_bar
    from specpolicy.outputs import claim, remove
    from specpolicy.tasks import kept_task
    from specpolicy.training import run_identity, saved_step, train
    from specpolicy.training.trainer import STATE

    options, chosen = check(config)
    if config.threads:
        torch.set_num_threads(config.threads)
    output = Path(config.output)
    with claim(output, "train"):
        known = check_own(output, "train", FILES, is_checkpoint, config.overwrite)
        data = read_data(config.data, _observation_keys(config))
        hz, stride = _rate(config, data.hz)
        shape = (chosen.n_obs_steps, chosen.horizon)
        training, validation = (
            windows(data, *shape, split, config.validation, config.pad_after, stride) for split in ("train", "valid")
        )
        torch.manual_seed(config.seed)
        policy = make_policy(chosen, training, kept_task(_plain(config.task)), hz).to(config.device)
        identity = run_identity(policy, training, validation, options, _settings(config))
        rollout = _rollout(config) if options.rollout_every else None
        # All checks are done: only now is the output of an earlier run deleted or continued.
        if config.overwrite:
            remove(output, FILES)
        elif known and (output / CONFIG).exists() and not (output / STATE).exists():
            raise SpecpolicyError(
                f"{output} holds a checkpoint without {STATE}, so its training cannot go on: use another output, or "
                "overwrite=true"
            )
        resume = saved_step(output, identity)
        save_config(config, output, "train")
        count = sum(parameter.numel() for parameter in policy.denoiser.parameters())
        print(f"{len(training)} windows, {len(validation)} for validation; {count / 1e6:.2f} M parameters; {output}")
        about = {"data_fingerprint": data.fingerprint, "control_hz": hz, "parameters": count}
        shown = {**_plain(config), **about}
        with make_logger(config.logger, output, shown, name=output.name, resume_step=resume) as logger:
            with progress_bar(options.steps, f"train {config.task.name}") as bar:
                trained = train(policy, training, validation, options, output, logger, bar, rollout, identity)
            print(f"saved {output}")
            log_trained(trained, config, output, identity, about, logger)


def check(config: DictConfig) -> tuple[TrainingOptions, PolicyOptions]:
    """Return the options of trainer and policy; refuse those that cannot work."""
    from specpolicy.parsing import parse
    from specpolicy.policy_config import PolicyOptions
    from specpolicy.training import TrainingOptions

    options = TrainingOptions(**{field.name: config[field.name] for field in dataclasses.fields(TrainingOptions)})
    return options, parse(PolicyOptions, _plain(config.policy), "train", at="policy")


def _settings(config: DictConfig) -> dict[str, Any]:
    """Return what decides the result besides the trainer's options: what is held out, what is played."""
    settings = {"validation": config.validation, "pad_after": config.pad_after}
    if config.rollout_every:
        names = ("rollout_episodes", "rollout_sampler", "rollout_seconds")
        settings |= {name: config[name] for name in names}
    return settings


def make_policy(
    options: PolicyOptions, training: Sequences, task: Mapping[str, Any], hz: float | None = None
) -> Policy:
    """Make an untrained policy for a task.

    Its normaliser and its tokens are fitted to the training windows, which have the rate `hz`.
    """
    from specpolicy.normaliser import Normaliser
    from specpolicy.policy import DiffusionPolicy
    from specpolicy.policy_config import PolicyConfig
    from specpolicy.token_policy import TokenPolicy
    from specpolicy.tokens.tokeniser import make_tokeniser

    if training.images:
        raise SpecpolicyError(f"'{next(iter(training.images))}' is an image, and images are not trained on yet")
    normaliser = Normaliser.min_max(training.ranges())
    bins = None
    if options.tokens is not None:
        actions = normaliser.normalise("action", training.action)
        bins = make_tokeniser(options.tokens.kind, options.tokens.bins, actions).to_config()
    settings = PolicyConfig(
        network=options.network,
        chain=options.chain,
        tokens=bins,
        horizon=options.horizon,
        n_obs_steps=options.n_obs_steps,
        n_action_steps=options.n_action_steps,
        observation={key: value.shape[-1] for key, value in training.observation.items()},
        action_dim=training.action.shape[-1],
        normaliser=normaliser.to_config(),
        control_hz=hz,
        task=task,
        command=shlex.join(["specpolicy", *sys.argv[1:]]),
    )
    return (DiffusionPolicy if bins is None else TokenPolicy).from_config(settings)


def _observation_keys(config: DictConfig) -> list[str]:
    from specpolicy.data.dataset import observation_keys

    return list(config.task.observation_keys or observation_keys(config.data))


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
        own = task_hz(_plain(config.task))
    except SpecpolicyError as error:  # a training machine may have no simulator
        print(f"the data's rate, {data_hz} Hz, is compared with no task's: {error}")
    return settle_rate(data_hz, own, config.resample, config.any_rate)


def _rollout(config: DictConfig) -> Rollout:
    """Return a function that plays a few episodes with the policy in training and returns their mean results."""
    import torch

    from specpolicy.cli.configuration import load_option
    from specpolicy.control.clock import PausedClock
    from specpolicy.evaluation.episode import run_episode
    from specpolicy.evaluation.planners import PolicyPlanner
    from specpolicy.sampler_names import make_sampler
    from specpolicy.tasks import make_task_env

    sampler: Any = None  # the policy's fast sampler
    if config.rollout_sampler is not None:
        sampler = make_sampler(**_plain(load_option("sampler", config.rollout_sampler)))
    env = make_task_env(_plain(config.task))

    def play(policy: Any, step: int) -> dict[str, float]:
        # The seeds differ from those of demonstrations and evaluations, so that nothing is chosen on test episodes.
        seeds = range(ROLLOUT_SEED, ROLLOUT_SEED + config.rollout_episodes)
        planner = PolicyPlanner(policy, sampler or policy.quick_sampler)
        with torch.random.fork_rng():
            episodes = [run_episode(env, planner, PausedClock(), seed, config.rollout_seconds) for seed in seeds]
        results: dict[str, list[float]] = {
            "success": [episode.success for episode in episodes],
            "length": [episode.length for episode in episodes],
            "max_coverage": [episode.max_coverage for episode in episodes if episode.max_coverage is not None],
        }
        return {name: sum(values) / len(values) for name, values in results.items() if values}

    return play


def _plain(config: Any) -> Any:
    """Return the configuration as plain lists and dicts."""
    return OmegaConf.to_container(config, resolve=True)
