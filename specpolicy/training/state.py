"""The state of a training run: weights, their average and the optimiser, saved so that a killed run goes on."""

import contextlib
import copy
import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from specpolicy.errors import SpecpolicyError
from specpolicy.files import atomic_path
from specpolicy.parsing.tensors import part_of, prefixed
from specpolicy.policy.base import ENCODER, Policy
from specpolicy.training.batches import Batch
from specpolicy.training.ema import ema_decay, update_ema
from specpolicy.training.group import Group
from specpolicy.training.identity import Identity, difference
from specpolicy.training.options import TrainingOptions

STATE = "training.pt"
PLAYED = "last_rollout.txt"  # its step
DROPOUT = 2**62  # added to the seeds of dropout, so that none is a seed of a step's windows and noise


class RunState:
    """Weights, their average and the optimiser: the state that is saved and resumed."""

    def __init__(self, policy: Policy, options: TrainingOptions, identity: Identity):
        self.policy, self.options, self.identity = policy, options, identity
        self.average: Any = copy.deepcopy(policy).requires_grad_(False)
        self.saved = 0  # the step of the last save
        self.losses, self.since = 0.0, 0  # the sum of losses since the last log, and their number
        self.plays = False  # whether a rollout follows the last save
        learnt = [*policy.denoiser.parameters(), *policy.encoder.parameters()]
        self.optimiser = torch.optim.AdamW(
            [one for one in learnt if one.requires_grad], lr=1.0, betas=(0.95, 0.999), weight_decay=options.weight_decay
        )

    def update(self, learner: nn.Module, passes: list[Batch], step: int, group: Group) -> Tensor:
        """Learn from the passes of one step and return their mean loss, of this process's share of them."""
        for one in self.optimiser.param_groups:
            one["lr"] = learning_rate(self.options, step)
        self.optimiser.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.policy.device)
        for number, batch in enumerate(passes):
            place = ((self.options.seed * 1_000_003 + step) * len(passes) + number) * group.size + group.rank
            with _seeded(self.policy.device, DROPOUT + place), group.adding_up(learner, number < len(passes) - 1):
                loss = learner(*batch) / len(passes)
                loss.backward()
            total += loss.detach()
        self.optimiser.step()
        decay = ema_decay(step, self.options.ema_power)
        update_ema(self.average.denoiser, self.policy.denoiser, decay)
        update_ema(self.average.encoder, self.policy.encoder, decay)
        return total

    def save(self, directory: Path, step: int) -> None:
        """Write the state and the checkpoint into a directory."""
        state = {
            "step": step,
            "losses": self.losses,
            "since": self.since,
            "plays": self.plays,
            "identity": self.identity,
            "model": _weights(self.policy),
            "average": _weights(self.average),
            "optimiser": self.optimiser.state_dict(),
        }
        # Save the state for resuming before the checkpoint: a checkpoint without it could not be resumed.
        with atomic_path(directory / STATE) as temporary:
            torch.save(state, temporary)
        self.save_average(directory)
        self.saved = step

    def check_finite(self, loss: float, step: int, weights: bool) -> None:
        """Raise a clear error if the training has diverged. `weights`: look at them, too, before they are saved."""
        finite, what = math.isfinite(loss), "loss is"
        if finite and weights:
            learnt = [*self.policy.parameters(), *self.average.parameters()]
            finite, what = all(bool(one.isfinite().all()) for one in learnt), "weights are"
        if not finite:
            kept = f"the save of step {self.saved} is kept" if self.saved else "nothing was saved"
            raise SpecpolicyError(
                f"the {what} no longer finite at step {step}: {kept}: use a smaller learning_rate, in another output "
                "or with overwrite=true"
            )

    def save_average(self, directory: Path) -> None:
        """Write the checkpoint."""
        self.average.save(directory, torch.float16 if self.options.half_precision_weights else torch.float32)

    def load(self, path: Path, group: Group) -> int:
        """Restore a saved run, in all processes, and return its step; 0 if there is none."""
        state = group.from_first(lambda: _read(path, self.identity))
        if state is None:
            return 0
        try:
            _restore(self.policy, state["model"])
            _restore(self.average, state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError, KeyError):
            raise SpecpolicyError(f"{path} belongs to another network: use another output, or overwrite=true") from None
        if group.first:
            self.save_average(path.parent)  # a kill or a full disk may have prevented its writing
        self.saved = state["step"]
        self.losses, self.since = state.get("losses", 0.0), state.get("since", 0)  # earlier versions did not save them
        self.plays = state.get("plays", False)
        return self.saved


def _weights(policy: Policy) -> dict[str, Tensor]:
    return policy.denoiser.state_dict() | prefixed(policy.encoder.state_dict(), ENCODER)


def _restore(policy: Policy, weights: dict[str, Tensor]) -> None:
    policy.encoder.load_state_dict(part_of(weights, ENCODER))
    policy.denoiser.load_state_dict({name: one for name, one in weights.items() if not name.startswith(ENCODER)})


@contextlib.contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    """A block whose random numbers, those of dropout, follow from a seed, and change none outside."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed % 2**63)
        yield


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


def last_played(directory: Path) -> int:
    """Return the step of the last rollout that is logged; 0 if there is none."""
    try:
        return int((directory / PLAYED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0


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
