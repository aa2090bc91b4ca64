"""`specpolicy.evaluate` and `specpolicy.benchmark`: two verbs as functions, for policies in memory, too.

Their options are the keys of the verb's yaml; what the command line refuses is refused here with the same words.
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

    from specpolicy.policy_base import Policy
    from specpolicy.sampler_names import AnySampler

    SomeSampler = str | Mapping[str, Any] | AnySampler

IN_MEMORY = "(in memory)"  # what results say of where such a policy lies


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a verb found.

    Attributes:
        summary: all figures, in plain values: what summary.json holds.
        directory: where everything was written.
    """

    summary: dict[str, Any]
    directory: Path

    @property
    def chunks(self) -> Any:
        """A row for each chunk, see `rows`."""
        return self.rows("chunks.csv")

    def rows(self, table: str) -> Any:
        """What one of the CSV files holds: a DataFrame where pandas is installed, else a list of dicts."""
        with (self.directory / table).open(encoding="utf-8", newline="") as file:
            found = [{name: _number(value) for name, value in row.items()} for row in csv.DictReader(file)]
        try:
            import pandas
        except ImportError:
            return found
        return pandas.DataFrame(found)

    def report(self, out: str | Path) -> Path:
        """Copy all that was written to a directory `out`, which must not be there yet.

        Returns:
            report.html, or table.md of a benchmark.

        Raises:
            SpecpolicyError: there is something at `out`.
        """
        out = Path(out)
        if out.exists():
            raise SpecpolicyError(f"{out} is there already: give a directory that is not")
        shutil.copytree(self.directory, out, ignore=shutil.ignore_patterns(".*"))
        return out / ("report.html" if (out / "report.html").exists() else "table.md")


class Evaluated(Outcome):
    """What an evaluation found."""

    @property
    def episodes(self) -> Any:
        """A row for each episode, see `rows`."""
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
    """Play a policy with several samplers on the same seeds; measure success, and what time costs.

    Args:
        policy: in memory, a checkpoint's directory, or wandb:entity/project/name:version.
        task: a task's name, such as "lift", or its configuration.
        samplers: names ("ddim-4"), samplers (`samplers.Recycled(steps=16)`) or mappings of a name and options; None:
            the policy's best.
        episodes: of each sampler.
        output: the directory for results, which a second call with the same settings continues; None: a temporary one.
        quiet: print no progress and no table.
        **options: keys of configs/evaluate.yaml, such as workers=0, track="delay", videos=3; a dotted one in a dict:
            `**{"track.delays": [0, 2]}`.

    Raises:
        SpecpolicyError: settings that do not go together, as `specpolicy evaluate` words it; missing packages.
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
    """Draw chunks with several samplers side by side and measure what each costs: calls, rows, milliseconds.

    Args:
        policy: in memory, or a checkpoint's directory, which holds recorded observations (or a name, see `evaluate`).
        samplers: see `evaluate`; None: those worth comparing for the policy.
        count: chunks of each sampler.
        output, quiet: see `evaluate`.
        **options: keys of configs/benchmark.yaml, such as engine="openvino", window="tuned"; of a policy in memory
            `observations`, a file of histories, or `task`.

    Raises:
        SpecpolicyError: settings that do not go together, as `specpolicy benchmark` words it; missing packages.
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
    """The summary, and the directory where it stands."""
    from specpolicy.policy_base import Policy

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
    """The verb's configuration with some keys set to values of Python."""
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
    """A value as Hydra's command line writes it."""
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
    """A sampler as configurations write it."""
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
    """What a field of a table holds: a number, None where it is empty, else text."""
    if text == "":
        return None
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text
