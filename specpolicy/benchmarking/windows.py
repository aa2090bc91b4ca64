"""Finds the fastest draft length of a sampler for the cost of a call on this machine."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from specpolicy.benchmarking.measure import Subject, choose
from specpolicy.diffusion import GaussianChain
from specpolicy.policy import DiffusionPolicy
from specpolicy.policy.histories import Histories
from specpolicy.samplers import Sampler, Setting
from specpolicy.samplers.recycled.sampler import Recycled
from specpolicy.samplers.speculative.samplers import Speculative
from specpolicy.tuning import LENGTHS, draft_lengths, interpolate_cost


def tune_windows(
    policy: DiffusionPolicy,
    samplers: Mapping[str, Sampler],
    histories: Histories,
    seconds_by_rows: Mapping[int, float],
    seed: int = 0,
    count: int = 6,
    on_sampler: Callable[[str], object] = lambda label: None,
) -> dict[str, Sampler]:
    """Return the samplers; speculative ones get the fastest draft length of this machine.

    Each candidate draws `count` chunks, up to four times as many on shorter chains, which take as long. Their cost is
    computed from the rows of their calls and the cost of such calls, not read from a clock, so a busy moment does not
    decide.
    """
    subject, available = Subject(policy), len(next(iter(histories.values())))
    cost = interpolate_cost(dict(seconds_by_rows), max(len(policy.chain), max(seconds_by_rows)))
    tuned = dict(samplers)

    def seconds(sampler: Any) -> float:
        share = len(policy.chain) // max(1, len(sampler.target(policy.chain)))
        rows = choose(available, count * min(4, max(1, share)))
        draws = [subject.draw("", sampler, histories, row, seed + row) for row in rows]
        outside = float(np.median([draw.seconds - draw.network_seconds for draw in draws]))
        return outside + float(np.mean([float(cost[list(draw.call_rows)].sum()) for draw in draws]))

    for label, sampler in samplers.items():
        if isinstance(sampler, Speculative):
            best = min(_candidates(policy, sampler, dict(seconds_by_rows)), key=seconds)
            tuned[label] = min([best, *cheaper_drafts(best, policy.setting())], key=seconds)
            on_sampler(label)
    return tuned


def _candidates(policy: DiffusionPolicy, sampler: Any, seconds_by_rows: dict[int, float]) -> list[Any]:
    """Return the sampler with each promising draft length."""
    setting, chain = policy.setting(), sampler.target(policy.chain)
    windows: list[Any] = [size for size in LENGTHS if size < len(chain)] + [None]
    calibration = sampler.calibration_in(setting) if isinstance(sampler, Recycled) else None
    if calibration is not None:
        windows += ["calibrated"] if calibration.plan(chain, setting.backend) else []
        # The acceptance of drafts does not depend on the machine.
        report = calibration.report.get(policy.device.type) or calibration.report.get("cpu", {})
        windows += _planned(report, chain, seconds_by_rows)
    return [dataclasses.replace(sampler, window=window) for window in windows]


def cheaper_drafts(sampler: Any, setting: Setting) -> list[Any]:
    """Return the sampler with cheaper drafts: where calls are fast, as on a GPU, drafting takes most of the time. Also
    with the other choice of rejoining, which saves rows and takes time, or on a GPU a few waits."""
    if not isinstance(sampler, Recycled):
        return []
    calibrated = sampler.calibration_in(setting) is not None
    linear = [dataclasses.replace(sampler, student=False, sweeps=1)] if calibrated else []
    fewer = [dataclasses.replace(sampler, sweeps=sweeps) for sweeps in (1, 2)]
    return [*fewer, *linear, dataclasses.replace(sampler, rejoin=not sampler.rejoins(setting.device))]


def _planned(report: Mapping[str, Any], chain: GaussianChain, seconds_by_rows: dict[int, float]) -> list[list[int]]:
    """Return the draft lengths by step that suit these costs and the acceptance measured by calibration."""
    acceptance = report.get(f"chain_{len(chain)}", {}).get("acceptance")
    if acceptance is None:
        return []
    cost = interpolate_cost(seconds_by_rows, len(chain) + 1)
    return [draft_lengths(torch.tensor(acceptance, dtype=torch.float64), cost)]
