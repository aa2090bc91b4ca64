"""`specpolicy calibrate` for policies of action tokens: draft graphs, and the number of drafts that pays here."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from omegaconf import DictConfig, OmegaConf

from specpolicy.errors import SpecpolicyError

if TYPE_CHECKING:
    from specpolicy.policy import TokenPolicy
    from specpolicy.tokens.bound import BoundDecoder
    from specpolicy.tokens.calibration import DecoderCalibration, TokenCalibration

LOOKAHEAD_CHUNKS = 40  # chunks decoded for each number of drafts, for a chain or a fixed point
BATCH = 20  # chunks decoded side by side


def calibrate_tokens(policy: TokenPolicy, config: DictConfig, output: Path) -> dict[str, Any]:
    """Calibrate, write and print the results, and return the figures by name; this run holds `output`."""
    found = (_learn if config.learn else _time_again)(policy, config, output)
    machine = policy.setting().backend
    print(describe(found, machine))
    print(f"wrote {output}/drafts.json")
    drafts = {f"{name}/drafts": one.drafts[machine] for name, one in found.decoders.items() if machine in one.drafts}
    return {"calibrated_for": machine, **drafts}


def _learn(policy: TokenPolicy, config: DictConfig, output: Path) -> TokenCalibration:
    """Calibrate each of `config.decoders`; results in `output` for other decoders and machines stay."""
    from specpolicy.cli.configuration import save_config
    from specpolicy.cli.observations import conditions, write_held_out
    from specpolicy.logging.progress import progress_bar

    if not isinstance(config.traces, int) or config.traces < 2:
        raise SpecpolicyError(f"traces={config.traces}: expected at least 2 chunks to calibrate on")
    _check_choices(config)
    bare = copy.copy(policy)
    bare.calibration = None  # the choice of an earlier calibration must not be used
    decoders = _decoders(bare, config)
    calibration = _timed(policy, _known(policy, output, learn=True), {"config": OmegaConf.to_container(config)})
    cost = calibration.costs[policy.setting().backend]
    wanted = config.copy()
    wanted.count = config.traces
    cond = conditions(policy, wanted)[: config.traces]
    write_held_out(policy, config, output)
    save_config(config, output / "calibrate.yaml", "calibrate")
    generator = torch.Generator().manual_seed(config.seed)
    with progress_bar(len(decoders), "calibrate decoders") as bar:
        for distribution, decoder in decoders.items():
            calibration = calibration.added(distribution, _calibrate(bare, decoder, cond, cost, generator, config))
            calibration.save(output)  # after each decoder: the next may fail or be interrupted
            bar.advance()
    return calibration


def describe(calibration: TokenCalibration, machine: str) -> str:
    """Describe in a few lines what was found for a machine."""
    cost = calibration.costs[machine]
    lines = ["one call: " + ", ".join(f"{rows} rows {1e3 * seconds:.1f} ms" for rows, seconds in cost.items())]
    for distribution, found in calibration.decoders.items():
        table = ", ".join(f"{drafts}: {number:.1f}" for drafts, number in found.report["calls"].items())
        lines.append(f"{distribution}: {_chosen(found, machine)}; calls by drafts {table}")
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
    """Refuse settings that no decoder can be calibrated with, before an hour of work."""
    from specpolicy.tokens.calibration import DIVISIONS, OBJECTIVES

    if config.graphs not in (None, *DIVISIONS):
        raise SpecpolicyError(f"graphs={config.graphs}: use one of {', '.join(DIVISIONS)}, or null")
    if config.objective not in OBJECTIVES:
        raise SpecpolicyError(f"objective={config.objective}: use one of {', '.join(OBJECTIVES)}")


def _decoders(policy: TokenPolicy, config: DictConfig) -> dict[str, BoundDecoder]:
    """Return the decoders, by the distribution they draw from."""
    from specpolicy.cli.samplers import sampler_specs
    from specpolicy.sampler_names import make_sampler

    specs = sampler_specs(OmegaConf.to_container(config.decoders), config.get("config_directories", []))
    decoders: dict[str, BoundDecoder] = {}
    for label, spec in specs.items():
        decoder = policy.bound(make_sampler(**spec))
        distribution = decoder.sampler.distribution
        if distribution in decoders:
            raise SpecpolicyError(
                f"decoders: '{label}' draws from the same as one before it ({distribution}): leave one out"
            )
        decoders[distribution] = decoder
    return decoders


def _known(policy: TokenPolicy, output: Path, learn: bool) -> TokenCalibration:
    """Return the earlier calibration.

    It is empty if it was made for other tokens, or for another policy and is learnt anew.
    """
    from specpolicy.fingerprints import agree, check_made_for
    from specpolicy.tokens.calibration import TokenCalibration, read_token_calibration

    fresh = TokenCalibration(policy.tokens, policy.tokeniser.bins, fingerprint=policy.fingerprint)
    known = read_token_calibration(output) or fresh
    if (known.length, known.bins) != (fresh.length, fresh.bins):
        return fresh
    if learn and not (known.fingerprint and agree(known.fingerprint, policy.fingerprint)):
        print(f"{output}/drafts.json was made for another policy, or before its weights were changed: it is replaced")
        return fresh
    check_made_for(known.fingerprint, policy.fingerprint, f"the calibration in {output}", "calibrate with learn=true")
    return known


def _timed(policy: TokenPolicy, known: TokenCalibration, report: dict[str, Any]) -> TokenCalibration:
    """Return the calibration with the cost of a call on this machine."""
    from specpolicy.evaluation.provenance import hardware

    nothing = torch.zeros(1, policy.encoder.n_obs_steps, policy.encoder.output_dim, device=policy.device)
    cost = policy.seconds_by_rows(nothing)
    machine = policy.setting().backend
    here = {"hardware": hardware(), "threads": torch.get_num_threads()}
    return dataclasses.replace(
        known,
        costs={**known.costs, machine: cost},
        report={**known.report, **report, machine: here},
    )


def _time_again(policy: TokenPolicy, config: DictConfig, output: Path) -> TokenCalibration:
    """Keep the known graphs and calls, and find the fastest numbers of drafts on this machine."""
    known = _known(policy, output, learn=False)
    if not known.decoders:
        raise SpecpolicyError(f"{output} holds no calibration of these tokens: calibrate with learn=true first")
    calibration = _timed(policy, known, {})
    for distribution, found in known.decoders.items():
        calibration = calibration.added(distribution, found)
    calibration.save(output)
    return calibration


def _calibrate(
    policy: TokenPolicy,
    decoder: BoundDecoder,
    cond: torch.Tensor,
    cost: dict[int, float],
    generator: torch.Generator,
    config: DictConfig,
) -> DecoderCalibration:
    from specpolicy.tokens.calibration import calibrate_graphs, calibrate_lookahead

    sampler = decoder.sampler
    kind, _ = sampler.resolved()
    if kind == "graph":
        traces = [trace for part in cond.split(BATCH) for trace in decoder.record(part, generator)[0]]
        divisions = None if config.graphs is None else [config.graphs]
        return calibrate_graphs(traces, decoder.rule, cost, divisions, config.objective)

    def measure(drafts: int) -> tuple[float, float]:
        """Return mean calls and rows with this number of drafts; the noise is the same for all."""
        made = dataclasses.replace(sampler, drafts=drafts, drafter=kind)
        seeded = torch.Generator().manual_seed(config.seed)
        out = policy.bound(made).decode(cond[:LOOKAHEAD_CHUNKS], seeded)
        return float(out.calls.double().mean()), float(out.rows.double().mean())

    return calibrate_lookahead(kind, measure)
