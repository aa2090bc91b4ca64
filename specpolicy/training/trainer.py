"""The trainer: AdamW with warm-up and cosine decay, EMA weights, validation, rollouts, resume after a kill.

Every random number of a step is drawn from a generator seeded by (seed, step). So a run that was killed and started
again follows the curve of an uninterrupted one to the bit.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from specpolicy.data.dataset import Sequences
from specpolicy.policy import Policy
from specpolicy.precision import check_precision
from specpolicy.training.batches import Batches
from specpolicy.training.group import ALONE, Group
from specpolicy.training.identity import Identity, run_identity
from specpolicy.training.learner import Learner
from specpolicy.training.options import TrainingOptions
from specpolicy.training.state import STATE, RunState, learning_rate

AnyPolicy = TypeVar("AnyPolicy", bound=Policy)
Rollout = Callable[[Any, int], Mapping[str, float]]


class Logger(Protocol):
    """The part of `specpolicy.logging.MetricLogger` that the trainer uses."""

    def log(self, metrics: dict[str, float], step: int) -> None: ...


class Bar(Protocol):
    """The part of a progress bar that the trainer uses."""

    def advance(self, amount: int = 1, **figures: float) -> None: ...


def train(
    policy: AnyPolicy,
    training: Sequences,
    validation: Sequences | None,
    options: TrainingOptions,
    directory: str | Path,
    logger: Logger,
    bar: Bar | None = None,
    rollout: Rollout | None = None,
    identity: Identity | None = None,
    workers: int = 0,
    group: Group = ALONE,
) -> AnyPolicy:
    """Train `policy` in place and return its EMA copy, which is also saved in `directory` at every save.

    Args:
        rollout: called with the EMA policy and the step every `rollout_every` steps; returns metrics to log.
        identity: the identity that a run saved in `directory` must have to be resumed; None: the same data, policy and
            options (see `run_identity`).
        workers: processes that read images ahead, which changes no number; 0: this one reads them.
        group: the processes that share out every batch; the first alone saves, logs, validates and plays.

    Raises:
        SpecpolicyError: `directory` holds another run; windows that are not those of the policy, or cannot be read; the
            training diverges.
    """
    directory = Path(directory)
    check_precision(options.precision, policy.device)
    if identity is None and group.first:
        identity = run_identity(policy, training, validation, options)
    run = RunState(policy, options, identity or {})
    start = run.load(directory / STATE, group)
    batches = Batches(policy, training, options.uncommitted)
    held_out = Batches(policy, validation) if group.first and validation is not None and len(validation) else None
    half = options.precision == "bfloat16"
    learner = Learner(policy, batches.objective, half, options.colour_jitter, options.compile)
    wrapped = group.wrap(learner, policy.device)
    if bar is not None:
        bar.advance(start)
    found = {f"train/{name}": value for name, value in batches.objective.figures.items()}
    if held_out is not None:
        found |= {f"validation/{name}": value for name, value in held_out.objective.figures.items()}
    clock, total, since = time.perf_counter(), torch.zeros((), device=policy.device), 0
    passes = batches.steps(options, start, group, workers)
    for step in range(start, options.steps):
        learner.train()
        total += run.update(wrapped, next(passes), step, group)
        done, since = step + 1, since + 1
        last = done == options.steps
        logs, saves = (last or done % every == 0 for every in (options.log_every, options.save_every))
        metrics: dict[str, float] = {}
        if logs or saves:
            mean = float(group.mean(total)) / since
            run.check_finite(mean, done, saves)
        if logs:
            elapsed, clock = time.perf_counter() - clock, time.perf_counter()
            metrics |= {
                "train/loss": mean,
                "train/learning_rate": learning_rate(options, step),
                "train/samples_per_second": since * options.batch_size * options.accumulate / elapsed,
            }
            metrics |= found
            total.zero_()
            since, found = 0, {}
        if not group.first:
            continue
        run.average.eval()
        if held_out is not None and (done % options.validate_every == 0 or last):
            metrics["validation/loss"] = held_out.evaluate(Learner(run.average, held_out.objective))
        if metrics:
            logger.log(metrics, step=done)
        if bar is not None:
            shown = {
                name.split("/")[-1]: metrics[name] for name in ("train/loss", "validation/loss") if name in metrics
            }
            bar.advance(1, **shown)
        if saves:
            run.save(directory, done)
        if rollout is not None and options.rollout_every and (done % options.rollout_every == 0 or last):
            # After the save: a simulator that fails costs no training.
            played = rollout(run.average, done)
            logger.log({f"rollout/{name}": value for name, value in played.items()}, step=done)
    return run.average
