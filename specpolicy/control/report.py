"""The timing report as text."""

from collections.abc import Mapping
from typing import Any


def timing_report(summary: Mapping[str, Any]) -> str:
    """Return a few lines for a person, from `TimingLog.summary()`."""
    simulated = summary["clock"] != "wall"
    rows = [
        ("ticks", _ticks(summary)),
        *([] if simulated else [("tick late by", _times(summary["tick_lateness"], 3)), ("jitter", _jitter(summary))]),
        ("chunk latency", f"{_times(summary['latency'])}, {summary['warm_up']} of warm-up left out"),
        ("chunks", _chunks(summary)),
        ("late chunks", _misses(summary)),
        ("starved ticks", f"{summary['starved_ticks']} (no chunk had an action for them)"),
        ("observation age", _times(summary["observation_age"])),
    ]
    if summary["limited_actions"]:
        rows.append(("limits", f"changed {summary['limited_actions']} actions"))
    if summary["end"]:
        rows.append(("end", _end(summary["end"])))
    worker = "" if simulated else f", inference in a {summary['worker']}"
    title = f"control at {summary['hz']:g} Hz, {summary['clock']} clock{worker}"
    return "\n".join([title, *(f"  {name:<16} {text}" for name, text in rows)])


def _ticks(summary: Mapping[str, Any]) -> str:
    text = f"{summary['ticks']} in {summary['seconds']:.1f} s"
    if summary["achieved_hz"] is not None:
        text += f", {summary['achieved_hz']:.4g} Hz achieved"
    return f"{text}, {summary['missed_periods']} periods missed"


def _jitter(summary: Mapping[str, Any]) -> str:
    jitter = summary["jitter"]
    return "none measured" if jitter is None else f"std {1e3 * jitter['std']:.3f} ms, {_times(jitter, 3)} from a period"


def _chunks(summary: Mapping[str, Any]) -> str:
    text = f"{summary['chunks']}"
    if summary["calls"]:
        text += f", {summary['calls']:.4g} network calls and {summary['rows']:.4g} rows each"
    if summary["network_share"]:
        text += f", {summary['network_share']:.0%} of the time in the network"
    if summary["encode_share"]:
        text += f" and {summary['encode_share']:.0%} in encoding"
    return text


def _misses(summary: Mapping[str, Any]) -> str:
    if not summary["misses"]:
        return f"none (each was due {summary['lead']} steps after its observation)"
    text = f"{summary['misses']} ({summary['miss_rate']:.1%}), longest run {summary['longest_run_of_misses']}"
    if summary["lateness"]:
        text += f", late by {_times(summary['lateness'], 0)}"
    if summary["expired_chunks"]:
        text += f", {summary['expired_chunks']} too late to be of use"
    return f"{text} (due {summary['lead']} steps after their observation)"


def _end(end: Mapping[str, Any]) -> str:
    took = "has not come back" if end["stop_seconds"] is None else f"took {1e3 * end['stop_seconds']:.1f} ms"
    return f"{end['cause']}; robot.stop() was called {1e3 * end['stop_after']:.1f} ms after that and {took}"


def _times(quantiles: Mapping[str, float] | None, digits: int = 1) -> str:
    if quantiles is None:
        return "none measured"
    return ", ".join(f"{name} {1e3 * quantiles[name]:.{digits}f}" for name in ("p50", "p95", "p99", "max")) + " ms"
