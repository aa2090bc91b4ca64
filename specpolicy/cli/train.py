"""Train a policy on demonstrations: a diffusion policy, or one of action tokens.

`output` becomes a checkpoint directory: model.safetensors (EMA weights) and config.json, which `load_policy` and
`specpolicy evaluate` read, and the training curves. To continue an interrupted training from its last save, run the
same command again.

`data` is a file of `specpolicy collect` or of robomimic, a LeRobot data set directory (v2 or v3), or a zarr
replay buffer of diffusion_policy. Its control steps per second must be the task's and become the
policy's (data_hz, resample and any_rate change that). With logger=wandb the policy becomes an artifact in the end,
which other verbs take as policy=wandb:team/project/lift-unet:best.

policy=unet_image and policy=transformer_image see the images of the cameras in task.cameras, or of all in the data,
and beside them the vectors task.proprioception. torchrun shares out every batch among several processes.

Examples:
  specpolicy train task=lift
  specpolicy train task=can policy=transformer steps=20000 logger=wandb
  specpolicy train task=can policy=tokens policy.tokens.bins=128
  specpolicy train task=push_t policy.chain.prediction=sample precision=bfloat16
  specpolicy train task=lift policy.objective=flow
  specpolicy train task=gym task.id=gym_pusht:gym_pusht/PushT-v0 task.name=pusht data=datasets/pusht
  specpolicy train task=lift policy=unet_image policy.vision.kind=small data=data/lift_image.hdf5 workers=2
  torchrun --nproc-per-node=4 -m specpolicy train task=lift policy=unet_image device=cuda precision=bfloat16
  specpolicy train task=push_t data=data/pusht/pusht_cchi_v7_replay.zarr 'task.observation_keys=[keypoint,state]'
"""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from specpolicy.cli.beside import BESIDE
from specpolicy.cli.samplers import plain
from specpolicy.errors import SpecpolicyError
from specpolicy.fingerprints import file_fingerprint

if TYPE_CHECKING:
    from specpolicy.policy.config import PolicyOptions
    from specpolicy.training import TrainingOptions
    from specpolicy.training.group import Group

# Files that overwrite=true deletes. Those that mark the directory as ours come last, so that an interrupted deletion
# can be repeated.
FILES = (
    "training.pt",
    "last_rollout.txt",
    "metrics.csv",
    "wandb_run_id.txt",
    "wandb_row.txt",
    *BESIDE,
    "model.safetensors",
    "config.json",
    "config.yaml",
)


def run(config: DictConfig) -> None:
    """Train as `config` (configs/train.yaml) says: alone, or as one of the processes of torchrun."""
    from specpolicy.training.group import joined

    with joined(config.device) as (group, device):
        if group.first:
            _lead(config, group, device)
        else:
            _follow(config, group, device)


def _lead(config: DictConfig, group: Group, device: str) -> None:
    """Check everything, own the output, train."""
    from specpolicy.cli.configuration import save_config
    from specpolicy.cli.made_policies import log_trained
    from specpolicy.cli.own_outputs import check_own, is_checkpoint
    from specpolicy.cli.training_rollouts import make_rollout
    from specpolicy.cli.training_start import check_prediction, fit_predictor, make
    from specpolicy.logging import make_logger
    from specpolicy.logging.progress import progress_bar
    from specpolicy.outputs import claim, remove, run_name
    from specpolicy.policy.checkpoints import CONFIG
    from specpolicy.training import run_identity, saved_step, train
    from specpolicy.training.state import STATE

    options, chosen = check(config)
    group.share(options.batch_size)
    output = Path(config.output)
    with claim(output, "train", several=group.size > 1):
        known = check_own(output, "train", FILES, is_checkpoint, config.overwrite)
        made = make(config, options, chosen, device)
        check_prediction(config, made)
        policy = made.policy
        identity = run_identity(policy, made.training, made.validation, options, _settings(config, chosen))
        rollout = make_rollout(config, made.task, policy) if options.rollout_every else None
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
        seeing = sum(parameter.numel() for parameter in policy.encoder.parameters())
        size = f"{count / 1e6:.2f} M parameters" + (f" and {seeing / 1e6:.2f} M that see" if seeing else "")
        print(f"{len(made.training)} windows, {len(made.validation)} for validation; {size}; {output}")
        about = {"data_fingerprint": made.data.fingerprint, "control_hz": made.hz, "parameters": count + seeing}
        shown = {**plain(config), **about}
        with make_logger(config.logger, output, shown, name=run_name(output), resume_step=resume) as logger:
            group.meet()
            with progress_bar(options.steps, f"train {config.task.name}") as bar:
                windows = made.training, made.validation
                trained = train(
                    policy, *windows, options, output, logger, bar, rollout, identity, config.workers, group
                )
            if config.predict:
                fit_predictor(config, made).save(output)
            print(f"saved {output}")
            log_trained(trained, config, output, identity, about, logger)


def _follow(config: DictConfig, group: Group, device: str) -> None:
    """Train once the first process has begun, which has checked everything and says what there is to say."""
    from specpolicy.cli.training_start import make
    from specpolicy.logging import NoLogger
    from specpolicy.training import train

    group.meet()
    with contextlib.redirect_stdout(None):
        made = make(config, *check(config), device)
        windows = made.training, made.validation
        train(made.policy, *windows, made.options, config.output, NoLogger(), workers=config.workers, group=group)


def check(config: DictConfig) -> tuple[TrainingOptions, PolicyOptions]:
    """Return the options of trainer and policy; refuse those that cannot work."""
    from specpolicy.cli.training_start import check_objective
    from specpolicy.parsing import parse
    from specpolicy.policy.config import PolicyOptions
    from specpolicy.training import TrainingOptions

    if not isinstance(config.predict, int) or config.predict < 0:
        raise SpecpolicyError(f"predict={config.predict}: give a number of steps, 0 for none")
    for name in ("workers", "image_cache"):
        if not isinstance(config[name], int | float) or config[name] < 0:
            raise SpecpolicyError(f"{name}={config[name]}: give a number that is at least 0")
    options = TrainingOptions(**{field.name: config[field.name] for field in dataclasses.fields(TrainingOptions)})
    chosen = parse(PolicyOptions, plain(config.policy), "train", at="policy")
    check_objective(config)
    return options, chosen


def _settings(config: DictConfig, chosen: PolicyOptions) -> dict[str, Any]:
    """Return what decides the result besides the trainer's options: what is held out, what a backbone had learnt
    before."""
    settings = {"validation": config.validation, "pad_after": config.pad_after}
    weights = getattr(chosen.vision, "weights", None)
    if weights is not None:
        settings["vision_weights"] = file_fingerprint(weights)
    return settings
