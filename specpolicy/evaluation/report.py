"""`report.html`: the summary as one self-contained page, with plots and videos."""

import base64
import datetime
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from specpolicy.evaluation import tables
from specpolicy.evaluation.stopping import verdict_lines
from specpolicy.files import write_text

EMBEDDED_VIDEOS = 24 * 2**20  # bytes of videos inside the page; further videos are linked
CAPTIONS = {
    "Success against delay": "Success against the delay of inference. A chunk is requested every {horizon} control "
    "steps, or as often as the delay allows.",
    "Success against execution horizon": "Success against the number of actions of a chunk that are executed.",
    "Success against latency budget": "Success of each method at its best setting within a latency budget.",
    "Success against latency": "Success against latency. The grey line joins conditions that no other beats in both.",
    "Success against machine speed": "Success against the speed of the machine.",
    "Success rate": "Success rate of each condition.",
    "Maximum coverage": "Highest coverage reached, mean over episodes.",
    "Time per chunk": "Time per chunk, before any factor on it, over all conditions of a sampler.",
    "Calls per chunk": "Sequential network calls per chunk, over all conditions of a sampler.",
}
WORLDS = {
    "paused": "The world waits while the policy computes.",
    "delay": "A chunk takes a given number of control steps, during which the world moves on. Success does "
    "not depend on the machine; the same command gives the same outcomes to the bit.",
    "charged": "The world moves on by the {source} time of every single call, rounded up to whole control steps.",
    "budget": "The world moves on by the {source} time of every single call, rounded up to whole control steps. For "
    "each latency budget a method may use whichever of its settings keeps it.",
}


def write_report(summary: Mapping[str, Any], plots: Mapping[str, str], output: Path) -> Path:
    """Write the report and return its path.

    Args:
        summary: see `summarise`.
        plots: {title: file name in `output`}.
        output: directory of the evaluation.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("specpolicy.evaluation", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["wrap"] = _wrap
    samplers = list(dict.fromkeys(condition["sampler"] for condition in summary["conditions"]))
    images = [
        (CAPTIONS[title].format(horizon=summary["track"]["execute_steps"]), _data_uri(output / file, "image/png"))
        for title, file in plots.items()
    ]
    differences = tables.differences_table(summary)
    kinds = [difference["kind"] for difference in summary["differences"]]
    page = environment.get_template("report.html.jinja").render(
        summary=summary,
        samplers=samplers,
        world=_world(summary),
        results=tables.results_table(summary),
        verdicts=verdict_lines(summary["stopping"]) if summary.get("stopping") else [],
        timing=tables.timing_table(summary),
        budgets=tables.budget_table(summary),
        differences={
            kind: [differences[0], *(row for row, its in zip(differences[1:], kinds, strict=True) if its == kind)]
            for kind in dict.fromkeys(kinds)
        },
        points=f"{100 * summary['margin']:g}",
        plots=images,
        videos=_videos(summary, output),
        has_coverage=any(condition["max_coverage"] for condition in summary["conditions"]),
        date=datetime.date.today().isoformat(),
    )
    path = output / "report.html"
    write_text(path, page)
    return path


def _world(summary: Mapping[str, Any]) -> str:
    """Say in a sentence what inference time means for the world."""
    track = summary["track"]
    source = "measured" if track.get("trace") is None else "recorded"
    text = WORLDS[track["name"]].format(source=source)
    if track["name"] == "charged" and any(condition["clock"] == "paused" for condition in summary["conditions"]):
        text += " Conditions in which the world waits are shown for comparison."
    if track.get("trace") is not None:
        text += f" The recorded times are those of {track['trace']}."
    if summary["hz"] is not None and track["name"] != "paused":
        text += f" A control step is {1e3 / summary['hz']:g} ms."
    return text


def _videos(summary: Mapping[str, Any], output: Path) -> list[tuple[str, list[dict[str, str]]]]:
    """Return (condition, its videos with `source` and `caption`)."""
    left, found = EMBEDDED_VIDEOS, []
    for condition in summary["conditions"]:
        films = []
        for video in condition["videos"]:
            path = output / video["path"]
            left -= path.stat().st_size
            source = _data_uri(path, "video/mp4") if left >= 0 else video["path"]
            outcome = "solved" if video["success"] else "not solved"
            films.append({"source": source, "caption": f"seed {video['seed']}, {outcome}"})
        if films:
            found.append((condition["label"], films))
    return found


def _data_uri(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _wrap(command: str) -> str:
    """Break a long command into several lines that a shell still reads."""
    lines = textwrap.wrap(command, 96, break_long_words=False, break_on_hyphens=False)
    return " \\\n    ".join(lines)
