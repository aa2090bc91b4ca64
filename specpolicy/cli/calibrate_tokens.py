"""`specpolicy calibrate` for policies of action tokens: draft graphs, and how many drafts pay on this machine."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig, OmegaConf

from specpolicy.errors import SpecpolicyError

if TYPE_CHECKING:
    from specpolicy.token_policy import TokenPolicy
    from specpolicy.tokens.calibration import DecoderCalibration, TokenCalibration
    from specpolicy.tokens.samplers import TokenSampler

LOOKAHEAD_CHUNKS = 40  # chunks that are decoded for each number of drafts of a chain or a fixed point
BATCH = 20  # chunks that are decoded side by side


def calibrate_tokens(policy: TokenPolicy, config: DictConfig, output: Path) -> TokenCalibration:
    """Calibrate each of `config.decoders`, or only time calls again (`config.learn`); written to `output`, beside what
    is known there of other decoders and machines, and returned."""
    from specpolicy.cli.configuration import save_config
    from specpolicy.cli.observations import conditions, write_held_out
    from specpolicy.logging.progress import progress_bar

    if not config.learn:
        return _time_again(policy, config, output)
    if not isinstance(config.traces, int) or config.traces < 2:
        raise SpecpolicyError(f"traces={config.traces}: expected at least 2 chunks to calibrate on")
    _check_choices(config)
    samplers = _samplers(policy, config)
    calibration = _timed(policy, _known(policy, output, learn=True), {"config": OmegaConf.to_container(config)})
    cost = calibration.costs[policy.machine]
    wanted = config.copy()
    wanted.count = config.traces
    cond = conditions(policy, wanted)[: config.traces]
    write_held_out(policy, config, output)
    save_config(config, output / "calibrate.yaml", "calibrate")
    generator = torch.Generator().manual_seed(config.seed)
    with progress_bar(len(samplers), "calibrate decoders") as bar:
        for law, sampler in samplers.items():
            calibration = calibration.added(law, _calibrate(policy, sampler, cond, cost, generator, config))
            calibration.save(output)  # each at once: the next one may fail, or be interrupted
            bar.advance()
    return calibration


def describe(calibration: TokenCalibration, machine: str) -> str:
    """What was found for a machine, in a few lines."""
    cost = calibration.costs[machine]
    lines = ["one call: " + ", ".join(f"{rows} rows {1e3 * seconds:.1f} ms" for rows, seconds in cost.items())]
    for law, found in calibration.decoders.items():
        table = ", ".join(f"{drafts}: {number:.1f}" for drafts, number in found.report["calls"].items())
        lines.append(f"{law}: {_chosen(found, machine)}; calls by drafts {table}")
    return "\n".join(lines)


def _chosen(found: DecoderCalibration, machine: str) -> str:
    if machine not in found.drafts:
        return "not chosen on this machine (learn=false does so)"
    if found.drafts[machine]:
        return f"{found.drafts[machine]} drafts ({found.drafter.replace('_', ' ')})"
    if len(found.report["calls"]) == 1:
        return "no drafts: a decoder of so few steps leaves nothing to draft"
    return "no drafts: on this machine their rows cost more than the calls they save"


def _check_choices(config: DictConfig) -> None:
    """Refuse what no decoder can be calibrated by, before an hour of work."""
    from specpolicy.tokens.calibration import DIVISIONS, OBJECTIVES

    if config.graphs not in (None, *DIVISIONS):
        raise SpecpolicyError(f"graphs={config.graphs}: use one of {', '.join(DIVISIONS)}, or null")
    if config.objective not in OBJECTIVES:
        raise SpecpolicyError(f"objective={config.objective}: use one of {', '.join(OBJECTIVES)}")


def _samplers(policy: TokenPolicy, config: DictConfig) -> dict[str, TokenSampler]:
    """The decoders by law, without what an earlier calibration chose for them."""
    from specpolicy.cli.evaluate import sampler_specs
    from specpolicy.samplers import make_sampler

    specs = sampler_specs(OmegaConf.to_container(config.decoders), config.get("config_directories", []))
    bare = copy.copy(policy)
    bare.calibration = None
    samplers: dict[str, TokenSampler] = {}
    for label, spec in specs.items():
        sampler = bare.equip(make_sampler(**spec))
        if sampler.law in samplers:
            raise SpecpolicyError(f"decoders: '{label}' has the law of one before it ({sampler.law}): leave one out")
        samplers[sampler.law] = sampler
    return samplers


def _known(policy: TokenPolicy, output: Path, learn: bool) -> TokenCalibration:
    """What was calibrated before; nothing, if it was for other tokens, or for another policy and is learnt anew."""
    from specpolicy.fingerprints import agree, check_made_for
    from specpolicy.tokens.calibration import TokenCalibration, read_token_calibration

    fresh = TokenCalibration(policy.length, policy.tokeniser.bins, fingerprint=policy.fingerprint)
    known = read_token_calibration(output) or fresh
    if (known.length, known.bins) != (fresh.length, fresh.bins):
        return fresh
    if learn and not (known.fingerprint and agree(known.fingerprint, policy.fingerprint)):
        print(f"{output}/drafts.json was made for another policy, or before its weights were changed: it is replaced")
        return fresh
    check_made_for(known.fingerprint, policy.fingerprint, f"the calibration in {output}", "calibrate with learn=true")
    return known


def _timed(policy: TokenPolicy, known: TokenCalibration, report: dict[str, Any]) -> TokenCalibration:
    """A calibration with what a call costs here and now."""
    from specpolicy.benchmark.windows import measure_rows
    from specpolicy.evaluation.provenance import hardware

    cond = torch.zeros(1, policy.encoder.n_obs_steps, policy.encoder.output_dim, device=policy.device)
    cost = measure_rows(policy, cond)
    here = {"hardware": hardware(), "threads": torch.get_num_threads()}
    return dataclasses.replace(
        known,
        costs={**known.costs, policy.machine: cost},
        report={**known.report, **report, policy.machine: here},
    )


def _time_again(policy: TokenPolicy, config: DictConfig, output: Path) -> TokenCalibration:
    """The graphs and calls that are known, and the numbers of drafts that are fastest on this machine."""
    known = _known(policy, output, learn=False)
    if not known.decoders:
        raise SpecpolicyError(f"{output} holds no calibration of these tokens: calibrate with learn=true first")
    calibration = _timed(policy, known, {})
    for law, found in known.decoders.items():
        calibration = calibration.added(law, found)
    calibration.save(output)
    return calibration


def _calibrate(
    policy: TokenPolicy,
    sampler: TokenSampler,
    cond: torch.Tensor,
    cost: dict[int, float],
    generator: torch.Generator,
    config: DictConfig,
) -> DecoderCalibration:
    from specpolicy.tokens.calibration import calibrate_graphs, calibrate_lookahead

    kind, _ = sampler.resolved()
    if kind == "graph":
        traces = [trace for part in cond.split(BATCH) for trace in policy.record(part, sampler, generator)[0]]
        divisions = None if config.graphs is None else [config.graphs]
        return calibrate_graphs(traces, sampler.rule(policy.length), cost, divisions, config.objective)

    def measure(drafts: int) -> tuple[float, float]:
        """Mean calls and rows with so many drafts; the noise is the same for all."""
        made = dataclasses.replace(sampler, drafts=drafts, drafter=kind)
        out = policy.decode(cond[:LOOKAHEAD_CHUNKS], made, torch.Generator().manual_seed(config.seed))
        return float(out.calls.double().mean()), float(out.rows.double().mean())

    return calibrate_lookahead(kind, measure)
