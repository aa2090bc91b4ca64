"""Calls of `recycled` where the last chunk drafts the first round, and where drafters are told nothing of it.

    python benchmarks/overlap_drafts.py --tasks push_t push_t_moving --output outputs/overlap_drafts.json

Requests for chunks are recorded in episodes at a delay of four steps with `stitching=inpaint`. Each is drawn with the
same noises by several drafters. The student is told of the committed actions, as in the package, or not. At the entries
that the last chunk knows, too, the first round guesses what the student says, the last chunk, the mean of the two, or
the blend by the weights of `rtc`. Drafts change no distribution, so calls are all there is to compare.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specpolicy import Committed, load_policy
from specpolicy.cli.configuration import compose_verb
from specpolicy.conditioning.rtc import soft_weights
from specpolicy.control import Execution, PolicyPlanner
from specpolicy.control.clock import DelayClock
from specpolicy.evaluation.episode import run_episode
from specpolicy.files import write_text
from specpolicy.policy.continuing import Continuing
from specpolicy.samplers import BoundSampler
from specpolicy.samplers.base import Setting
from specpolicy.samplers.recycled.drafter import Evaluations, RecycledDrafter
from specpolicy.samplers.recycled.sampler import Recycled
from specpolicy.samplers.recycled.surrogates.continued import ContinuedSurrogate
from specpolicy.samplers.rounds.batch import BatchWindow
from specpolicy.samplers.speculative.samplers import Speculation
from specpolicy.tasks import make_task_env

DELAY, WAY = 4, "inpaint"
KINDS = ("student", "not told", "last chunk", "mean", "soft")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["push_t"], help="of which checkpoints/ has policies")
    parser.add_argument("--episodes", type=int, default=4)
    parser.add_argument("--requests", type=int, default=48, help="of each task, spread over the episodes")
    parser.add_argument("--seed", type=int, default=100_000, help="of the first episode")
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()

    found: dict[str, Any] = {}
    for task in arguments.tasks:
        policy = load_policy(Path("checkpoints") / task).with_engine(arguments.engine, 16 * 100)
        planner = Listening(policy)
        with make_task_env(compose_verb("evaluate", [f"task={task}", "policy=none"]).task) as env:
            for seed in range(arguments.seed, arguments.seed + arguments.episodes):
                run_episode(env, planner, DelayClock(DELAY), seed, 20.0, execution=Execution(stitching=WAY))
        picked = np.linspace(0, len(planner.asked) - 1, arguments.requests).astype(int)
        calls = {kind: drawn(policy, [planner.asked[row] for row in picked], kind) for kind in KINDS}
        found[task] = {kind: figures(one, calls[KINDS[0]]) for kind, one in calls.items()}
        print(task, json.dumps(found[task], indent=1), flush=True)
    write_text(arguments.output, json.dumps(found, indent=1) + "\n")


class Listening(PolicyPlanner):
    """Plans with `recycled` and keeps the requests that continue something."""

    def __init__(self, policy: Any):
        super().__init__(policy, "recycled")
        self.asked: list[tuple[Any, Committed]] = []

    def plan(self, history: Any, committed: Committed | None = None) -> Any:
        """See `Planner.plan`."""
        if committed is not None:
            self.asked.append((history, committed))
        return super().plan(history, committed)


@dataclass(frozen=True)
class FromLastChunk(Recycled):
    """See the module; `kind` is one of `KINDS`."""

    kind: str = KINDS[0]

    def bind(self, setting: Setting) -> Speculation:
        """See `Sampler.bind`."""
        made, (_, _, window) = super().bind(setting), self._drafting(setting)
        usual: Any = made.drafter
        surrogate = usual.surrogate
        if self.kind == "not told" and setting.continuation is not None:
            surrogate = Untold(surrogate.surrogate, setting.continuation)
        drafter = Drafter(surrogate, usual.sweeps, usual.rejoin)
        drafter.kind, drafter.shape = self.kind, setting.shape
        return Speculation(made.chain, drafter, made.verifier, window)


class Untold(ContinuedSurrogate):
    """Guesses as if nothing were committed."""

    def at(self, tables: Any, features: Tensor | None) -> Callable[[Tensor], Tensor]:
        """See `Surrogate.at`."""
        assert features is not None
        return self.surrogate.at(tuple(tables[:-1]), features[:, : -2 * self.continuation.packing.size - 1])

    def placed(self, device: torch.device, dtype: torch.dtype) -> Untold:
        """See `Surrogate.placed`."""
        return Untold(self.surrogate.placed(device, dtype), self.continuation)


class Drafter(RecycledDrafter):
    """Guesses otherwise in the first round."""

    kind: str
    shape: torch.Size

    def _guess(self, memory: Evaluations, window: BatchWindow, stride: int) -> Callable[[Tensor], Tensor]:
        guess = super()._guess(memory, window, stride)
        if memory.rounds or self.kind in ("student", "not told"):
            return guess
        assert memory.features is not None
        size = self.shape.numel()
        values, _, count = memory.features[:, -2 * size - 1 :].split([size, size, 1], dim=1)
        entries = values.unflatten(1, self.shape).abs().sum(-1) > 0  # (B, H) those that the last chunk knows
        share = entries.to(values) * {"last chunk": 1.0, "mean": 0.5, "soft": 0.0}[self.kind]
        if self.kind == "soft":
            for row, known in enumerate(entries):
                share[row, known] = soft_weights(int(count[row]), int(known.sum())).to(share)
        share = share[:, :, None].expand(-1, *self.shape).flatten(1)[:, None]
        return lambda states: share * values[:, None] + (1 - share) * guess(states)


def drawn(policy: Any, asked: list[tuple[Any, Committed]], kind: str) -> np.ndarray:
    """Return the calls of each request."""
    cond = policy.encode({key: np.stack([one[key] for one, _ in asked]) for key in policy.observation_keys})
    continuing = Continuing(policy.sample_shape, policy.first_action, policy.config.action_dim)
    bound = continuing.sampler(BoundSampler(FromLastChunk(kind=kind), policy.setting()), WAY, cond)
    continuation = bound.setting.continuation
    assert continuation is not None
    calls = []
    for start in range(0, len(asked), 16):
        rows = slice(start, start + 16)
        committed = [one for _, one in asked[rows]]
        given = continuing.given(
            committed, continuation, lambda actions: policy.normaliser.normalise("action", actions), cond.device
        )
        generators = [torch.Generator().manual_seed(start + row) for row in range(len(committed))]
        with torch.inference_mode():
            out = bound(len(committed), continuation.packing.pack(cond[rows], given), generators, False)
        calls += out.stats.calls.tolist()
    return np.array(calls)


def figures(calls: np.ndarray, student: np.ndarray) -> dict[str, float]:
    """Return the mean of calls and its paired difference to the student's, each with its standard error."""
    difference, root = calls - student, len(calls) ** 0.5
    return {
        "calls": float(calls.mean()),
        "calls_error": float(calls.std(ddof=1) / root),
        "difference": float(difference.mean()),
        "difference_error": float(difference.std(ddof=1) / root),
    }


if __name__ == "__main__":
    main()
