"""Calibrate exact sampling for a policy and this machine. Chunks come faster; their distribution stays the same.

Diffusion policies (sampler `recycled`): the policy plays episodes of its own task and is sampled at the observations it
meets. The network's outputs there give a prior on its chunks and a small student network. Then the fastest settings are
chosen for this machine from the measured time of a call by its number of rows: the number of drafting sweeps and the
draft length at each step.
Policies of action tokens: draft graphs for `decoders`, and the fastest number of drafts, which may be none.

A policy that sees is encoded once an observation: drafts are made from what its encoder returns, and an image is drawn
and kept only where it is needed. observations.safetensors then holds few observations (held_out_megabytes).

Everything is written beside the checkpoint and used from then on. What is known there about other machines and other
decoders is kept. learn=false keeps what was learnt and only finds the fastest settings on this machine or engine.

Examples:
  specpolicy calibrate policy=checkpoints/lift
  specpolicy calibrate policy=checkpoints/lift student=false
  specpolicy calibrate policy=checkpoints/lift learn=false engine=openvino
  specpolicy calibrate policy=checkpoints/can_tokens 'decoders=[confidence,{name: confidence, tokens_per_step: 4}]'
  specpolicy calibrate policy=checkpoints/can_tokens learn=false device=cuda
  specpolicy calibrate policy=my_policy observations=seen.safetensors held_out=0 output=calibrated
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig, OmegaConf

from specpolicy.errors import SpecpolicyError

if TYPE_CHECKING:
    from specpolicy.diffusion import GaussianChain
    from specpolicy.samplers.recycled.calibration import Calibration, Effort


SETTINGS = "calibrate.yaml"
LEARNT = ("speculation.safetensors", "speculation.json", "drafts.json")
# By which such files are known as ours.
KNOWN = {"speculation.json": {"format", "alpha_bar"}, "drafts.json": {"format", "length", "bins"}}
LOG = "calibrate_log"  # where a logger writes
FIGURES = ("calls", "seconds")  # per chunk, as a plan expects them


def run(config: DictConfig) -> None:
    """Run the calibration that `config` (configs/calibrate.yaml) describes."""
    from specpolicy.artifacts import local_path
    from specpolicy.cli.calibrate_tokens import calibrate_tokens
    from specpolicy.cli.engines import on_engine
    from specpolicy.cli.made_policies import log_calibrated
    from specpolicy.cli.observations import check_source
    from specpolicy.cli.own_outputs import check_own
    from specpolicy.cli.policies import output_beside, pin, run_config
    from specpolicy.evaluation.provenance import fingerprint
    from specpolicy.logging import make_logger
    from specpolicy.outputs import claim, run_name
    from specpolicy.policy import load_policy
    from specpolicy.precision import check_precision

    effort = _effort(config)  # errors are reported before an hour of work
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    output = output_beside(config)
    artifact = pin(config)
    policy: Any = load_policy(config.policy, config.device, bare=True)  # what is there is made anew
    check_precision(config.precision, policy.device)
    if policy.kind != "tokens":
        _check_chains(policy.chain, effort)
    place = local_path(config.policy)
    if not output.is_dir() and config.output is None:
        raise SpecpolicyError(f"{output} is no directory: give output=, where the calibration shall go")
    with claim(output, "calibrate"):
        check_own(output, "calibrate", _files(config, policy), _is_calibrated, settings=SETTINGS)
        if artifact is not None and not config.learn:
            _take(place, output)
        known = None if config.learn or policy.kind == "tokens" else _known(config, policy)
        about = run_config(config, artifact, fingerprint(policy), policy.control_hz)
        about["task"] = policy.config.task
        if config.learn or policy.kind != "tokens":
            check_source(policy, config)  # engines are measured next, which takes seconds
        policy = on_engine(policy, config.engine)
        # In its own directory: the log of the policy's training may lie beside the policy.
        with make_logger(config.logger, output / LOG, about, name=f"{run_name(output)}-calibrate") as logger:
            if artifact is not None:
                logger.use_policy(artifact)
            if policy.kind == "tokens":
                found = calibrate_tokens(policy, config, output)
            else:
                found = _calibrate(policy, config, output, effort, known)
            logger.summary(found)
            if config.logger.name != "none":
                log_calibrated(policy, place, output, artifact, found, logger)


def _calibrate(
    policy: Any, config: DictConfig, output: Path, effort: Effort, known: Calibration | None
) -> dict[str, Any]:
    """Calibrate and write the results to `output`, which this run holds; return the figures by name."""
    from specpolicy.cli.configuration import save_config
    from specpolicy.cli.observations import conditions, write_held_out
    from specpolicy.evaluation.provenance import hardware
    from specpolicy.samplers import calibrate

    cond = conditions(policy, config)
    if config.learn:
        write_held_out(policy, config, output)
    generator = torch.Generator().manual_seed(config.seed)
    with _stages() as progress:
        network = policy.engine or policy.denoiser
        calibration = calibrate(network, policy.chain, policy.sample_shape, cond, generator, effort, progress, known)
    calibration.fingerprint = policy.fingerprint  # covers its encoder, too
    where = policy.setting().backend
    calibration.report[where] |= {"hardware": hardware(), "threads": torch.get_num_threads()}
    if policy.encoding.sees:
        calibration.report[where]["encode_seconds"] = policy.encoding.seconds(policy.device)
    if config.learn:
        calibration.report["config"] = OmegaConf.to_container(config)
        save_config(config, output / SETTINGS, "calibrate")
    calibration.save(output)
    print(describe(calibration, where))
    print(f"wrote {output}/speculation.safetensors and .json")
    plans = calibration.plans[where]
    figures = {f"{steps}_steps/{name}": getattr(plan, name) for steps, plan in plans.items() for name in FIGURES}
    return {"calibrated_for": where, **figures}


def _take(place: Path, output: Path) -> None:
    """Copy what was learnt about a policy to the output, if nothing is known there yet."""
    from specpolicy.files import atomic_path

    if not _is_calibrated(output):
        for path in (place / name for name in LEARNT if (place / name).is_file()):
            with atomic_path(output / path.name) as temporary:
                shutil.copyfile(path, temporary)


def _files(config: DictConfig, policy: Any) -> list[str]:
    """Return the names of the files that this run writes."""
    learnt = [name for name in LEARNT if (name == "drafts.json") == (policy.kind == "tokens")]
    more = [SETTINGS] if config.learn else []
    return [*learnt, *more, *(["observations.safetensors"] if config.learn and config.held_out else [])]


def _is_calibrated(output: Path) -> bool:
    """Whether `output` holds a calibration, so that the observations beside it belong to one."""
    from specpolicy.cli.own_outputs import made_here

    return made_here(output, KNOWN)


def describe(calibration: Calibration, where: str) -> str:
    """Describe in a few lines what the calibration found on a machine."""
    report = calibration.report[where]
    cost = report["seconds_by_rows"]
    lines = ["one call: " + ", ".join(f"{rows} rows {1e3 * seconds:.1f} ms" for rows, seconds in cost.items())]
    if "encode_seconds" in report:
        seconds = report["encode_seconds"]
        lines.append(f"encoding an observation: {1e3 * seconds:.1f} ms a chunk, which no draft length changes")
    for steps, plan in calibration.plans[where].items():
        windows = plan.windows[:-2] or plan.windows
        lines += [
            f"{steps} steps: {report[f'chain_{steps}']['calls']:.2f} calls a chunk when drafting to the end",
            f"{steps} steps: fastest with windows of {min(windows)} to {max(windows)}, {plan.sweeps} sweeps and the "
            f"{'student' if plan.student else 'prior'}: {plan.calls:.2f} calls, about {1e3 * plan.seconds:.1f} ms",
        ]
    return "\n".join(lines)


def _check_chains(chain: GaussianChain, effort: Effort) -> None:
    """Refuse a chain on which there is nothing to speculate, and shorter ones that are none."""
    from specpolicy.samplers.speculative.loop import check_noise

    check_noise(chain)
    for steps in effort.steps:
        check_noise(chain if steps == len(chain) else chain.strided(steps))


def _known(config: DictConfig, policy: Any) -> Calibration:
    from specpolicy.fingerprints import check_made_for
    from specpolicy.samplers.recycled.calibration import Calibration

    directory = config.output or config.policy
    known = Calibration.load(directory)
    check_made_for(
        known.fingerprint, policy.fingerprint, f"the calibration in {directory}", "calibrate with learn=true"
    )
    return known


def _effort(config: DictConfig) -> Effort:
    from specpolicy.samplers.recycled.calibration import Distillation, Effort

    first, half = config.training_steps * 3 // 5, config.precision == "bfloat16"
    passes = (
        Distillation(first, half=half),
        Distillation(config.training_steps - first, learning_rate=3e-3, matrix_learning_rate=1e-2, half=half),
    )
    return Effort(
        chains=config.chains,
        invented=config.invented,
        rounds=config.rounds,
        passes=passes if config.student else (),
        options={"blocks": config.student_blocks},
        steps=tuple(config.steps),
    )


@contextlib.contextmanager
def _stages() -> Iterator[Any]:
    """Yield a progress function that shows one bar after another."""
    from specpolicy.logging.progress import progress_bar

    with contextlib.ExitStack() as stack:
        bar: Any = None
        seen: tuple[str, int] = ("", 0)

        def progress(what: str, done: int, total: int) -> None:
            nonlocal bar, seen
            name, _, figure = what.partition(", ")
            if name != seen[0]:
                stack.close()
                bar, seen = stack.enter_context(progress_bar(total, f"calibrate: {name}")), (name, 0)
            label, _, value = figure.partition(" ")
            bar.advance(done - seen[1], **({label: value} if figure else {}))
            seen = (name, done)

        yield progress
