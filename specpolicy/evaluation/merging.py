"""Joins the shards of an evaluation, once they are known to be of one evaluation, and complete."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from specpolicy.control.trace import check_trace
from specpolicy.errors import SpecpolicyError
from specpolicy.evaluation import settings
from specpolicy.evaluation.results import CHUNK_COLUMNS, EPISODE_COLUMNS, Row, read_table, whole_episodes, write_table
from specpolicy.evaluation.runner import Evaluation, blocks, video_path
from specpolicy.evaluation.shards import Shard
from specpolicy.evaluation.tapes import tape_path
from specpolicy.evaluation.world import FILE as WORLD
from specpolicy.evaluation.world import World, read_world, require_same_world
from specpolicy.files import atomic_path, write_text
from specpolicy.outputs import matching, remove
from specpolicy.parsing import parse, plain, read_json

PLAN = "shard.json"  # in the directory of a shard
NAMED = 4  # missing seeds of a shard in a message
SAME = "play all shards with the same command and versions"


@dataclass(frozen=True)
class Plan:
    """What a shard is a part of, enough to write the report of the whole without the policy.

    Attributes:
        evaluation: the evaluation, with the shard.
        track: the track's options, for the report.
        references: labels of the samplers that others are compared with.
        margin: of the equivalence tests.
        provenance: what else stands in the summary.
    """

    evaluation: Evaluation
    track: Mapping[str, Any]
    references: tuple[str, ...]
    margin: float
    provenance: Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """A shard on disk: its plan, what its rows depend on, and its rows by condition and seed."""

    directory: Path
    plan: Plan
    settings: dict[str, Any]
    world: World | None
    episodes: dict[tuple[str, int], Row]
    chunks: dict[tuple[str, int], list[Row]]

    @property
    def shard(self) -> Shard:
        """Which one it is."""
        assert self.plan.evaluation.shard is not None
        return self.plan.evaluation.shard

    @property
    def wanted(self) -> list[tuple[str, int]]:
        """Condition and seed of all its episodes."""
        found = blocks(self.plan.evaluation, self.directory)
        return [(job.condition.label, job.seed) for block in found for job in block]


def write_plan(directory: Path, plan: Plan) -> None:
    """Write a shard's plan beside its rows."""
    write_text(directory / PLAN, json.dumps(plain(plan), indent=2) + "\n")


def read_part(directory: Path) -> Part:
    """Read a shard without changing its files; it may still be played.

    Raises:
        SpecpolicyError: the directory holds no shard.
    """
    found = settings.read_settings(directory / settings.SETTINGS) if (directory / PLAN).exists() else None
    if found is None:
        raise SpecpolicyError(f"{directory} holds no shard: specpolicy evaluate shard=1/2 writes one")
    plan = parse(Plan, read_json(directory / PLAN), directory / PLAN)
    if plan.evaluation.shard is None:
        raise SpecpolicyError(f"{directory / PLAN} does not say which shard it is: play it again")
    return Part(directory, plan, found, read_world(directory), *_rows(directory))


def check_parts(parts: Sequence[Part]) -> None:
    """Raise unless the parts are all shards of one evaluation, each there once and complete.

    Raises:
        SpecpolicyError: other settings, versions, weights or physics; a shard twice; what is missing, by name; a trace
            that is another one by now.
    """
    first = parts[0]
    seen: dict[int, Part] = {}
    for part in parts:
        if part.shard.count != first.shard.count:
            raise SpecpolicyError(f"{first.directory} is shard {first.shard} and {part.directory} {part.shard}: {SAME}")
        if part.shard.number in seen:
            twice = seen[part.shard.number].directory
            raise SpecpolicyError(f"{twice} and {part.directory} are both shard {part.shard}: leave one out")
        seen[part.shard.number] = part
        _require_same(first, part)
    missing = []
    for number in range(1, first.shard.count + 1):
        if number not in seen:
            missing.append(f"{number}/{first.shard.count} (not there)")
        elif lacking := [seed for label, seed in seen[number].wanted if (label, seed) not in seen[number].episodes]:
            seeds = ", ".join(map(str, list(dict.fromkeys(lacking))[:NAMED]))
            more = ", ..." if len(set(lacking)) > NAMED else ""
            missing.append(f"{seen[number].shard} ({len(lacking)} episodes, of seeds {seeds}{more})")
    if missing:
        raise SpecpolicyError(f"incomplete: {'; '.join(missing)}: play these shards to their end, then merge again")
    for condition in first.plan.evaluation.conditions:
        if condition.trace is not None:
            check_trace(condition.trace, condition.trace_digest)


def check_hardware(parts: Sequence[Part], mixed: bool) -> None:
    """Refuse shards of different processors or GPUs.

    Args:
        parts: the shards.
        mixed: times per chunk may be of several; never so where the world waited for measured times.

    Raises:
        SpecpolicyError: they differ.
    """
    if _charged(parts[0]):
        remedy = "play all shards on one kind of machine, or charge the times of a track.trace"
    elif not mixed:
        remedy = "mixed_hardware=true joins them, and the report's times per chunk are then of both"
    else:
        return
    settings.require_same_hardware(machines([part.settings for part in parts]), "the set of shards", remedy)


def make_room(parts: Sequence[Part], output: Path, overwrite: bool) -> None:
    """Let `output` take the shards: it is empty, holds more of the same evaluation, or is overwritten.

    Raises:
        SpecpolicyError: it holds other results.
    """
    first, found = parts[0], settings.read_settings(output / settings.SETTINGS)
    if found is None and (foreign := matching(output, settings.WRITTEN)):
        raise SpecpolicyError(f"{output} holds {foreign[0].name} without {settings.SETTINGS}: choose another output")
    if found is not None and overwrite:
        remove(output, settings.REMOVED)
    elif found is not None:
        wanted = {key: value for key, value in first.settings.items() if key not in ("conditions", "machines")}
        settings.require_same(wanted, found, output)
        conditions = first.settings["conditions"]
        settings.require_same(conditions, {**conditions, **found["conditions"]}, output)
        require_same_world(read_world(output), first.world, str(output), settings.REMEDY)
        if _charged(first):
            together = machines([found, *(part.settings for part in parts)])
            settings.require_same_hardware(together, str(output), settings.REMEDY)


def join(parts: Sequence[Part], output: Path) -> Evaluation:
    """Write the files of the single run into `output`, which may hold more of the same evaluation.

    Rows stand in the order of a run in one process. Columns other than the measured times are those of the single run.

    Returns:
        The whole evaluation.
    """
    evaluation = replace(parts[0].plan.evaluation, shard=None)
    old = _rows(output)
    episodes, chunks = dict(old[0]), dict(old[1])
    for part in parts:
        episodes |= part.episodes
        chunks |= part.chunks
    ordered = [(job.condition.label, job.seed) for block in blocks(evaluation, output) for job in block]
    wanted = set(ordered)
    ordered += [key for key in episodes if key not in wanted]
    for part in parts:
        for label, seed in part.wanted:
            for place in (video_path, tape_path):
                _copy(place(part.directory, label, seed), place(output, label, seed))
    if (parts[0].directory / WORLD).exists():
        _copy(parts[0].directory / WORLD, output / WORLD)
    before = settings.read_settings(output / settings.SETTINGS) or {"conditions": {}, "machines": []}
    merged = {
        **parts[0].settings,
        "conditions": {**before["conditions"], **parts[0].settings["conditions"]},
        "machines": machines([before, *(part.settings for part in parts)]),
    }
    write_text(output / settings.SETTINGS, json.dumps(merged, indent=2) + "\n")
    # An episode counts if its chunks are there, so these are written first.
    write_table(output / "chunks.csv", CHUNK_COLUMNS, [row for key in ordered for row in chunks.get(key, [])])
    write_table(output / "episodes.csv", EPISODE_COLUMNS, [episodes[key] for key in ordered])
    return evaluation


def machines(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the machines of several settings, each once."""
    known: list[dict[str, Any]] = []
    for one in found:
        known += [machine for machine in one["machines"] if machine not in known]
    return known


def _require_same(first: Part, other: Part) -> None:
    where, remedy = str(first.directory), f"{other.directory} does not go with it; {SAME}"
    left_out = ("machines",)
    for one, two in ((first.settings, other.settings), (_comparable(first.plan), _comparable(other.plan))):
        settings.require_same({key: value for key, value in two.items() if key not in left_out}, one, where, remedy)
    require_same_world(first.world, other.world, where, remedy)


def _charged(part: Part) -> bool:
    """Whether the world waited for measured times."""
    return any(condition.clock == "charged" for condition in part.plan.evaluation.conditions)


def _comparable(plan: Plan) -> dict[str, Any]:
    """Return what all shards' plans have in common, beyond the settings of their rows."""
    own = plan.evaluation
    return {
        **{name: getattr(own, name) for name in ("episodes", "videos")},
        "conditions": [condition.label for condition in own.conditions],
        "track": plain({key: value for key, value in plan.track.items() if key != "trace"}),
        "references": list(plan.references),
        "margin": plan.margin,
    }


def _rows(directory: Path) -> tuple[dict[tuple[str, int], Row], dict[tuple[str, int], list[Row]]]:
    """Return the complete episodes of a directory, and their chunks, by condition and seed."""
    tables = [
        read_table(directory / name, columns)[0]
        for name, columns in (("episodes.csv", EPISODE_COLUMNS), ("chunks.csv", CHUNK_COLUMNS))
    ]
    episodes, chunks = whole_episodes(*tables)
    own: dict[tuple[str, int], list[Row]] = {}
    for row in chunks:
        own.setdefault(_key(row), []).append(row)
    return {_key(row): row for row in episodes}, own


def _key(row: Row) -> tuple[str, int]:
    return row["condition"], int(row["seed"])


def _copy(source: Path, target: Path) -> None:
    if source.exists():
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
