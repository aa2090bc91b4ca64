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
from specpolicy.files import write_text
from specpolicy.policy import Policy
from specpolicy.precision import check_precision
from specpolicy.training.batches import Batches
from specpolicy.training.group import ALONE, Group
from specpolicy.training.identity import Identity, run_identity
from specpolicy.training.learner import Learner
from specpolicy.training.options import TrainingOptions
from specpolicy.training.state import PLAYED, STATE, RunState, last_played, learning_rate

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
    clock, since, timed = time.perf_counter(), run.since, 0
    total = torch.full((), run.losses, device=policy.device)

    def plays(step: int) -> bool:
        every = options.rollout_every if rollout is not None and group.first else 0
        return bool(every) and step > 0 and (step % every == 0 or step == options.steps)

    def play(step: int) -> None:
        """After the save: a simulator that fails costs no training, and what it did not play is played on resuming."""
        assert rollout is not None
        played = rollout(run.average.eval(), step)
        logger.log({f"rollout/{name}": value for name, value in played.items()}, step=step)
        write_text(directory / PLAYED, str(step))

    if run.plays and plays(start) and last_played(directory) < start:
        play(start)
    passes = batches.steps(options, start, group, workers)
    for step in range(start, options.steps):
        learner.train()
        total += run.update(wrapped, next(passes), step, group)
        done, since, timed = step + 1, since + 1, timed + 1
        last = done == options.steps
        logs, saves = (last or done % every == 0 for every in (options.log_every, options.save_every))
        metrics: dict[str, float] = {}
        if logs or saves:
            run.losses, run.since = float(group.mean(total)), since
            mean = run.losses / since
            run.check_finite(mean, done, saves)
        if logs:
            elapsed, clock = time.perf_counter() - clock, time.perf_counter()
            metrics |= {
                "train/loss": mean,
                "train/learning_rate": learning_rate(options, step),
                "train/samples_per_second": timed * options.batch_size * options.accumulate / elapsed,
            }
            metrics |= found
            total.zero_()
            since, timed, found = 0, 0, {}
            run.losses, run.since = 0.0, 0
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
            run.plays = plays(done)
            run.save(directory, done)
        if plays(done):
            play(done)
    return run.average
