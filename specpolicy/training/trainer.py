"""The trainer: AdamW with warm-up and cosine decay, EMA weights, validation, rollouts, resume after a kill.

Every random number of a step is drawn from a generator seeded by (seed, step). So a run that was killed and started
again follows the curve of an uninterrupted one to the bit.
"""

import copy
import math
import pickle
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from specpolicy.data.dataset import Sequences
from specpolicy.errors import SpecpolicyError
from specpolicy.files import atomic_path
from specpolicy.policy_base import Policy
from specpolicy.precision import check_precision
from specpolicy.training.ema import ema_decay, update_ema
from specpolicy.training.identity import Identity, difference, run_identity
from specpolicy.training.loss import make_objective
from specpolicy.training.options import TrainingOptions

STATE = "training.pt"
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
) -> AnyPolicy:
    """Train `policy` in place and return its EMA copy, which is also saved in `directory` at every save.

    Args:
        rollout: called with the EMA policy and the step every `rollout_every` steps; returns metrics to log.
        identity: the identity that a run saved in `directory` must have to be resumed; None: the same data, policy and
            options (see `run_identity`).

    Raises:
        SpecpolicyError: `directory` holds another run.
    """
    directory = Path(directory)
    check_precision(options.precision, policy.device)
    run = _Run(policy, options, identity or run_identity(policy, training, validation, options))
    start = run.load(directory / STATE)
    batches = _Batches(policy, training)
    held_out = _Batches(policy, validation) if validation is not None and len(validation) else None
    denoiser = torch.compile(policy.denoiser) if options.compile else policy.denoiser
    if bar is not None:
        bar.advance(start)
    found = {f"train/{name}": value for name, value in batches.objective.figures.items()}
    if held_out is not None:
        found |= {f"validation/{name}": value for name, value in held_out.objective.figures.items()}
    clock, total, since = time.perf_counter(), torch.zeros((), device=policy.device), 0
    for step in range(start, options.steps):
        policy.denoiser.train()
        loss = batches.loss(denoiser, options, step)
        run.update(loss, step)
        total += loss.detach()
        done, since = step + 1, since + 1
        last = done == options.steps
        metrics: dict[str, float] = {}
        if done % options.log_every == 0 or last:
            elapsed, clock = time.perf_counter() - clock, time.perf_counter()
            metrics |= {
                "train/loss": float(total) / since,
                "train/learning_rate": learning_rate(options, step),
                "train/samples_per_second": since * options.batch_size / elapsed,
            }
            metrics |= found
            total.zero_()
            since, found = 0, {}
        run.average.eval()
        if held_out is not None and (done % options.validate_every == 0 or last):
            metrics["validation/loss"] = held_out.evaluate(run.average.denoiser)
        if rollout is not None and options.rollout_every and (done % options.rollout_every == 0 or last):
            metrics |= {f"rollout/{name}": value for name, value in rollout(run.average, done).items()}
        if metrics:
            logger.log(metrics, step=done)
        if bar is not None:
            shown = {
                name.split("/")[-1]: metrics[name] for name in ("train/loss", "validation/loss") if name in metrics
            }
            bar.advance(1, **shown)
        if done % options.save_every == 0 or last:
            run.save(directory, done)
    return run.average


def learning_rate(options: TrainingOptions, step: int) -> float:
    """Return the learning rate: linear warm-up, then a half cosine to zero."""
    if step < options.warmup_steps:
        return options.learning_rate * (step + 1) / options.warmup_steps
    progress = (step - options.warmup_steps) / max(1, options.steps - options.warmup_steps)
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def saved_step(directory: str | Path, identity: Identity) -> int:
    """Return the step at which the run saved in `directory` would resume; 0 if there is none.

    Raises:
        SpecpolicyError: the saved run is another one (see `run_identity`).
    """
    state = _read(Path(directory) / STATE, identity)
    return 0 if state is None else state["step"]


def _read(path: Path, identity: Identity) -> dict[str, Any] | None:
    """Return the saved state of the run of this identity, None if nothing was saved."""
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SpecpolicyError(f"{path} cannot be read ({reason}): delete it, or set overwrite=true") from None
    if not isinstance(state, dict) or not isinstance(state.get("identity"), dict):
        raise SpecpolicyError(
            f"{path} does not say which data and which policy it was trained with (it is of an earlier version, or no "
            "training run): use another output, or overwrite=true"
        )
    if different := difference(state["identity"], identity):
        raise SpecpolicyError(
            f"{path} belongs to a run with {different}: use the same, another output, or overwrite=true"
        )
    return state


class _Run:
    """Weights, their average and the optimiser: the state that is saved and resumed."""

    def __init__(self, policy: Policy, options: TrainingOptions, identity: Identity):
        self.policy, self.options, self.identity = policy, options, identity
        self.average: Any = copy.deepcopy(policy).requires_grad_(False)
        self.optimiser = torch.optim.AdamW(
            policy.denoiser.parameters(), lr=1.0, betas=(0.95, 0.999), weight_decay=options.weight_decay
        )

    def update(self, loss: Tensor, step: int) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.options, step)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        update_ema(self.average.denoiser, self.policy.denoiser, ema_decay(step, self.options.ema_power))

    def save(self, directory: Path, step: int) -> None:
        state = {
            "step": step,
            "identity": self.identity,
            "model": self.policy.denoiser.state_dict(),
            "average": self.average.denoiser.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        # Save the state for resuming before the checkpoint: a checkpoint without it could not be resumed.
        with atomic_path(directory / STATE) as temporary:
            torch.save(state, temporary)
        self.save_average(directory)

    def save_average(self, directory: Path) -> None:
        self.average.save(directory, torch.float16 if self.options.half_precision_weights else torch.float32)

    def load(self, path: Path) -> int:
        """Restore a saved run and return its step; 0 if there is none."""
        state = _read(path, self.identity)
        if state is None:
            return 0
        try:
            self.policy.denoiser.load_state_dict(state["model"])
            self.average.denoiser.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError, KeyError):
            raise SpecpolicyError(f"{path} belongs to another network: use another output, or overwrite=true") from None
        self.save_average(path.parent)  # a kill or a full disk may have prevented its writing
        return state["step"]


class _Batches:
    """Normalised windows on the policy's device, and the loss on a random batch of them."""

    def __init__(self, policy: Policy, sequences: Sequences):
        self.cond = policy.encode(sequences.observation)
        self.objective = make_objective(policy)
        actions = policy.normaliser.normalise("action", sequences.action.to(policy.device))
        self.target = self.objective.prepare(actions)

    def loss(self, denoiser, options: TrainingOptions, step: int) -> Tensor:
        generator = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
        rows = torch.randint(len(self.target), (options.batch_size,), generator=generator)
        return self._loss(denoiser, rows, generator, options.precision == "bfloat16")

    @torch.no_grad()
    def evaluate(self, denoiser, most: int = 2048) -> float:
        """Return the loss on a fixed sample of windows and random numbers, the same at every call."""
        generator = torch.Generator().manual_seed(20_231)
        rows = torch.randperm(len(self.target), generator=generator)[:most]
        losses = [self._loss(denoiser, chunk, generator) * len(chunk) for chunk in rows.split(256)]
        return float(sum(losses) / len(rows))

    def _loss(self, denoiser, rows: Tensor, generator: torch.Generator, half: bool = False) -> Tensor:
        rows = rows.to(self.target.device)
        return self.objective.loss(denoiser, self.target[rows], self.cond[rows], generator, half)
