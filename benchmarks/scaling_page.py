"""Writes docs/results/scaling.md from the figures of benchmarks/scaling.py."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from specpolicy.benchmarking.table import markdown_table, milliseconds

THEORY = 1 / 3
SUBJECTS = {"mixture": "analytic", "policy": "trained"}
INTRODUCTION = """# How the exact samplers scale

Written by `benchmarks/scaling.py` from [scaling.json](scaling.json). All samplers draft to the end of the chain,
which takes the fewest calls and the most rows. *Calls* are network calls, one after the other; *rows* are the states
evaluated in them. Both are counts and do not depend on the machine. Figures are means over chunks with their standard
error.

*Analytic*: a mixture of four Gaussian processes with a denoiser in closed form, as smooth as `can`'s chunks
(`benchmarks/scaling_subjects.py`), on strided chains of a process of 1000 steps (squared cosine). Here `recycled`
uses its uncalibrated prior. *Trained*: a policy on its recorded observations; `recycled` uses its student, which was
trained on chains of 100 and 16 steps. Chains with more steps than the policy was trained with visit timesteps between
whole ones, where the network interpolates. Surrogates need whole timesteps, so there is no `recycled` for these
chains.
"""


def page(found: Mapping[str, Any]) -> str:
    """Return the whole page."""
    parts = [INTRODUCTION.rstrip(), *_steps(found["calls"]), *_exponents(found["calls"]), *_sizes(found["calls"])]
    for name, section in (("times", _times), ("batches", _batches), ("networks", _networks)):
        if name in found:
            parts += section(found[name])
    return "\n\n".join(parts) + "\n"


def exponent(calls: Mapping[int, Sequence[float]], draws: int = 2000) -> tuple[float, float, float]:
    """Return the exponent a of K / calls ~ K^a with its 95 % bootstrap interval, by least squares of logarithms.

    Args:
        calls: {K: calls of each chunk}, by chain length K; the bootstrap resamples the chunks of each length.
        draws: number of bootstrap resamples.
    """
    steps, source = sorted(calls), np.random.default_rng(0)
    place = np.log(steps) - np.mean(np.log(steps))

    def slope(means: np.ndarray) -> np.ndarray:
        return 1 - (np.log(means) * place).sum(-1) / (place**2).sum()

    def resampled(values: Sequence[float]) -> np.ndarray:
        return np.asarray(values)[source.integers(len(values), size=(draws, len(values)))].mean(1)

    low, high = np.quantile(slope(np.stack([resampled(calls[one]) for one in steps], axis=-1)), [0.025, 0.975])
    return float(slope(np.array([np.mean(calls[one]) for one in steps]))), float(low), float(high)


def _steps(entries: list[dict[str, Any]]) -> list[str]:
    """Return calls and rows by chain length."""
    parts = ["## Steps of the chain"]
    for subject in ("mixture", "policy"):
        own = [one for one in entries if one["subject"] == subject and _is_base(one)]
        if own:
            what = own[0].get("path", "16 actions of 7 numbers")
            between = sorted({one["steps"] for one in own if one.get("between")})
            more = f" Between the steps of training: {', '.join(map(str, between))} steps." if between else ""
            parts += [f"{SUBJECTS[subject].capitalize()}: {what}. Calls, in brackets rows.{more}", _by("steps", own)]
    return parts


def _exponents(entries: list[dict[str, Any]]) -> list[str]:
    """Return the exponents that the theory predicts and the ones found."""
    rows = [["denoiser", "sampler", "K", "a", "95 %", "a from one K to the next"]]
    verdicts = []
    for subject in ("mixture", "policy"):
        for sampler in dict.fromkeys(one["sampler"] for one in entries):
            own = [one for one in entries if (one["subject"], one["sampler"]) == (subject, sampler) and _is_base(one)]
            calls = {one["steps"]: one["calls"] for one in own}
            if len(calls) < 3:
                continue
            middle, low, high = exponent(calls)
            pairs = itertools.pairwise(sorted(calls))
            local = ", ".join(f"{exponent({one: calls[one] for one in pair})[0]:.2f}" for pair in pairs)
            span = f"{min(calls)} to {max(calls)}"
            rows.append([SUBJECTS[subject], sampler, span, f"{middle:.3f}", f"{low:.3f} to {high:.3f}", local])
            if sampler == "asd":
                verdicts.append(_verdict(SUBJECTS[subject], calls))
    if len(rows) == 1:
        return []
    return [
        "## Does the speed-up of ASD grow as its theory predicts?",
        "Hu, Das, Sadigh and Anari (2025, arXiv 2505.03983) prove for autospeculation a speed-up K / calls of the "
        "order of K^(1/3), up to logarithms. This is a guarantee; smooth data may exceed it. Our rough estimate for a "
        "denoiser that changes smoothly with the state: a draft that is frozen j steps back is off by the order of "
        "sqrt(j) / K of a step's noise. Rejections then add up to one after j ~ K^(2/3) steps, and the speed-up would "
        "tend to K^(2/3). The fit is log(K / calls) = a log K + c over the mean calls of each K. The interval "
        "resamples chunks (2000 times), so it holds for these K and not for larger ones.",
        markdown_table(rows),
        *verdicts,
    ]


def _verdict(name: str, calls: Mapping[int, Sequence[float]]) -> str:
    """Return the exponent in words, over all K and over the long chains."""
    texts = []
    for what, some in (("all K", calls), ("K of 50 and more", {k: v for k, v in calls.items() if k >= 50})):
        if len(some) < 2:
            continue
        middle, low, high = exponent(some)
        agrees = "agrees with 1/3" if low <= THEORY <= high else "is below 1/3"
        agrees = "is above 1/3, more than is guaranteed" if low > THEORY else agrees
        texts.append(f"over {what} a = {middle:.3f} ({low:.3f} to {high:.3f}), which {agrees}")
    return f"ASD, {name}: " + "; ".join(texts) + "."


def _sizes(entries: list[dict[str, Any]]) -> list[str]:
    """Return calls and rows by horizon and by action dimension."""
    parts = []
    mixtures = [one for one in entries if one["subject"] == "mixture"]
    varied = {one["steps"] for one in mixtures if not _is_base(one)}
    base = [one for one in mixtures if one["steps"] in varied]
    for key, title, other, size in (
        ("horizon", "Horizon of a chunk", "dimension", 7),
        ("dimension", "Dimension of an action", "horizon", 16),
    ):
        own = [one for one in base if one[other] == size]
        trained = [one for one in entries if one["subject"] == "trained"] if key == "horizon" else []
        if own:
            parts += [f"## {title}", f"Chains of 100 steps, {other} {size}, analytic. Calls, in brackets rows."]
            parts.append(_by(key, own))
        if trained:
            paths = ", ".join(dict.fromkeys(one["path"] for one in trained))
            parts += [f"Trained for the horizon, each on its own chain: {paths}.", _by(key, trained)]
    return parts


def _times(part: Mapping[str, Any]) -> list[str]:
    how = "ms of one chunk, in brackets the time of its calls alone; see `specpolicy benchmark`."
    parts = ["## Time by steps of the chain", f"{_place(part)} {how}"]
    return [*parts, _table(part["figures"], "steps", lambda one: _ms(one["seconds"], one["bound"]))]


def _batches(part: Mapping[str, Any]) -> list[str]:
    text = (
        f"{_place(part)} Chains of 100 steps. Calls of the whole batch (those of its slowest chunk), in brackets "
        "rows per chunk; then ms per chunk, the faster of two runs (for the largest batch, one run)."
    )

    def cell(one: dict[str, Any]) -> str:
        return f"{one['calls']} ({one['rows'] / one['batch']:.0f}); {milliseconds(one['seconds'] / one['batch'])} ms"

    return ["## Batch", text, _table(part["figures"], "batch", cell)]


def _networks(part: Mapping[str, Any]) -> list[str]:
    figures = [{**one, "M parameters": f"{one['parameters'] / 1e6:.3g}"} for one in part["figures"]]
    text = (
        f"{_place(part)} Chains of 100 steps: ms of one chunk, in brackets the time of its calls alone. The larger "
        "network has random weights and makes the calls of the trained one; one chunk each."
    )
    return [
        "## Size of the network",
        text,
        _table(figures, "M parameters", lambda one: _ms(one["seconds"], one["bound"])),
    ]


def _place(part: Mapping[str, Any]) -> str:
    busy = part["load"] is not None and part["load"] > part["machine"]["cores"]
    warning = " Other programs kept the cores busy, so compare times only within the table." if busy else ""
    return (
        f"{part['policy']} on {part['machine']['cpu']}, {part['machine']['cores']} cores, {part['threads']} thread, "
        f"engine {part['engine']}, torch {part['versions']['torch']}; load of the machine before: {part['load']}."
        f"{warning}"
    )


def _ms(seconds: float, bound: float) -> str:
    return f"{milliseconds(seconds)} ({milliseconds(bound)})"


def _is_base(one: Mapping[str, Any]) -> bool:
    """Whether only the number of steps is varied."""
    return one["subject"] != "mixture" or (one["horizon"], one["dimension"]) == (16, 7)


def _by(key: str, entries: list[dict[str, Any]]) -> str:
    return _table(entries, key, _counts)


def _counts(one: Mapping[str, Any]) -> str:
    error = np.std(one["calls"], ddof=1) / math.sqrt(len(one["calls"]))
    return f"{np.mean(one['calls']):.2f} ± {error:.2f} ({one['rows']:.0f})"


def _table(entries: list[dict[str, Any]], key: str, cell: Callable[[dict[str, Any]], str]) -> str:
    """Return a table with one row for each value of `key` and one column for each sampler."""
    samplers = list(dict.fromkeys(one["sampler"] for one in entries))
    rows = [[key, *samplers]]
    for value in sorted({one[key] for one in entries}, key=float):
        own = {one["sampler"]: one for one in entries if one[key] == value}
        rows.append([str(value), *(cell(own[name]) if name in own else "-" for name in samplers)])
    return markdown_table(rows)
