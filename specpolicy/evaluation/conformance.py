"""A suite that any harness of episodes can be held to, ours or another's.

Success rates of two policies compare only if a seed means one episode, whatever else is played, and however. Give
`conform` the ways in which a harness plays seeds; it raises at the first promise that is broken:

- scene: the seed alone fixes the scene, whatever was played before it; other seeds have other scenes.
- rows: nor does anything else of an episode depend on what is played beside it.
- one seed: each seed is played once, in its own scene, and an episode that ends early makes room for no other.
- parallel, batched, shards, resume: these are the rows of the serial run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from specpolicy.errors import SpecpolicyError


class Nonconforming(SpecpolicyError):
    """A harness breaks a promise; `check` names which."""

    def __init__(self, check: str, message: str):
        super().__init__(f"{check}: {message}")
        self.check = check


@dataclass(frozen=True)
class Rollout:
    """An episode as a harness reports it.

    Attributes:
        seed: of the episode.
        scene: its first observation.
        row: its outcome by name, without measured times. `length`, the number of its steps, must be there.
    """

    seed: int
    scene: Mapping[str, Any]
    row: Mapping[str, Any]


Play = Callable[[Sequence[int]], Sequence[Rollout]]
Cut = Callable[[Sequence[int], int], Sequence[Rollout]]


@dataclass(frozen=True)
class Harness:
    """The ways of a harness to play seeds: each returns a rollout for each seed, in any order; None: there is no such.

    Attributes:
        serial: one after the other in one process, in the order of the seeds.
        parallel: over several processes.
        batched: side by side, where the policy answers several at once.
        sharded: cut into a number of shards, which are played last one first and merged.
        resumed: broken off after a number of episodes, and continued.
        rounding: largest relative difference of numbers between `batched` and `serial`; sums of a network may depend
            on the number of rows. Whole numbers, truth values and text must be equal.
    """

    serial: Play
    parallel: Play | None = None
    batched: Play | None = None
    sharded: Cut | None = None
    resumed: Cut | None = None
    rounding: float = 0.0


def conform(harness: Harness, seeds: Sequence[int]) -> list[str]:
    """Hold a harness to all promises that it has the ways for.

    Args:
        harness: its ways.
        seeds: at least three, some of whose episodes end before others.

    Returns:
        The names of the checks that were made.

    Raises:
        Nonconforming: the first promise that is broken.
        SpecpolicyError: the seeds cannot tell.
    """
    seeds = list(seeds)
    if len(set(seeds)) < max(3, len(seeds)):
        raise SpecpolicyError("conformance needs three seeds or more, each once")
    alone = {seed: _only("scene", harness.serial([seed]), seed) for seed in seeds}
    for rollout in alone.values():
        if "length" not in rollout.row:
            raise SpecpolicyError(f"the row of seed {rollout.seed} lacks 'length', the number of its steps")
    together = [harness.serial(seeds), harness.serial(seeds[::-1])]
    check_scenes(alone, together)
    for rollouts in together:
        check_one_seed_each("one seed", alone, rollouts)
        check_rows("rows", alone, rollouts)
    if len({rollout.row["length"] for rollout in alone.values()}) == 1:
        raise SpecpolicyError("all of these episodes end at the same step, so nothing is seen of those that end early")
    made = ["scene", "one seed", "rows"]
    ways: dict[str, list[Callable[[], Sequence[Rollout]]]] = {}
    if (parallel := harness.parallel) is not None:
        ways["parallel"] = [_bind(parallel, seeds)]
    if (batched := harness.batched) is not None:
        ways["batched"] = [_bind(batched, seeds), _bind(batched, seeds[::-1])]
    if (sharded := harness.sharded) is not None:
        ways["shards"] = [_bind(sharded, seeds, count) for count in (1, 2, len(seeds))]
    if (resumed := harness.resumed) is not None:
        ways["resume"] = [_bind(resumed, seeds, after) for after in (1, len(seeds) - 1)]
    for name, plays in ways.items():
        for play_now in plays:
            rollouts = play_now()
            check_one_seed_each(name, alone, rollouts)
            check_rows(name, alone, rollouts, harness.rounding if name == "batched" else 0.0)
        made.append(name)
    return made


def check_scenes(alone: Mapping[int, Rollout], runs: Sequence[Sequence[Rollout]]) -> None:
    """Require that a seed has its scene whatever was played before it, and that no two seeds share one.

    Raises:
        Nonconforming: it is not so.
    """
    seen: list[Rollout] = []
    for rollout in alone.values():
        for other in seen:
            if _different(other.scene, rollout.scene) is None:
                raise Nonconforming("scene", f"seeds {other.seed} and {rollout.seed} have the same scene")
        seen.append(rollout)
    for rollouts in runs:
        for rollout in rollouts:
            known = alone.get(rollout.seed)
            if known is not None and (key := _different(known.scene, rollout.scene)):
                raise Nonconforming("scene", f"seed {rollout.seed} differs in {key} when it is not played alone")


def check_one_seed_each(check: str, alone: Mapping[int, Rollout], rollouts: Sequence[Rollout]) -> None:
    """Require that each seed was played once, in its own scene.

    Raises:
        Nonconforming: it is not so.
    """
    played = [rollout.seed for rollout in rollouts]
    for seed in alone:
        if played.count(seed) != 1:
            raise Nonconforming(check, f"seed {seed} was played {played.count(seed)} times")
    for rollout in rollouts:
        if rollout.seed not in alone:
            raise Nonconforming(check, f"seed {rollout.seed} was played, and nobody asked for it")
        if key := _different(alone[rollout.seed].scene, rollout.scene):
            raise Nonconforming(check, f"the episode called seed {rollout.seed} has another scene ({key}) than that")


def check_rows(check: str, alone: Mapping[int, Rollout], rollouts: Sequence[Rollout], rounding: float = 0.0) -> None:
    """Require that every rollout has the row of the episode played alone.

    Raises:
        Nonconforming: it is not so.
    """
    for rollout in rollouts:
        if key := _different(alone[rollout.seed].row, rollout.row, rounding):
            before, now = alone[rollout.seed].row.get(key), rollout.row.get(key)
            raise Nonconforming(check, f"seed {rollout.seed} has {key}={now}, and {before} when it is played alone")


def _only(check: str, rollouts: Sequence[Rollout], seed: int) -> Rollout:
    if len(rollouts) != 1 or rollouts[0].seed != seed:
        raise Nonconforming(check, f"asked for seed {seed} alone, it played {[one.seed for one in rollouts]}")
    return rollouts[0]


def _bind(play: Callable[..., Sequence[Rollout]], *arguments: Any) -> Callable[[], Sequence[Rollout]]:
    return lambda: play(*arguments)


def _different(one: Mapping[str, Any], other: Mapping[str, Any], rounding: float = 0.0) -> str | None:
    """Return the first key whose values differ, None if there is none."""
    for key in [*one, *(key for key in other if key not in one)]:
        if key not in one or key not in other or not _equal(one[key], other[key], rounding):
            return key
    return None


def _equal(one: Any, other: Any, rounding: float) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):  # an observation within an observation
        return _different(one, other, rounding) is None
    a, b = np.asarray(one), np.asarray(other)
    if rounding and a.shape == b.shape and a.dtype.kind == b.dtype.kind == "f":
        return bool(np.allclose(a, b, rtol=rounding, atol=rounding, equal_nan=True))
    return a.shape == b.shape and bool(np.all((a == b) | ((a != a) & (b != b))))
