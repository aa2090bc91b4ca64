"""Runs an evaluation: every condition on the same seeds, over processes, resumable."""

import contextlib
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from specpolicy.cluster import Crew
from specpolicy.committed import check_engine, is_way
from specpolicy.engines import AUTO, check_engine_name
from specpolicy.errors import SpecpolicyError
from specpolicy.evaluation.calibrations import calibration_digest, way_digest
from specpolicy.evaluation.conditions import Condition
from specpolicy.evaluation.physics import Physics, probe
from specpolicy.evaluation.planners import ExpertPlanner, check_policy_fits
from specpolicy.evaluation.player import EXPERT, Job, Played, Setup
from specpolicy.evaluation.provenance import fingerprint
from specpolicy.evaluation.results import Results
from specpolicy.evaluation.shards import Shard
from specpolicy.evaluation.shared import work_of
from specpolicy.evaluation.stopping import EarlyStop
from specpolicy.evaluation.tapes import tape_path, write_tape
from specpolicy.model import usable_device
from specpolicy.outputs import file_name
from specpolicy.sampler_names import make_sampler
from specpolicy.tasks import make_task_env

BATCHES = 4  # batches in a block: more keep the batch full for longer, but an interruption loses more


@dataclass(frozen=True)
class Evaluation:
    """The shared setup of an evaluation, and which episodes it plays.

    Attributes:
        setup: task, policy, samplers and limits.
        conditions: the conditions to play; the first is the reference.
        episodes: episodes of each condition.
        seed: seed of the first episode; the others follow. All conditions play the same seeds.
        videos: how many of the first episodes of each condition are filmed.
        shard: the part of the episodes to play; None: all.
        record_actions: keep what is executed and observed in each episode, see `specpolicy.evaluation.tapes`.
    """

    setup: Setup
    conditions: tuple[Condition, ...]
    episodes: int
    seed: int
    videos: int = 0
    shard: Shard | None = None
    record_actions: bool = False

    @property
    def seeds(self) -> range:
        """The seeds of the episodes."""
        return range(self.seed, self.seed + self.episodes)

    @property
    def task_name(self) -> str:
        """The task's name in tables."""
        return str(self.setup.task.get("name") or self.setup.task["id"])


@dataclass(frozen=True)
class Origin:
    """Hashes of the policy and the calibrations that results are made with.

    Attributes:
        policy: fingerprint of the policy; None if only the scripted expert is evaluated.
        calibrations: {sampler label: digest} of the samplers that use a calibration or a draft model.
        ways: {stitching: digest} of the ways to continue committed actions that use what is learnt beside the weights.
        physics: what the task's environment does here.
    """

    policy: str | None = None
    calibrations: Mapping[str, str] = field(default_factory=dict)
    ways: Mapping[str, str] = field(default_factory=dict)
    physics: Physics | None = None


def check(evaluation: Evaluation, planners: int = 0) -> Origin:
    """Raise a clear error for settings that cannot work, before anything is written.

    `planners`: those that processes share; 0: each has its own.
    """
    setup = evaluation.setup
    if evaluation.episodes < 1 or evaluation.videos < 0 or evaluation.seed < 0 or setup.max_seconds <= 0:
        raise SpecpolicyError("episodes and max_seconds must be positive, seed and videos not negative")
    if setup.batch < 1:
        raise SpecpolicyError(f"batch={setup.batch}: expected at least one episode")
    charged = any(condition.clock == "charged" for condition in evaluation.conditions)
    if charged and setup.batch > 1:
        raise SpecpolicyError(
            f"batch={setup.batch}: chunks drawn together have no time of their own to charge: "
            "use batch=1, or charge the times of a track.trace"
        )
    if charged and planners:
        raise SpecpolicyError(
            f"cluster.planners={planners}: on a shared device a chunk's time is that of the others, too: "
            "use cluster.planners=0, or charge the times of a track.trace"
        )
    share, groups = evaluation.shard, -(-evaluation.episodes // block_size(evaluation))
    if share is not None and share.number > groups:
        raise SpecpolicyError(
            f"shard={share}: {evaluation.episodes} episodes in blocks of {block_size(evaluation)} are work for "
            f"{groups} shards: ask for as many, or for more episodes"
        )
    if not setup.samplers or not evaluation.conditions:
        raise SpecpolicyError("samplers is empty: name at least one, such as samplers=[ddpm]")
    check_engine_name(setup.engine)
    if setup.engine == AUTO:
        raise SpecpolicyError("each process would choose its engine, and results would not say which: name one")
    if any(spec["name"] == EXPERT for spec in setup.samplers.values()):
        ExpertPlanner(setup.task)
    specs = {label: dict(spec) for label, spec in setup.samplers.items() if spec["name"] != EXPERT}
    for options in specs.values():
        make_sampler(**options)
    usable_device(setup.device)
    policy = setup.load() if specs else None
    with contextlib.closing(make_task_env(setup.task)) as env:
        physics = probe(env)
        if policy is None:
            return Origin(physics=physics)
        check_policy_fits(policy, env, str(setup.task["id"]), setup.any_rate)
        for condition in evaluation.conditions:
            if condition.hold is not None and len(condition.hold) != policy.action_dim:
                raise SpecpolicyError(f"hold has {len(condition.hold)} entries, an action has {policy.action_dim}")
            if is_way(condition.stitching) and condition.sampler in specs:
                policy.check_way(condition.stitching)
                check_engine(condition.stitching, setup.engine)
    for options in specs.values():
        policy.bound(make_sampler(**options))
    digests = {label: calibration_digest(policy, spec, setup.engine) for label, spec in specs.items()}
    ways = {one.stitching: way_digest(policy, one.stitching) for one in evaluation.conditions if one.sampler in specs}
    return Origin(fingerprint(policy), _known(digests), _known(ways), physics)


def _known(digests: Mapping[str, str | None]) -> dict[str, str]:
    return {label: one for label, one in digests.items() if one is not None}


def play(
    evaluation: Evaluation,
    results: Results,
    output: Path,
    crew: Crew,
    on_episode: Callable[[Played], None] = lambda played: None,
    stop: EarlyStop | None = None,
) -> None:
    """Play the episodes that `results` lacks and record each as it ends.

    A row depends only on policy, condition and seed: not on the crew, the order or an interruption. Measured times are
    the exception, and with the `charged` clock everything that follows from them. In a batch, rounding depends on the
    episodes that are played side by side. These are always the same, because an interrupted block is played again.

    Args:
        evaluation: what to play.
        results: tables to continue.
        output: directory of the evaluation.
        crew: plays the blocks of episodes.
        on_episode: called after an episode has been recorded.
        stop: conditions that it needs no more are played no more; what has been begun is finished and recorded.
    """
    done = results.done
    for row in results.episodes.rows:
        if stop is not None:
            stop.add(row["condition"], int(row["seed"]), row["success"] == "1")
    missing = [
        block
        for block in blocks(evaluation, output)
        if any((job.condition.label, job.seed) not in done for job in block)
    ]
    needed = (
        block for block in missing if stop is None or any(stop.needs(job.condition.label) for job in block)
    )  # asked for the next block when a process is free
    with contextlib.closing(crew.run(work_of(evaluation.setup), needed, len(missing))) as finished:
        for played in itertools.chain.from_iterable(finished):
            if (played.condition.label, played.episode.seed) not in done:
                if evaluation.record_actions and played.episode.tape is not None:
                    path = tape_path(output, played.condition.label, played.episode.seed)
                    write_tape(path, played.episode.tape)
                results.add(evaluation.task_name, played.condition, played.episode, played.execute_steps)
                if stop is not None:
                    stop.add(played.condition.label, played.episode.seed, played.episode.success)
                on_episode(played)


def schedule(evaluation: Evaluation, output: Path) -> list[Job]:
    """List all episodes seed by seed, so that the times of all conditions are measured side by side."""
    return [
        Job(condition, seed, str(video_path(output, condition.label, seed)) if number < evaluation.videos else None)
        for number, seed in enumerate(evaluation.seeds)
        for condition in evaluation.conditions
    ]


def blocks(evaluation: Evaluation, output: Path) -> list[list[Job]]:
    """Cut the schedule into blocks that a process takes at a time.

    A block is a single episode, or with a batch several batches of one condition's episodes. Episodes to be filmed are
    played alone. A shard has some of the blocks, each the same as in the whole evaluation.
    """
    size, share = block_size(evaluation), evaluation.shard
    found: dict[tuple[int, str, bool], list[Job]] = {}
    for job in schedule(evaluation, output):
        number = job.seed - evaluation.seed
        if share is not None and not share.has(number // size):
            continue
        filmed = job.video is not None
        found.setdefault((number if filmed else number // size, job.condition.label, filmed), []).append(job)
    return list(found.values())


def block_size(evaluation: Evaluation) -> int:
    """Return the number of seeds of a block."""
    return BATCHES * evaluation.setup.batch if evaluation.setup.batch > 1 else 1


def unfilmed(evaluation: Evaluation, results: Results, output: Path) -> int:
    """Count the finished episodes that lack their video; they are not played again for it."""
    done = results.done
    jobs = [job for job in schedule(evaluation, output) if job.video is not None]
    return sum((job.condition.label, job.seed) in done and not Path(str(job.video)).exists() for job in jobs)


def video_path(output: Path, label: str, seed: int) -> Path:
    """Return the path of an episode's video."""
    return output / "videos" / f"{file_name(label)}-{seed}.mp4"
