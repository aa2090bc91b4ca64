"""`specpolicy.evaluate` and `specpolicy.benchmark`: two verbs as functions, also for policies in memory.

Their options are the keys of the verb's yaml. What the command line refuses is refused here with the same words.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specpolicy.cli.extras import COMMAND_LINE, NEEDS, check_installed
from specpolicy.errors import SpecpolicyError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from specpolicy.policy import Policy
    from specpolicy.sampler_names import AnySampler

    SomeSampler = str | Mapping[str, Any] | AnySampler

IN_MEMORY = "(in memory)"  # path in the results for such a policy


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of a verb.

    Attributes:
        summary: all figures as plain values, the content of summary.json.
        directory: directory that everything was written to.
    """

    summary: dict[str, Any]
    directory: Path

    @property
    def chunks(self) -> Any:
        """One row per chunk, see `rows`."""
        return self.rows("chunks.csv")

    def rows(self, table: str) -> Any:
        """Return the content of a CSV file: a DataFrame if pandas is installed, else a list of dicts."""
        with (self.directory / table).open(encoding="utf-8", newline="") as file:
            found = [{name: _number(value) for name, value in row.items()} for row in csv.DictReader(file)]
        try:
            import pandas
        except ImportError:
            return found
        return pandas.DataFrame(found)

    def report(self, out: str | Path) -> Path:
        """Copy all that was written to a directory `out`, which must not exist yet.

        Returns:
            Path of report.html, or of table.md for a benchmark.

        Raises:
            SpecpolicyError: `out` exists.
        """
        out = Path(out)
        if out.exists():
            raise SpecpolicyError(f"{out} is there already: give a directory that is not")
        shutil.copytree(self.directory, out, ignore=shutil.ignore_patterns(".*"))
        return out / ("report.html" if (out / "report.html").exists() else "table.md")


class Evaluated(Outcome):
    """The result of an evaluation."""

    @property
    def episodes(self) -> Any:
        """One row per episode, see `rows`."""
        return self.rows("episodes.csv")


def evaluate(
    policy: Policy | str | Path,
    task: str | Mapping[str, Any],
    samplers: Iterable[SomeSampler] | None = None,
    episodes: int = 50,
    *,
    output: str | Path | None = None,
    quiet: bool = False,
    **options: Any,
) -> Evaluated:
    """Play a policy with several samplers on the same seeds; measure success and what inference time costs.

    Args:
        policy: a policy in memory, a checkpoint's directory, or wandb:entity/project/name:version.
        task: a task's name, such as "lift", or its configuration.
        samplers: names ("ddim-4"), samplers (`samplers.Recycled(steps=16)`), or mappings of a name and options; None:
            the policy's best sampler.
        episodes: number of episodes for each sampler.
        output: directory for the results; a second call with the same settings continues it. None: a temporary one.
        quiet: print no progress and no table.
        **options: keys of configs/evaluate.yaml, such as workers=0, track="delay", videos=3. Pass dotted keys in a
            dict: `**{"track.delays": [0, 2]}`.

    Raises:
        SpecpolicyError: the settings do not fit together (same message as `specpolicy evaluate`), or a package is
            missing.
    """
    check_installed((*COMMAND_LINE, *NEEDS["evaluate"]))
    from specpolicy.cli import evaluate as verb

    options = {"videos": 0, "episodes": episodes, **options}
    return Evaluated(*_run(verb, "evaluate", policy, task, samplers, output, quiet, options))


def benchmark(
    policy: Policy | str | Path,
    samplers: Iterable[SomeSampler] | None = None,
    count: int = 200,
    *,
    output: str | Path | None = None,
    quiet: bool = False,
    **options: Any,
) -> Outcome:
    """Draw chunks with several samplers and measure the cost of each: calls, rows, milliseconds.

    Args:
        policy: a policy in memory, a checkpoint's directory with recorded observations, or a name as in `evaluate`.
        samplers: see `evaluate`; None: the samplers worth comparing for the policy.
        count: number of chunks for each sampler.
        output, quiet: see `evaluate`.
        **options: keys of configs/benchmark.yaml, such as engine="openvino", window="tuned". A policy in memory needs
            `observations`, a file of histories, or `task`.

    Raises:
        SpecpolicyError: the settings do not fit together (same message as `specpolicy benchmark`), or a package is
            missing.
    """
    check_installed(COMMAND_LINE)
    from specpolicy.cli import benchmark as verb

    task = options.pop("task", None)
    options = {"count": count, **options}
    return Outcome(*_run(verb, "benchmark", policy, task, samplers, output, quiet, options))


def _run(
    verb: Any,
    name: str,
    policy: Any,
    task: Any,
    samplers: Iterable[SomeSampler] | None,
    output: str | Path | None,
    quiet: bool,
    options: Mapping[str, Any],
) -> tuple[dict[str, Any], Path]:
    """Return the summary and the directory that holds it."""
    from specpolicy.policy import Policy

    own = policy if isinstance(policy, Policy) else None
    options = {"policy": IN_MEMORY if own is not None else str(policy), **options}
    if own is not None:
        options = {"device": str(own.device), **options}
        if own.engine is not None:
            options.setdefault("engine", own.engine_name)
    config = _composed(name, task, options)
    if samplers is not None:
        config.samplers = [_spec(sampler) for sampler in samplers]
    config.output = str(output or tempfile.mkdtemp(prefix=f"specpolicy-{name}-"))
    silence = contextlib.ExitStack()
    if quiet:
        silence.enter_context(contextlib.redirect_stdout(io.StringIO()))
        silence.enter_context(contextlib.redirect_stderr(io.StringIO()))
    with silence:
        verb.run(config, own, f"specpolicy.{name}({config.policy}, ...)")
    directory = Path(config.output)
    return json.loads((directory / "summary.json").read_text(encoding="utf-8")), directory


def _composed(verb: str, task: Any, options: Mapping[str, Any]) -> DictConfig:
    """Return the verb's configuration with some keys set to Python values."""
    from specpolicy.cli.configuration import compose_verb
    from specpolicy.cli.groups import default_groups

    groups, settings = default_groups(verb), dict(options)
    if isinstance(task, str):
        settings["task"] = task
    texts = [f"{key}={_text(value, plain=key in (*groups, 'task'))}" for key, value in settings.items()]
    if isinstance(task, Mapping) and "task" in groups:
        texts += ["task=gym", "task.id=none"]
    config = compose_verb(verb, texts)
    if isinstance(task, Mapping):
        config.task = {"kwargs": {}, "observation_keys": None, **task}
    return config


def _text(value: Any, plain: bool = False) -> str:
    """Return a value in the notation of Hydra's command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_text(one)}" for key, one in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(map(_text, value)) + "]"
    text = str(value)
    return text if plain else "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _spec(sampler: SomeSampler) -> Any:
    """Return a sampler in the notation of configurations."""
    if isinstance(sampler, str):
        return sampler
    if isinstance(sampler, Mapping):
        return dict(sampler)
    if not dataclasses.is_dataclass(sampler):
        raise SpecpolicyError(f"samplers: {sampler!r} is none; give names, samplers or mappings of a name and options")
    spec: dict[str, Any] = {"name": sampler.name}
    for field in dataclasses.fields(sampler):
        value = getattr(sampler, field.name)
        if field.name == "name" or value == field.default:
            continue
        if not isinstance(value, bool | int | float | str | list | tuple | None):
            raise SpecpolicyError(
                f"samplers: option '{field.name}' of {sampler.name} is a {type(value).__name__}, which only `predict` "
                "takes: what was learnt for a policy lies in its checkpoint"
            )
        spec[field.name] = list(value) if isinstance(value, tuple) else value
    return spec


def _number(text: str) -> Any:
    """Convert a field of a table: to a number if it is one, to None if it is empty, else text."""
    if text == "":
        return None
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text
