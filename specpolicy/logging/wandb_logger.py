"""Metrics in Weights & Biases; works offline, and a resumed run continues under its old id."""

import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from specpolicy.artifacts import PREFIX, TYPE, Artifact, default_project, one_reason
from specpolicy.errors import SpecpolicyError
from specpolicy.files import write_text
from specpolicy.logging.metrics import MetricLogger, Score

IMAGES = (".png", ".jpg", ".jpeg")
VIDEOS = (".mp4", ".gif", ".webm")
MODES = ("online", "offline", "disabled")
OLD_MODES = {"dryrun": "offline", "run": "online"}  # names that W&B still takes from WANDB_MODE


class WandbLogger(MetricLogger):
    """One W&B run per output directory; `wandb_run_id.txt` there keeps its id, `wandb_row.txt` its last row.

    Metrics are plotted against our own `step`. W&B also numbers its rows and drops a row whose number goes back. Rows
    get the number of their step if possible. After a resume from a checkpoint the first steps are behind the last row,
    so those rows get the next free numbers. A run that resumes offline is a second record, which W&B would begin at row
    0; it continues after the last row of the first record.

    A sweep agent sets the id of the run that it has begun (WANDB_RUN_ID); this id wins over the directory's.

    Args:
        directory: output directory of the run.
        run_config: the run's config in W&B.
        run_name: the run's name in W&B.
        project, entity, group, tags: where W&B files the run; project None: WANDB_PROJECT, else "specpolicy".
        log_model: record the policies that the run makes as artifacts.
        mode: "online", "offline" (send later with `wandb sync`) or "disabled"; WANDB_MODE wins over it.
    """

    def __init__(
        self,
        directory: Path | str,
        run_config: Mapping[str, Any] | None = None,
        run_name: str | None = None,
        project: str | None = None,
        entity: str | None = None,
        mode: str = "online",
        group: str | None = None,
        tags: Sequence[str] = (),
        log_model: bool = True,
    ) -> None:
        import wandb

        mode = chosen_mode(mode)
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        id_file = directory / "wandb_run_id.txt"
        run_id = id_file.read_text(encoding="utf-8").strip() if id_file.exists() else ""
        wanted = os.environ.get("WANDB_RUN_ID") or run_id or secrets.token_hex(4)
        if wanted != run_id:
            run_id = wanted
            write_text(id_file, run_id + "\n")
        try:
            self.run = wandb.init(
                project=project or default_project(),
                entity=entity,
                group=group,
                tags=list(tags),
                mode=mode,  # type: ignore[arg-type]
                id=run_id,
                resume="allow",
                name=run_name,
                dir=str(directory),
                config=dict(run_config or {}),
                settings=wandb.Settings(console="off", silent=True),
            )
        except wandb.errors.Error as error:  # no API key on this machine, no network, no such team
            raise SpecpolicyError(f"{one_reason(error, 'project')}; or choose logger.mode=offline") from error
        self.log_model = log_model
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")
        self._row_file = directory / "wandb_row.txt"
        self._next_row = max(self.run.starting_step, _read_number(self._row_file) + 1)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._log({key: float(value) for key, value in metrics.items()}, step)

    def log_file(self, name: str, path: Path | str, step: int | None = None) -> None:
        path = Path(path)
        if not path.is_file():
            raise SpecpolicyError(f"cannot log {name}: no such file: {path}")
        suffix = path.suffix.lower()
        if suffix in IMAGES or suffix in VIDEOS:
            self._log({name: _cell(path)}, step)
        else:
            self.run.save(str(path), base_path=str(path.parent), policy="now")

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        import wandb

        self._log({name: wandb.Table(columns=list(columns), data=[list(map(_cell, row)) for row in rows])})

    def summary(self, metrics: Mapping[str, Any]) -> None:
        self.run.summary.update(dict(metrics))

    def use_policy(self, artifact: Artifact) -> None:
        if not self._online:
            return  # W&B records this only for online runs; the run's config names the policy, too
        try:
            self.run.use_artifact(artifact.name, type=TYPE)
        except Exception as error:  # errors of many kinds
            raise SpecpolicyError(f"{artifact.reference}: {one_reason(error)}") from error

    def log_policy(
        self,
        name: str,
        files: Mapping[str, Path],
        metadata: Mapping[str, Any],
        score: Score | None = None,
        alias: str | None = None,
    ) -> str | None:
        import wandb

        if not self.log_model:
            return None
        scored = {} if score is None else {"score": asdict(score)}
        artifact = wandb.Artifact(name, type=TYPE, metadata={**metadata, **scored})
        for inside, path in files.items():
            artifact.add_file(str(path), name=inside)
        best = ["best"] if self._online and score is not None and self._is_best(name, score) else []
        try:
            logged = self.run.log_artifact(artifact, aliases=["latest", *best, *([alias] if alias else [])])
            if not self._online:
                return None
            logged.wait()
            return f"{PREFIX}{logged.entity}/{logged.project}/{name}:{logged.version}"
        except Exception as error:
            places = ", ".join(map(str, files.values()))
            raise SpecpolicyError(f"{places}: written, but not logged as an artifact: {one_reason(error)}") from error

    def close(self) -> None:
        self.run.finish()

    @property
    def _online(self) -> bool:
        return not (self.run.offline or self.run.disabled)

    def _is_best(self, name: str, score: Score) -> bool:
        """Whether no earlier version is as good. A version that was measured otherwise keeps the alias."""
        import wandb

        best = f"{self.run.entity}/{self.run.project}/{name}:best"
        try:
            api = wandb.Api()
            if not api.artifact_exists(best, type=TYPE):
                return True
            better = score.beats(api.artifact(best).metadata.get("score") or {})
        except Exception as error:
            print(f"{PREFIX}{best} stays what it is: {one_reason(error)}", file=sys.stderr)
            return False
        if better is None:
            print(f"{PREFIX}{best} stays what it is: it was scored by other data or otherwise", file=sys.stderr)
        return bool(better)

    def _log(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Log a row; a row without a step goes after the existing ones."""
        row = self._next_row if step is None else max(int(step), self._next_row)
        self.run.log({**values, **({} if step is None else {"step": int(step)})}, step=row, commit=True)
        self._next_row = row + 1
        write_text(self._row_file, f"{row}\n")


def chosen_mode(given: Any) -> str:
    """Return W&B's mode: that of the environment, if there is one, else the given one.

    Raises:
        SpecpolicyError: it is none; the variable or the key is named.
    """
    own = os.environ.get("WANDB_MODE")
    name, mode = ("WANDB_MODE", own) if own else ("logger.mode", given)
    mode = OLD_MODES.get(mode, mode) if own else mode
    if mode not in MODES:
        raise SpecpolicyError(f"{name}={mode}: expected {', '.join(MODES[:-1])} or {MODES[-1]}")
    return str(mode)


def _cell(value: Any) -> Any:
    """Convert a value for W&B; a path becomes the image or video at this path."""
    import wandb

    if not isinstance(value, Path):
        return value
    suffix = value.suffix.lower()
    return wandb.Image(str(value)) if suffix in IMAGES else wandb.Video(str(value), format=suffix[1:])  # type: ignore[arg-type]


def _read_number(path: Path) -> int:
    """Return the number in a file; -1 if there is none."""
    try:
        return int(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return -1
