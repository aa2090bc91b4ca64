"""Tables of an evaluation as text: a heading, then one row per condition."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from specpolicy.evaluation.player import EXPERT

Summary = Mapping[str, Any]
Table = list[list[str]]
NONE = "–"


def results_table(summary: Summary, brief: bool = False) -> Table:
    """Return success, time to success and cost per chunk; `brief` leaves out what a terminal has no room for."""
    varied = varied_columns(summary)
    has_coverage = any(condition["max_coverage"] for condition in summary["conditions"])
    head = ["sampler", *(name for name, _ in varied), "solved", "success rate"]
    head += [*(["max coverage"] if has_coverage else []), "s to success", "successes per min"]
    table = [[*head, "ms per chunk p50", "p95", "p99", "max", "calls", "network", "encoding"]]
    for condition in summary["conditions"]:
        seconds = condition["chunk_seconds"] if has_network(condition) else None
        times = [milliseconds(seconds[name]) if seconds else NONE for name in ("p50", "p95", "p99", "max")]
        table.append(
            [
                condition["sampler"],
                *(value(condition) for _, value in varied),
                f"{condition['successes']}/{condition['episodes']}",
                interval(condition["success_rate"]),
                *([interval(condition["max_coverage"])] if has_coverage else []),
                interval(condition["time_to_success"], 1),
                interval(condition["successes_per_minute"], 1),
                *times,
                f"{condition['calls']:.4g}" if seconds and condition["calls"] is not None else NONE,
                percent(condition["network_share"]) if seconds else NONE,
                percent(condition["encode_share"]) if seconds else NONE,
            ]
        )
    if brief:
        left_out = {"successes per min", "p99", "max", "network", "encoding"}
        kept = [name not in left_out for name in table[0]]
        table = [[cell for cell, keep in zip(row, kept, strict=True) if keep] for row in table]
    return table


def timing_table(summary: Summary) -> Table:
    """Return the timing of chunks and control steps; no rows in classic evaluation, where nothing can be late."""
    varied = varied_columns(summary)
    head = [
        "sampler",
        *(name for name, _ in varied),
        "delay in steps",
        "late chunks",
        "longest run",
        "useless chunks",
    ]
    head += ["steps without action", "observation age in ms", "oldest", "jump at a switch", "within a chunk"]
    conditions = summary["conditions"]
    stitchings = {condition["stitching"] for condition in conditions}
    if all(condition["clock"] == "paused" for condition in conditions) and len(stitchings) == 1:
        return [head]
    table = [head]
    for condition in conditions:
        timing = condition["timing"]
        delay = timing["delay_steps"]
        age, oldest = timing["observation_age"], timing["observation_age_max"]
        table.append(
            [
                condition["sampler"],
                *(value(condition) for _, value in varied),
                NONE if delay is None else f"{delay['mean']:.3g}",
                percent(timing["late_share"]),
                str(timing["longest_run_of_late_chunks"]),
                percent(timing["expired_share"]),
                percent(timing["starved_share"]),
                NONE if age is None else f"{1e3 * age:.0f}",
                NONE if oldest is None else f"{1e3 * oldest:.0f}",
                number(timing["switch_jump"]),
                number(timing["inner_jump"]),
            ]
        )
    return table


def differences_table(summary: Summary) -> Table:
    """Return paired differences in success, and the tests of equivalence within the margin."""
    points = f"{100 * summary['margin']:g} points"
    head = [
        "condition",
        "minus",
        "pairs",
        "success rate",
        "McNemar p",
        f"equal within {points}",
        "p",
        f"loss below {points}",
    ]
    table = [[*head, "p", "s per episode"]]
    for difference in summary["differences"]:
        tests = difference["equivalence"]
        table.append(
            [
                difference["condition"],
                difference["reference"],
                str(difference["episodes"]),
                signed(difference["success_rate"]),
                probability(difference["success_p_value"]),
                "yes" if tests["equivalent"] else "not shown",
                probability(tests["p_value"]),
                "yes" if tests["no_loss"] else "not shown",
                probability(tests["p_no_loss"]),
                signed(difference["seconds"], 1),
            ]
        )
    return table


def budget_table(summary: Summary) -> Table:
    """Return the success of each method within each budget, and the setting that reached it."""
    entries = summary["budgets"]
    budgets = sorted({entry["budget_ms"] for entry in entries})
    table = [["method", *(f"{value:g} ms" for value in budgets)]]
    for method in dict.fromkeys(entry["method"] for entry in entries):
        row = {entry["budget_ms"]: entry for entry in entries if entry["method"] == method}
        table.append([method, *(_choice(row[value]) for value in budgets)])
    return table


def varied_columns(summary: Summary) -> list[tuple[str, Callable[[Mapping[str, Any]], str]]]:
    """Return (heading, function of a condition that gives its cell) for everything but the sampler that varies."""
    conditions = summary["conditions"]
    clocks = {condition["clock"] for condition in conditions}
    columns: list[tuple[str, Callable[[Mapping[str, Any]], str]]] = []
    if "delay" in clocks:
        columns.append(("delay", lambda condition: str(condition["delay"]) if condition["clock"] == "delay" else NONE))
        columns.append(("execute steps", lambda condition: str(condition["execute_steps"])))
    if clocks & {"charged", "trace"}:
        columns.append(("world", _world))
    if len({condition["stitching"] for condition in conditions}) > 1:
        columns.append(("stitching", lambda condition: condition["stitching"].replace("_", " ")))
    return columns


def has_network(condition: Mapping[str, Any]) -> bool:
    """Whether a policy drew the condition's chunks; the scripted expert has no network to time."""
    return condition["spec"]["name"] != EXPERT and condition["chunk_seconds"] is not None


def text_table(table: Sequence[Sequence[str]]) -> str:
    """Return a table with aligned columns for a terminal."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    )


def interval(value: Mapping[str, float] | None, digits: int = 2) -> str:
    """Format as 0.92 [0.85, 0.96]."""
    if value is None:
        return NONE
    return f"{value['estimate']:.{digits}f} [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"


def signed(value: Mapping[str, float] | None, digits: int = 2) -> str:
    """Format as -0.02 [-0.07, +0.03]."""
    if value is None:
        return NONE
    return f"{value['estimate']:+.{digits}f} [{value['low']:+.{digits}f}, {value['high']:+.{digits}f}]"


def milliseconds(seconds: float) -> str:
    """Format as milliseconds, with three significant figures and no exponent."""
    value = 1e3 * seconds
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def percent(share: float | None) -> str:
    """Format as 4.2%, with one decimal below ten."""
    if share is None:
        return NONE
    return f"{share:.1%}" if 0 < share < 0.1 else f"{share:.0%}"


def probability(value: float) -> str:
    """Format a p-value with no more digits than are meaningful."""
    return "< 0.001" if value < 1e-3 else f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def number(value: float | None) -> str:
    """Format with three significant figures."""
    return NONE if value is None else f"{value:.3g}"


def _choice(entry: Mapping[str, Any]) -> str:
    if not entry["settings"]:
        return NONE
    return f"{interval(entry['success_rate'])} ({' / '.join(entry['settings'])})"


def _world(condition: Mapping[str, Any]) -> str:
    if condition["clock"] == "paused":
        return "waits"
    return "moves on" if condition["factor"] == 1 else f"moves on, time x{condition['factor']:g}"
