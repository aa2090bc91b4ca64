"""Play a policy under several conditions on the same seeds; measure success and what inference time costs.

A condition is a sampler, what its time means for the world (track), and how its chunks are joined (stitching). All
conditions play the same episodes. Without samplers= the policy's best exact sampler plays alone. The output directory
receives report.html with plots and videos, summary.json, and the tables episodes.csv and chunks.csv. To continue after
a kill, run the same command again; with more episodes, samplers or conditions it adds them.

track=paused: the world waits while the policy computes. An outcome depends only on policy, sampler and seed.
track=delay: a chunk takes a fixed number of control steps. Equally reproducible; the machine's speed plays no part.
  Keys: track.delays; track.swept_execute_steps, more execution horizons to play at the delay track.swept_at.
track=charged: the world moves on by the measured time of every call. Keys: track.factors on this time (0: the world
  waits); track.trace, a CSV file of recorded calls (columns sampler, seconds) to charge instead.
track=budget: as charged; reports the success of each method at its best setting within a latency budget. Keys:
  track.budgets_ms, track.factor, track.trace.

cluster.planners=1 batch=16: one policy draws the chunks of all processes. cluster=ray: many machines (docs/clusters.md)

Examples:
  specpolicy evaluate task=lift policy=checkpoints/lift 'samplers=[ddpm,ddim]' episodes=50
  specpolicy evaluate task=can policy=checkpoints/can 'samplers=[ddim,ddim-4,recycled-16,expert]' logger=wandb
  specpolicy evaluate task=lift policy=checkpoints/lift track=delay 'track.delays=[0,2,4,8]'
  specpolicy evaluate task=lift_conveyor policy=checkpoints/lift_conveyor track=charged 'samplers=[ddpm,recycled]'
  specpolicy evaluate task=lift policy=checkpoints/lift track=budget 'samplers=[ddim-4,ddim,recycled]' \\
      'track.budgets_ms=[20,50,100]' 'stitching=[continue_chunk,naive_switch]'
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from specpolicy.cli.evaluation_plan import check_shard, early_stop, on_engine, planned
from specpolicy.cli.evaluation_report import report
from specpolicy.cli.policies import named, pin, run_config
from specpolicy.cli.samplers import plain
from specpolicy.errors import SpecpolicyError

if TYPE_CHECKING:
    from specpolicy.artifacts import Artifact
    from specpolicy.cluster import Crew
    from specpolicy.evaluation.player import Played
    from specpolicy.evaluation.results import Results
    from specpolicy.evaluation.runner import Evaluation, Origin
    from specpolicy.evaluation.stopping import EarlyStop
    from specpolicy.logging import MetricLogger
    from specpolicy.policy import Policy

MOST_RATES = 6  # success rates beside the progress bar


def run(config: DictConfig, policy: Policy | None = None, command: str | None = None) -> None:
    """Run the evaluation that `config` (configs/evaluate.yaml) describes.

    Args:
        config: the verb's configuration.
        policy: a policy in memory, instead of the one that `config` names.
        command: the command to name in the results; None: the command line.
    """
    from specpolicy.cli.clusters import Needs, cluster_options, opened, paths_of
    from specpolicy.cli.own_outputs import check_own
    from specpolicy.evaluation import runner, settings
    from specpolicy.evaluation.tracks import times_are_measured
    from specpolicy.outputs import claim

    if not (0 < config.margin < 1 and 0 < config.expected_success < 1):
        raise SpecpolicyError("margin and expected_success must lie between 0 and 1")
    artifact = pin(config)
    track, evaluation = planned(config, policy)
    references = [str(label) for label in config.references]
    for label in references:
        if label not in evaluation.setup.samplers:
            known = ", ".join(evaluation.setup.samplers)
            raise SpecpolicyError(f"references: no sampler is called '{label}'; there are {known}")
    stop = early_stop(config, track, evaluation, references)
    # One at a time if outcomes depend on times: episodes side by side slow each other down.
    options = cluster_options(config, alone=times_are_measured(track))
    output = Path(config.output)
    if evaluation.shard is not None:
        check_shard(config, policy is not None or command is not None)
        output = evaluation.shard.directory(output)
    with claim(output, "evaluate"):
        check_own(output, "evaluate", ["config.yaml"], settings.is_evaluation, config.overwrite)
        command = command or shlex.join(["specpolicy", *sys.argv[1:]])
        evaluation = on_engine(evaluation, output)
        origin = runner.check(evaluation, options.planners)
        seen = paths_of(config, track, pinned=artifact is not None or policy is not None)
        needs = Needs(output, evaluation.setup.task, seen, str(config.device), times_are_measured(track))
        with opened(options, needs) as crew:
            _evaluate(config, evaluation, origin, artifact, track, references, output, crew, command, stop)


def _evaluate(
    config: DictConfig,
    evaluation: Evaluation,
    origin: Origin,
    artifact: Artifact | None,
    track: dict[str, Any],
    references: list[str],
    output: Path,
    crew: Crew,
    command: str,
    stop: EarlyStop | None,
) -> None:
    """Play what the output lacks and write the report; this run holds the output."""
    from specpolicy.cli.configuration import save_config
    from specpolicy.evaluation import runner, settings
    from specpolicy.evaluation.merging import Plan, write_plan
    from specpolicy.evaluation.power import sample_size_note
    from specpolicy.evaluation.provenance import hardware, load
    from specpolicy.evaluation.tracks import times_are_measured
    from specpolicy.logging import make_logger
    from specpolicy.outputs import run_name
    from specpolicy.tasks import task_hz

    cores = hardware()["cores"]
    results = settings.claim(evaluation, origin, output, config.overwrite)
    save_config(config, output, "evaluate")
    note = sample_size_note(config.episodes, config.expected_success, config.margin)
    print(f"{len(evaluation.conditions)} conditions. {note}")
    busy = load()
    if track.get("trace") is None and busy is not None and busy + max(crew.workers, 1) > cores + 0.5:
        print(
            f"the machine is busy (load {busy} on {cores} cores): times per chunk will be too long"
            + (", and success too low" if times_are_measured(track) else ""),
            file=sys.stderr,
        )
    if origin.physics is not None and not origin.physics.seeded:
        print(
            "the seed does not decide this task's episodes: conditions play different scenes, so differences are not "
            "paired, and no other run has these rows",
            file=sys.stderr,
        )
    if evaluation.setup.batch > 1:
        print(f"chunks are drawn up to {evaluation.setup.batch} at a time: times per chunk are those of a whole batch")
    if without := runner.unfilmed(evaluation, results, output):
        print(f"{without} of the episodes to be filmed are done and have no video: only new episodes are filmed")
    hz = None if config.logger.name == "none" else task_hz(evaluation.setup.task)
    about = run_config(config, artifact, origin.policy, hz)
    with make_logger(config.logger, output, about, name=run_name(output)) as logger:
        if artifact is not None:
            logger.use_policy(artifact)
        provenance = {
            "policy": {"path": str(config.policy), "fingerprint": origin.policy, **named(artifact)},
            "device": str(config.device),
            "engine": evaluation.setup.engine,
            "workers": crew.workers,
            "cluster": crew.about,
            "batch": evaluation.setup.batch,
            "load_at_start": busy,
            "sample_size": note,
            "command": command,
            "config": plain(config),
        }
        plan = Plan(evaluation, track, tuple(references), config.margin, provenance)
        if evaluation.shard is not None:
            write_plan(output, plan)
        try:
            _play(evaluation, results, output, crew, logger, stop)
        except KeyboardInterrupt:
            print(f"{len(results.done)} episodes are kept in {output}; the same command goes on", file=sys.stderr)
            raise
        if evaluation.shard is None:
            report(plan, results, output, logger, stop)
        else:
            print(f"shard {evaluation.shard} is in {output}; specpolicy merge out={config.output} joins them all")


def _play(
    evaluation: Evaluation,
    results: Results,
    output: Path,
    crew: Crew,
    logger: MetricLogger,
    stop: EarlyStop | None,
) -> None:
    """Play what is missing, with a progress bar that shows the success so far."""
    from specpolicy.evaluation import runner
    from specpolicy.logging.progress import progress_bar

    wanted = {(job.condition.label, job.seed) for block in runner.blocks(evaluation, output) for job in block}
    outcomes: dict[str, list[bool]] = {condition.label: [] for condition in evaluation.conditions}
    for row in results.episodes.rows:
        if (row["condition"], int(row["seed"])) in wanted:
            outcomes[row["condition"]].append(row["success"] == "1")
    done = sum(map(len, outcomes.values()))
    missing: set[str] = set()
    with progress_bar(len(wanted), f"evaluate {evaluation.task_name}", done=done) as bar:

        def on_episode(played: Played) -> None:
            if played.no_video and played.no_video not in missing:
                missing.add(played.no_video)
                print(f"no videos: {played.no_video}", file=sys.stderr)
            label = played.condition.label
            outcomes[label].append(played.episode.success)
            rates = {name: sum(found) / len(found) for name, found in outcomes.items() if found}
            count = sum(map(len, outcomes.values()))
            overall = {"success": sum(map(sum, outcomes.values())) / count}
            bar.advance(1, **(rates if len(outcomes) <= MOST_RATES else overall))
            logger.log({f"{label}/success_rate": rates[label]}, step=count)

        runner.play(evaluation, results, output, crew, on_episode, stop)
