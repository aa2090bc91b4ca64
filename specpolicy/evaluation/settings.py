"""What the results of an evaluation depend on, kept beside them, so that only the same evaluation continues them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from specpolicy.errors import SpecpolicyError
from specpolicy.evaluation import tapes, world
from specpolicy.evaluation.conditions import Condition
from specpolicy.evaluation.player import EXPERT, Setup
from specpolicy.evaluation.provenance import hardware
from specpolicy.evaluation.results import Results
from specpolicy.evaluation.runner import Evaluation, Origin
from specpolicy.files import write_text
from specpolicy.outputs import matching, remove
from specpolicy.sampler_names import beyond_defaults
from specpolicy.tasks import kept_task

FORMAT = 3
SETTINGS = "settings.json"
# Digests of what is learnt beside a policy's weights, in the settings of the conditions that use it.
LEARNT = {"calibration": "calibration or draft model", "continued_by": "calibration or predictor"}
REMEDY = "choose another output, or set overwrite=true"
WRITTEN = ("episodes.csv", "chunks.csv", "summary.json", "report.html", "metrics.csv", "plot_*.png")
REMOVED = (
    *WRITTEN,
    "wandb_run_id.txt",
    "wandb_row.txt",
    "videos/*-[0-9]*.mp4",
    f"{tapes.DIRECTORY}/*-[0-9]*.npz",
    "config.yaml",
    world.FILE,
    SETTINGS,
)  # last the file that marks the directory as ours


def claim(evaluation: Evaluation, origin: Origin, output: Path, overwrite: bool = False) -> Results:
    """Prepare the output directory and return the results it already holds.

    A directory with the same settings is continued; it may be asked for more episodes or other conditions than before.

    Args:
        evaluation: the evaluation to run.
        origin: hashes of its policy and calibrations.
        output: the directory.
        overwrite: delete the results of another evaluation in it.

    Raises:
        SpecpolicyError: it holds other settings, or files that no evaluation has written; those are never overwritten.
    """
    # Left out: what changes no result, or is stored elsewhere (policy: fingerprint; samplers: conditions).
    setup = {name: getattr(evaluation.setup, name) for name in ("task", "device", "engine", "max_seconds", "batch")}
    setup["task"] = kept_task(evaluation.setup.task)
    setup["conditions"] = {
        condition.label: _settings(condition, evaluation.setup, origin) for condition in evaluation.conditions
    }
    wanted = json.loads(json.dumps({"format": FORMAT, **setup, "policy": origin.policy, "seed": evaluation.seed}))
    path, here = output / SETTINGS, None
    if origin.physics is not None:
        here = world.this_world(evaluation.setup.task, origin.physics)
    machines = [hardware()]
    found = read_settings(path)
    if found is None and (foreign := matching(output, WRITTEN)):
        raise SpecpolicyError(f"{output} holds {foreign[0].name} without {SETTINGS}: choose another output")
    if found is not None and overwrite:
        remove(output, REMOVED)
    elif found is not None:
        machines = [*found["machines"], *(machine for machine in machines if machine not in found["machines"])]
        # Rows belong to a condition and a seed, so new conditions may join; equal labels must mean equal conditions.
        require_same({key: value for key, value in wanted.items() if key != "conditions"}, found, output)
        wanted["conditions"] = {**found["conditions"], **wanted["conditions"]}
        for label, condition in found["conditions"].items():
            now = wanted["conditions"][label]
            require_same({label: _comparable(now)}, {label: _comparable(condition)}, output)
            for kind, name in LEARNT.items():
                if now.get(kind) != condition.get(kind):
                    raise SpecpolicyError(
                        f"{output}: the policy's {name} is not known to be the one that '{label}' was played with: "
                        f"{REMEDY}"
                    )
        world.require_same_world(world.read_world(output), here, str(output), REMEDY)
        if any(condition.clock == "charged" for condition in evaluation.conditions):
            require_same_hardware(machines, str(output), REMEDY)
    if here is not None:
        world.write_world(output, here)
    write_text(path, json.dumps({**wanted, "machines": machines}, indent=2) + "\n")
    return Results(output)


def _settings(condition: Condition, setup: Setup, origin: Origin) -> dict[str, Any]:
    """Return what the condition's results depend on; a trace and a calibration enter by a hash of their content."""
    options = {name: value for name, value in asdict(condition).items() if name not in ("sampler", "trace")}
    if condition.in_flight == 1:  # results of before there was a choice are known as the same
        del options["in_flight"]
    digests = {"calibration": origin.calibrations.get(condition.sampler)}
    if setup.samplers[condition.sampler]["name"] != EXPERT:
        digests["continued_by"] = origin.ways.get(condition.stitching)
    return {
        "sampler": dict(setup.samplers[condition.sampler]),
        **options,
        **{kind: digest for kind, digest in digests.items() if digest is not None},
    }


def _comparable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a condition's settings without what is learnt; a later version may add options to its sampler."""
    others = {name: value for name, value in settings.items() if name not in LEARNT}
    return {**others, "sampler": beyond_defaults(settings["sampler"])}


def require_same_hardware(machines: Sequence[Mapping[str, Any]], where: str, remedy: str) -> None:
    """Refuse times of different processors or GPUs where times decide.

    Raises:
        SpecpolicyError: they differ.
    """
    kinds = list(dict.fromkeys((machine.get("cpu"), machine.get("gpu")) for machine in machines))
    if len(kinds) > 1:
        names = " and ".join(", ".join(part for part in kind if part) for kind in kinds[:2])
        raise SpecpolicyError(f"{where} has times of {names}: {remedy}")


def is_evaluation(output: Path) -> bool:
    """Whether an evaluation has written into a directory."""
    return read_settings(output / SETTINGS) is not None


def read_settings(path: Path) -> dict[str, Any] | None:
    """Return the settings of the evaluation in a directory; None if there is none."""
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or not {"conditions", "machines", "format"} <= found.keys():
        raise SpecpolicyError(f"{path} is not of an evaluation: choose another output")
    return found


def require_same(wanted: Mapping[str, Any], found: Mapping[str, Any], where: str | Path, remedy: str = REMEDY) -> None:
    """Raise unless results at a place were made with the wanted settings; the first difference is named."""
    for key, value in wanted.items():
        if found.get(key) != value:
            described = (
                "another policy" if key == "policy" else f"{key}={json.dumps(found.get(key))}, not {json.dumps(value)}"
            )
            raise SpecpolicyError(f"{where} was made with {described}: {remedy}")
