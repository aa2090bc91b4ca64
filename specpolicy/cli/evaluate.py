"""Play a policy with one or more samplers on the same seeds; measure success and time per chunk.

The world waits while the policy computes. Each sampler plays the same episodes; an outcome depends on the policy, the
sampler and the seed alone, not on the number of workers. The output directory receives report.html with its plots
and videos, summary.json, and the tables episodes.csv and chunks.csv. Killed and started again, the same command goes
on where it stopped; with more episodes or other samplers it adds them.

Examples:
  specpolicy evaluate task=lift policy=checkpoints/lift
  specpolicy evaluate task=lift policy=checkpoints/lift 'samplers=[ddpm,ddim]' episodes=50 workers=2
  specpolicy evaluate task=can policy=checkpoints/can 'samplers=[ddim,{name: ddim, steps: 4},expert]' logger=wandb
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from specpolicy.errors import SpecpolicyError

if TYPE_CHECKING:
    from specpolicy.evaluation.player import Played
    from specpolicy.evaluation.results import Results
    from specpolicy.evaluation.runner import Evaluation
    from specpolicy.logging import MetricLogger


def run(config: DictConfig) -> None:
    """Evaluate as `config` (configs/evaluate.yaml) says."""
    from specpolicy.cli.configuration import save_config
    from specpolicy.evaluation import runner
    from specpolicy.evaluation.provenance import hardware, load
    from specpolicy.logging import make_logger

    evaluation = _evaluation(config)
    output = Path(config.output)
    workers = hardware()["cores"] if config.workers is None else config.workers
    if workers < 0:
        raise SpecpolicyError(f"workers={workers}: expected 0 or more")
    fingerprint = runner.check(evaluation)
    results = runner.claim(evaluation, fingerprint, output, config.overwrite)
    save_config(config, output)
    busy = load()
    if busy is not None and busy + max(workers, 1) > hardware()["cores"] + 0.5:
        print(
            f"the machine is busy (load {busy} on {hardware()['cores']} cores): times per chunk will be too long",
            file=sys.stderr,
        )
    with make_logger(config.logger, output, _plain(config), name=output.name) as logger:
        try:
            _play(evaluation, results, output, workers, logger)
        except KeyboardInterrupt:
            print(f"{len(results.done)} episodes are kept in {output}; the same command goes on", file=sys.stderr)
            raise
        provenance = {
            "policy": {"path": str(config.policy), "fingerprint": fingerprint},
            "device": str(config.device),
            "workers": workers,
            "load_at_start": busy,
            "machines": json.loads((output / runner.SETTINGS).read_text(encoding="utf-8"))["machines"],
            "command": shlex.join(["specpolicy", *sys.argv[1:]]),
            "config": _plain(config),
        }
        _report(evaluation, results, output, provenance, logger)


def sampler_specs(entries: Any, config_directories: Any = ()) -> dict[str, dict[str, Any]]:
    """The samplers of a list of names and mappings, by label.

    An entry's options are those of the config group `sampler`, overridden by its own. Its label is its `label`, or its
    name, its number of steps and what else differs from the group: "ddim-4", "ddim-10-eta1.0".
    """
    from specpolicy.cli.configuration import load_option
    from specpolicy.evaluation.player import EXPERT

    specs: dict[str, dict[str, Any]] = {}
    for entry in entries:
        own = dict(entry) if isinstance(entry, dict) else {"name": str(entry)}
        if "name" not in own:
            raise SpecpolicyError(f"samplers: {entry} has no name; write for instance {{name: ddim, steps: 4}}")
        label = own.pop("label", None)
        shipped: dict[str, Any] = {"name": EXPERT}
        if own["name"] != EXPERT:
            shipped = _plain(load_option("sampler", own["name"], config_directories))
        spec = {**shipped, **own}
        if label is None:
            label = spec["name"] + (f"-{spec['steps']}" if spec.get("steps") else "")
            for option, value in own.items():
                if option not in ("name", "steps") and value != shipped.get(option):
                    label += f"-{option}{value}"
        if str(label) in specs:
            raise SpecpolicyError(f"samplers: two are called '{label}'; leave one out or give it another label: ...")
        specs[str(label)] = spec
    return specs


def read_video_size(size: Any) -> tuple[int, int]:
    """(height, width) in pixels."""
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise SpecpolicyError(f"video_size={list(size)}: expected [height, width] in pixels")
    return size[0], size[1]


def _evaluation(config: DictConfig) -> Evaluation:
    from specpolicy.evaluation.player import EXPERT, Setup
    from specpolicy.evaluation.runner import Evaluation

    entries = [EXPERT] if config.policy == EXPERT else _plain(config.samplers)
    setup = Setup(
        task=_plain(config.task),
        policy=str(config.policy),
        samplers=sampler_specs(entries, config.get("config_directories", [])),
        device=str(config.device),
        max_seconds=float(config.max_seconds),
        video_size=read_video_size(config.video_size),
    )
    return Evaluation(setup, config.episodes, config.seed, config.videos)


def _play(evaluation: Evaluation, results: Results, output: Path, workers: int, logger: MetricLogger) -> None:
    """Play what is missing, with a progress bar that shows each sampler's success so far."""
    from specpolicy.evaluation import runner
    from specpolicy.logging.progress import progress_bar

    wanted = {(label, seed) for label in evaluation.setup.samplers for seed in evaluation.seeds}
    outcomes: dict[str, list[bool]] = {label: [] for label in evaluation.setup.samplers}
    for row in results.episodes.rows:
        if (row["sampler"], int(row["seed"])) in wanted:
            outcomes[row["sampler"]].append(row["success"] == "1")
    done = sum(map(len, outcomes.values()))
    missing: set[str] = set()
    with progress_bar(len(wanted), f"evaluate {evaluation.task_name}", done=done) as bar:

        def on_episode(played: Played) -> None:
            if played.no_video and played.no_video not in missing:
                missing.add(played.no_video)
                print(f"no videos: {played.no_video}", file=sys.stderr)
            outcomes[played.label].append(played.episode.success)
            rates = {label: sum(found) / len(found) for label, found in outcomes.items() if found}
            bar.advance(1, **rates)
            count = sum(map(len, outcomes.values()))
            logger.log({f"{played.label}/success_rate": rates[played.label]}, step=count)

        runner.play(evaluation, results, output, workers, on_episode)


def _report(
    evaluation: Evaluation, results: Results, output: Path, provenance: dict[str, Any], logger: MetricLogger
) -> None:
    """Write summary.json, the plots and report.html; hand all of it to the logger; print the table."""
    from specpolicy.evaluation.plots import write_plots
    from specpolicy.evaluation.report import text_table, write_report
    from specpolicy.evaluation.summary import chunk_seconds, summarise
    from specpolicy.files import write_text

    summary = summarise(evaluation, results, output, provenance)
    write_text(output / "summary.json", json.dumps(summary, indent=2) + "\n")
    plots = write_plots(summary, chunk_seconds(evaluation, results), output)
    report = write_report(summary, plots, output)
    _log(summary, plots, output, logger)
    print(text_table(summary))
    print(f"report: {report}")


def _log(summary: dict[str, Any], plots: dict[str, str], output: Path, logger: MetricLogger) -> None:
    """Hand the figures, the table, the plots, the videos and the files to a logger."""
    from specpolicy.evaluation.report import result_table

    figures: dict[str, float] = {}
    videos: dict[str, str] = {}
    for sampler in summary["samplers"]:
        label = sampler["label"]
        figures[f"{label}/success_rate"] = sampler["success_rate"]["estimate"]
        for name in ("max_coverage", "return", "length"):
            if sampler[name]:
                figures[f"{label}/{name}"] = sampler[name]["estimate"]
        if sampler["chunk_seconds"]:
            figures |= {f"{label}/chunk_seconds_{name}": value for name, value in sampler["chunk_seconds"].items()}
            figures |= {f"{label}/{name}": sampler[name] for name in ("calls", "rows", "network_share")}
        videos |= {f"videos/{label}-{video['seed']}": video["path"] for video in sampler["videos"]}
    logger.summary(figures)
    columns, *rows = result_table(summary)
    logger.log_table("results", columns, rows)
    for title, file in plots.items():
        logger.log_file(f"plots/{title}", output / file)
    for name, path in videos.items():
        logger.log_file(name, output / path)
    for file in ("summary.json", "episodes.csv", "chunks.csv", "report.html"):
        logger.log_file(file, output / file)


def _plain(config: Any) -> Any:
    """The configuration as plain lists and dicts."""
    return OmegaConf.to_container(config, resolve=True)
