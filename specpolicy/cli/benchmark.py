"""Draw chunks with several samplers and measure the cost of each chunk: calls, rows, milliseconds.

Without samplers= the samplers worth comparing for this policy are measured; the first is the reference. Samplers take
turns on the same recorded observations and the same engine, so a busy moment of the machine affects all alike. The
output directory receives table.md, summary.json and chunks.csv (one row per chunk), which `specpolicy control
clock=delay trace=...` can replay. A number after a sampler's name is its number of steps: ddim-10.

Examples:
  specpolicy benchmark policy=checkpoints/lift
  specpolicy benchmark policy=checkpoints/lift 'samplers=[ddpm,asd,block,recycled]' 'steps=[100,16]' window=end
  specpolicy benchmark policy=checkpoints/lift engine=openvino window=tuned 'network={down_dims: [256, 512, 1024]}'
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from specpolicy.cli.policies import named, pin, run_config
from specpolicy.cli.samplers import plain
from specpolicy.errors import SpecpolicyError

if TYPE_CHECKING:
    from specpolicy.artifacts import Artifact
    from specpolicy.benchmarking import Settings
    from specpolicy.logging import MetricLogger
    from specpolicy.policy import Policy
    from specpolicy.policy.histories import Histories
    from specpolicy.sampler_names import AnySampler

RECORDED_EPISODES = 40
FILES = ("chunks.csv", "table.md", "summary.json", "metrics.csv", "observations.safetensors", "config.yaml")
WINDOWS = ("calibrated", "tuned", "end")


def run(config: DictConfig, own: Policy | None = None, command: str | None = None) -> None:
    """Run the benchmark that `config` (configs/benchmark.yaml) describes.

    Args:
        config: the verb's configuration.
        own: a policy in memory, instead of the one that `config` names.
        command: the command to name in the results; None: the command line.
    """
    import torch

    from specpolicy.cli.own_outputs import check_own
    from specpolicy.outputs import claim, default_name
    from specpolicy.policy import load_policy
    from specpolicy.sampler_names import make_sampler

    if config.threads is not None:
        if not isinstance(config.threads, int) or config.threads < 1:
            raise SpecpolicyError(f"threads={config.threads}: expected at least one")
        torch.set_num_threads(config.threads)
    artifact = pin(config)
    policy = own or load_policy(config.policy, config.device)
    if config.samplers is None:
        config.samplers = list(policy.compared)
    specs, tuned = read_samplers(config)
    settings = _settings(config, tuned)
    samplers = {label: make_sampler(**spec) for label, spec in specs.items()}
    output = Path(config.output or Path("outputs/benchmark") / default_name(config.policy))
    with claim(output, "benchmark"):
        check_own(output, "benchmark", FILES)
        command = command or shlex.join(["specpolicy", *sys.argv[1:]])
        _measure(config, policy, artifact, samplers, settings, output, command)


def _measure(
    config: DictConfig,
    policy: Policy,
    artifact: Artifact | None,
    samplers: dict[str, AnySampler],
    settings: Settings,
    output: Path,
    command: str,
) -> None:
    """Measure, write and print the figures; this run holds `output`."""
    from specpolicy.benchmarking import benchmark, brief_table, notes, plain_table, write_report
    from specpolicy.cli.configuration import save_config
    from specpolicy.evaluation.provenance import fingerprint
    from specpolicy.logging import make_logger
    from specpolicy.logging.progress import progress_bar
    from specpolicy.outputs import run_name

    tuned = settings.tuned
    histories = _histories(policy, config, output)
    name = run_name(output)
    if config.logger.name != "none":  # a killed run must leave its own config beside its curves
        save_config(config, output, "benchmark")
    about = run_config(config, artifact, fingerprint(policy), policy.control_hz)
    about["task"] = about["task"] or policy.config.task
    with make_logger(config.logger, output, about, name=name) as logger:
        if artifact is not None:
            logger.use_policy(artifact)
        with progress_bar(len(tuned) + len(samplers) * settings.count, f"benchmark {name}") as bar:
            summary, draws = benchmark(
                policy,
                samplers,
                histories,
                settings,
                on_tuned=lambda label: bar.advance(1, tuned=label),
                on_draw=lambda draw: bar.advance(1),
            )
        summary["policy"] |= {"path": str(config.policy), **named(artifact)}
        summary["command"] = command
        summary["config"] = plain(config)
        try:
            save_config(config, output, "benchmark")
            write_report(summary, draws, output)
        finally:  # so that it is seen even if the disk is full
            print(plain_table(brief_table(summary)))
            print("\n".join(notes(summary, brief=True)))
        _log(summary, output, logger)
    print(f"table.md, summary.json and chunks.csv are in {output}")


def read_samplers(config: DictConfig) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return each sampler's options by label, and the labels of samplers whose draft length is to be tuned.

    `steps` and `window` apply to samplers that have this option and do not set it themselves.
    """
    from specpolicy.cli.samplers import sampler_specs

    directories = config.get("config_directories", [])
    lengths = _lengths(config.steps)
    # Labels without `steps`; this reports a sampler that is listed twice.
    entries = [dict(entry) if isinstance(entry, dict) else {"name": str(entry)} for entry in plain(config.samplers)]
    named = list(zip(entries, sampler_specs(entries, directories).items(), strict=True))
    wanted = []
    for index, steps in enumerate(lengths):
        for entry, (label, spec) in named:
            if steps is None or spec.get("steps"):
                wanted += [entry] if index == 0 else []
            else:
                own = {"label": f"{label}-{steps}"} if "label" in entry else {}
                wanted.append({**entry, "steps": steps, **own})
    specs = sampler_specs(wanted, directories)
    tuned = []
    for entry, (label, spec) in zip(wanted, specs.items(), strict=True):
        if "window" in entry or not _speculates(spec["name"]):
            continue
        if config.window == "tuned":
            tuned.append(label)
        elif config.window != "calibrated":
            spec["window"] = None if config.window == "end" else config.window
    return specs, tuned


def _lengths(steps: Any) -> list[int | None]:
    if steps is None:
        return [None]
    lengths = list(plain(steps)) if OmegaConf.is_list(steps) else [steps]
    if not lengths or not all(type(length) is int and length > 0 for length in lengths):
        raise SpecpolicyError(f"steps={steps}: expected numbers of steps, such as [100, 16]")
    return lengths


def _speculates(name: str) -> bool:
    from specpolicy.samplers.registry import SAMPLERS
    from specpolicy.samplers.speculative.samplers import Speculative

    return name in SAMPLERS and issubclass(SAMPLERS[name], Speculative)


def _settings(config: DictConfig, tuned: list[str]) -> Settings:
    from specpolicy.benchmarking import Settings

    window, network = config.window, plain(config.network)
    if config.count < 1:
        raise SpecpolicyError(f"count={config.count}: expected at least one chunk")
    if window not in WINDOWS and not (isinstance(window, int) and window > 0):
        raise SpecpolicyError(f"window={window}: expected {', '.join(WINDOWS)}, or a number of drafts")
    if network is not None and not isinstance(network, dict):
        raise SpecpolicyError(f"network={network}: expected its options, such as {{down_dims: [256, 512, 1024]}}")
    return Settings(config.count, config.seed, config.engine, config.precision, network, tuned, config.reference)


def _histories(policy: Policy, config: DictConfig, output: Path) -> Histories:
    """Return the recorded observations; without any, record those of a task now and keep them in `output`."""
    from specpolicy.artifacts import local_path
    from specpolicy.cli.configuration import save_config
    from specpolicy.policy.histories import FILE, read_histories, write_histories

    path = Path(config.observations or local_path(config.policy) / FILE)
    if config.observations or path.exists():
        return read_histories(path, policy)
    if config.task is None:
        # A policy whose best sampler is this one has no noise, and then nothing to calibrate.
        calibrate = "" if policy.best_sampler == "ddpm" else f"run `specpolicy calibrate policy={config.policy}`, or "
        raise SpecpolicyError(
            f"no recorded observations at {path}: {calibrate}give task= to record some now, or observations= another "
            "file"
        )
    histories = _record(config)
    save_config(config, output, "benchmark")
    write_histories(output / FILE, histories)
    return histories


def _record(config: DictConfig) -> Histories:
    from specpolicy.cli.configuration import load_option
    from specpolicy.cli.observations import HELD_OUT_SEEDS
    from specpolicy.evaluation.provenance import hardware
    from specpolicy.evaluation.recording import record_histories
    from specpolicy.logging.progress import progress_bar

    directories = config.get("config_directories", [])
    task: Any = plain(load_option("task", config.task, directories) if isinstance(config.task, str) else config.task)
    episodes = min(RECORDED_EPISODES, config.count)
    workers = hardware()["cores"] if episodes > 1 else 0
    with progress_bar(episodes, "play for observations") as bar:
        return record_histories(
            config.policy,
            task,
            config.count,
            HELD_OUT_SEEDS,
            episodes,
            workers,
            on_episode=bar.advance,
            any_rate=config.any_rate,
        )


def _log(summary: dict[str, Any], output: Path, logger: MetricLogger) -> None:
    """Hand the figures, the table and the files to a logger."""
    from specpolicy.benchmarking import result_table

    figures: dict[str, float] = {}
    for sampler in summary["samplers"]:
        for name in ("calls", "rows", "seconds", "encode_seconds"):
            figures |= {f"{sampler['label']}/{name}_{key}": value for key, value in sampler[name].items()}
        figures[f"{sampler['label']}/ratio"] = sampler["ratio"]["p50"]
        for name in ("bound", "launches"):
            figures |= {f"{sampler['label']}/{name}_{key}": value for key, value in sampler[name].items()}
    logger.summary(figures)
    columns, *rows = result_table(summary)
    logger.log_table("results", columns, rows)
    for file in ("table.md", "summary.json", "chunks.csv"):
        logger.log_file(file, output / file)
