"""`specpolicy calibrate` for policies of action tokens: draft graphs, and how many drafts pay on this machine."""

from __future__ import annotations

import dataclasses
import functools
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
    """Calibrate each of `config.decoders`; written to `output` and returned."""
    from specpolicy.cli.configuration import save_config
    from specpolicy.cli.evaluate import sampler_specs
    from specpolicy.cli.observations import conditions, write_held_out
    from specpolicy.evaluation.provenance import hardware
    from specpolicy.logging.progress import progress_bar
    from specpolicy.samplers import make_sampler
    from specpolicy.tokens.calibration import CANDIDATES, TokenCalibration

    if not isinstance(config.traces, int) or config.traces < 2:
        raise SpecpolicyError(f"traces={config.traces}: expected at least 2 chunks to calibrate on")
    specs = sampler_specs(OmegaConf.to_container(config.decoders), config.get("config_directories", []))
    samplers: dict[str, Any] = {}
    for label, spec in specs.items():
        samplers[label] = policy.equip(make_sampler(**spec))
    wanted = config.copy()
    wanted.count = config.traces
    cond = conditions(policy, wanted)[: config.traces]
    write_held_out(policy, config, output / "observations.safetensors")
    cost = measure_rows(policy, cond[:1], [1, *(1 + drafts for drafts in CANDIDATES)])
    generator = torch.Generator().manual_seed(config.seed)
    found: dict[str, DecoderCalibration] = {}
    with progress_bar(len(samplers), "calibrate decoders") as bar:
        for sampler in samplers.values():
            found[sampler.law] = _calibrate(policy, sampler, cond, cost, generator)
            bar.advance()
    report = {
        "seconds_by_rows": {str(rows): seconds for rows, seconds in cost.items()},
        "hardware": hardware(),
        "threads": torch.get_num_threads(),
        "config": OmegaConf.to_container(config),
    }
    calibration = TokenCalibration(policy.length, policy.tokeniser.bins, found, report)
    output.mkdir(parents=True, exist_ok=True)
    calibration.save(output)
    save_config(config, output / "calibrate.yaml")
    return calibration


@torch.inference_mode()
def measure_rows(policy: TokenPolicy, cond: torch.Tensor, rows: list[int], repeats: int = 15) -> dict[int, float]:
    """Seconds of one call of the network, by its number of rows, see `time_calls`."""
    from specpolicy.tokens.calibration.cost import time_calls

    network = policy.engine or policy.denoiser
    calls = {number: functools.partial(network, *policy.example(number, cond)) for number in rows}
    return time_calls(calls, policy.device, repeats)


def describe(calibration: TokenCalibration) -> str:
    """What was found, in a few lines."""
    cost = calibration.report["seconds_by_rows"]
    lines = ["one call: " + ", ".join(f"{rows} rows {1e3 * seconds:.1f} ms" for rows, seconds in cost.items())]
    for law, found in calibration.decoders.items():
        calls = found.report["calls"]
        table = ", ".join(f"{drafts}: {number:.1f}" for drafts, number in calls.items())
        chosen = f"{found.drafts} drafts ({found.drafter.replace('_', ' ')})"
        if found.drafts == 0:
            chosen = "no drafts: on this machine their rows cost more than the calls they save"
        lines.append(f"{law}: {chosen}; calls by drafts {table}")
    return "\n".join(lines)


def _calibrate(
    policy: TokenPolicy,
    sampler: TokenSampler,
    cond: torch.Tensor,
    cost: dict[int, float],
    generator: torch.Generator,
) -> DecoderCalibration:
    from specpolicy.tokens.calibration import calibrate_graphs, calibrate_lookahead

    kind, _ = sampler.resolved()
    rule = sampler.rule(policy.length)
    if kind == "graph":
        traces = [trace for part in cond.split(BATCH) for trace in policy.record(part, sampler, generator)[0]]
        return calibrate_graphs(traces, rule, cost)
    assert rule.counts is not None  # chains and fixed points serve orders with steps of known sizes
    return calibrate_lookahead(
        kind, len(rule.counts), lambda drafts: _decode(policy, sampler, cond[:LOOKAHEAD_CHUNKS], kind, drafts), cost
    )


@torch.inference_mode()
def _decode(
    policy: TokenPolicy, sampler: TokenSampler, cond: torch.Tensor, kind: str, drafts: int
) -> tuple[float, float]:
    """Mean calls and rows of chunks with so many drafts."""
    from specpolicy.samplers.base import NoiseSource
    from specpolicy.tokens import masked_start, speculate

    made = dataclasses.replace(sampler, drafts=drafts, drafter=kind)
    rule, drafter, vocabulary = made.rule(policy.length), made.make_drafter(policy.length), policy.tokeniser.bins
    assert drafter is not None
    source = NoiseSource(torch.Generator().manual_seed(drafts), len(cond), policy.device, torch.float32)
    start = masked_start(len(cond), policy.length, vocabulary, policy.device)
    noise = rule.draw_noise(vocabulary, source.uniform)
    out = speculate(policy.network(cond), rule, drafter, noise, start, vocabulary)
    return float(out.calls.double().mean()), float(out.rows.double().mean())
