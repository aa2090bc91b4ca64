"""An evaluation: every condition on the same seeds, over processes, resumable."""

import contextlib
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from specpolicy.engines import AUTO, check_engine_name
from specpolicy.errors import SpecpolicyError
from specpolicy.evaluation.calibrations import calibration_digest
from specpolicy.evaluation.conditions import Condition
from specpolicy.evaluation.planners import ExpertPlanner, check_policy_fits
from specpolicy.evaluation.player import EXPERT, Job, Played, Setup
from specpolicy.evaluation.provenance import fingerprint, hardware
from specpolicy.evaluation.results import Results
from specpolicy.evaluation.together import Players
from specpolicy.files import write_text
from specpolicy.loading import usable_device
from specpolicy.outputs import file_name, matching, remove
from specpolicy.processes import run_jobs
from specpolicy.sampler_names import beyond_defaults, make_sampler
from specpolicy.tasks import kept_task, make_task_env

FORMAT = 3
SETTINGS = "settings.json"
BATCHES = 4  # of a block: more keep the batch full for longer, and cost more when a run is interrupted
WRITTEN = ("episodes.csv", "chunks.csv", "summary.json", "report.html", "metrics.csv", "plot_*.png")
REMOVED = (
    *WRITTEN,
    "wandb_run_id.txt",
    "wandb_row.txt",
    "videos/*-[0-9]*.mp4",
    "config.yaml",
    SETTINGS,
)  # what tells whose it is, last


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated: the shared setup, and which episodes.

    Attributes:
        setup: task, policy, samplers and limits.
        conditions: the ways in which the samplers are played; the first is the reference.
        episodes: episodes of each condition.
        seed: of the first episode; the others follow. All conditions play the same seeds.
        videos: how many of the first episodes of each condition are filmed.
    """

    setup: Setup
    conditions: tuple[Condition, ...]
    episodes: int
    seed: int
    videos: int = 0

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
    """What figures come from, known by hashes.

    Attributes:
        policy: its fingerprint; None if only the scripted expert is evaluated.
        calibrations: by label of the sampler, of those that take something from a calibration or a draft model.
    """

    policy: str | None = None
    calibrations: Mapping[str, str] = field(default_factory=dict)


def check(evaluation: Evaluation) -> Origin:
    """Raise a clear error for settings that cannot work, before anything is written."""
    setup = evaluation.setup
    if evaluation.episodes < 1 or evaluation.videos < 0 or evaluation.seed < 0 or setup.max_seconds <= 0:
        raise SpecpolicyError("episodes and max_seconds must be positive, seed and videos not negative")
    if setup.batch < 1:
        raise SpecpolicyError(f"batch={setup.batch}: expected at least one episode")
    if setup.batch > 1 and any(condition.clock == "charged" for condition in evaluation.conditions):
        raise SpecpolicyError(
            f"batch={setup.batch}: chunks drawn together have no time of their own to charge: "
            "use batch=1, or charge the times of a track.trace"
        )
    if not setup.samplers or not evaluation.conditions:
        raise SpecpolicyError("samplers is empty: name at least one, such as samplers=[ddpm]")
    check_engine_name(setup.engine)
    if setup.engine == AUTO:
        raise SpecpolicyError("each process would choose its engine, and results would not say which: name one")
    if any(spec["name"] == EXPERT for spec in setup.samplers.values()):
        ExpertPlanner(str(setup.task["id"]))
    specs = {label: dict(spec) for label, spec in setup.samplers.items() if spec["name"] != EXPERT}
    for options in specs.values():
        make_sampler(**options)
    usable_device(setup.device)
    policy = setup.load() if specs else None
    with contextlib.closing(make_task_env(setup.task)) as env:
        if policy is None:
            return Origin()
        check_policy_fits(policy, env, str(setup.task["id"]), setup.any_rate)
        for condition in evaluation.conditions:
            if condition.hold is not None and len(condition.hold) != policy.action_dim:
                raise SpecpolicyError(f"hold has {len(condition.hold)} entries, an action has {policy.action_dim}")
    for options in specs.values():
        policy.bound(make_sampler(**options))
    digests = {label: calibration_digest(policy, spec, setup.engine) for label, spec in specs.items()}
    return Origin(fingerprint(policy), {label: digest for label, digest in digests.items() if digest is not None})


def claim(evaluation: Evaluation, origin: Origin, output: Path, overwrite: bool = False) -> Results:
    """Make the output directory ready and return the results it holds already.

    A directory of the same settings is continued; more episodes or other conditions may be asked for than before.

    Raises:
        SpecpolicyError: it holds other settings, or files that no evaluation has written, which nothing overwrites.
    """
    # The others change no result, or are known by what follows: policy by fingerprint, samplers by conditions.
    setup = {name: getattr(evaluation.setup, name) for name in ("task", "device", "engine", "max_seconds", "batch")}
    setup["task"] = kept_task(evaluation.setup.task)
    setup["conditions"] = {
        condition.label: _settings(condition, evaluation.setup, origin) for condition in evaluation.conditions
    }
    wanted = json.loads(json.dumps({"format": FORMAT, **setup, "policy": origin.policy, "seed": evaluation.seed}))
    path = output / SETTINGS
    machines = [hardware()]
    found = _read_settings(path)
    if found is None and (foreign := matching(output, WRITTEN)):
        raise SpecpolicyError(f"{output} holds {foreign[0].name} without {SETTINGS}: choose another output")
    if found is not None and overwrite:
        remove(output, REMOVED)
    elif found is not None:
        machines = [*found["machines"], *(machine for machine in machines if machine not in found["machines"])]
        # Rows belong to a condition and a seed, so other conditions may join; one of the same label must be the same.
        _require_same({key: value for key, value in wanted.items() if key != "conditions"}, found, output)
        wanted["conditions"] = {**found["conditions"], **wanted["conditions"]}
        for label, condition in found["conditions"].items():
            now = wanted["conditions"][label]
            _require_same({label: _comparable(now)}, {label: _comparable(condition)}, output)
            if now.get("calibration") != condition.get("calibration"):
                raise SpecpolicyError(
                    f"{output}: the policy's calibration or draft model is not known to be the one that '{label}' was "
                    "played with: choose another output, or set overwrite=true"
                )
    write_text(path, json.dumps({**wanted, "machines": machines}, indent=2) + "\n")
    return Results(output)


def play(
    evaluation: Evaluation,
    results: Results,
    output: Path,
    workers: int,
    on_episode: Callable[[Played], None] = lambda played: None,
) -> None:
    """Play the episodes that `results` lacks and record each as it ends.

    A row depends on the policy, the condition and the seed alone, its measured times apart and unless the clock charges
    them: not on `workers`, on the order or on an interruption. With a batch its rounding depends on the episodes that
    it is played beside, always the same ones: a block that was interrupted is played again.

    Args:
        workers: processes; 0 plays in this one.
        on_episode: called after an episode has been recorded.
    """
    done = results.done
    missing = [
        block
        for block in blocks(evaluation, output)
        if any((job.condition.label, job.seed) not in done for job in block)
    ]
    with contextlib.closing(run_jobs(Players, evaluation.setup, missing, min(workers, len(missing)))) as finished:
        for played in itertools.chain.from_iterable(finished):
            if (played.condition.label, played.episode.seed) not in done:
                results.add(evaluation.task_name, played.condition, played.episode, played.execute_steps)
                on_episode(played)


def schedule(evaluation: Evaluation, output: Path) -> list[Job]:
    """All episodes, seed by seed: the conditions progress together, so that their times are measured side by side."""
    return [
        Job(condition, seed, str(video_path(output, condition.label, seed)) if number < evaluation.videos else None)
        for number, seed in enumerate(evaluation.seeds)
        for condition in evaluation.conditions
    ]


def blocks(evaluation: Evaluation, output: Path) -> list[list[Job]]:
    """The schedule in pieces that a process takes at a time: single episodes, or with a batch some batches of the
    episodes of a condition, by their number. Episodes that are filmed are played alone."""
    size = BATCHES * evaluation.setup.batch if evaluation.setup.batch > 1 else 1
    found: dict[tuple[int, str, bool], list[Job]] = {}
    for job in schedule(evaluation, output):
        number = job.seed - evaluation.seed
        filmed = job.video is not None
        found.setdefault((number if filmed else number // size, job.condition.label, filmed), []).append(job)
    return list(found.values())


def unfilmed(evaluation: Evaluation, results: Results, output: Path) -> int:
    """How many of the episodes to be filmed are done without a video: they are not played again for one."""
    done = results.done
    jobs = [job for job in schedule(evaluation, output) if job.video is not None]
    return sum((job.condition.label, job.seed) in done and not Path(str(job.video)).exists() for job in jobs)


def video_path(output: Path, label: str, seed: int) -> Path:
    """Where the video of an episode is written."""
    return output / "videos" / f"{file_name(label)}-{seed}.mp4"


def _settings(condition: Condition, setup: Setup, origin: Origin) -> dict[str, Any]:
    """What the condition's results depend on; a trace and a calibration are known by their content."""
    options = {name: value for name, value in asdict(condition).items() if name not in ("sampler", "trace")}
    digest = origin.calibrations.get(condition.sampler)
    return {
        "sampler": dict(setup.samplers[condition.sampler]),
        **options,
        **({} if digest is None else {"calibration": digest}),
    }


def _comparable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a condition but its calibration; a later version may know more options of its sampler."""
    others = {name: value for name, value in settings.items() if name != "calibration"}
    return {**others, "sampler": beyond_defaults(settings["sampler"])}


def is_evaluation(output: Path) -> bool:
    """Whether an evaluation has written into a directory."""
    return _read_settings(output / SETTINGS) is not None


def _read_settings(path: Path) -> dict[str, Any] | None:
    """The settings of the evaluation that a directory holds, None if it holds none."""
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or not {"conditions", "machines", "format"} <= found.keys():
        raise SpecpolicyError(f"{path} is not of an evaluation: choose another output")
    return found


def _require_same(wanted: dict[str, Any], found: dict[str, Any], output: Path) -> None:
    for key, value in wanted.items():
        if found.get(key) != value:
            described = (
                "another policy" if key == "policy" else f"{key}={json.dumps(found.get(key))}, not {json.dumps(value)}"
            )
            raise SpecpolicyError(f"{output} was made with {described}: choose another output, or set overwrite=true")
