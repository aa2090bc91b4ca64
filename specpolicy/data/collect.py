"""Demonstrations from a scripted expert, recorded over processes, safe against kills.

Each attempt becomes a small file in `<output>.parts/`, renamed into place when complete. Attempts are numbered, and the
first successful ones by number are kept. So the demonstrations depend on the settings alone, not on the number of
processes or on interruptions.
"""

import glob
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from specpolicy.cluster import Crew, Processes, Work
from specpolicy.data.recorder import Recorder, Recording, describe
from specpolicy.data.robomimic_hdf5 import SETTINGS, assemble, read_attribute, read_part, remove_parts, write_part
from specpolicy.errors import SpecpolicyError
from specpolicy.files import write_text
from specpolicy.machine import versions
from specpolicy.outputs import claim_path, first_difference, remove_temporary

FORMATS = ("hdf5", "lerobot")
HOPELESS = 30  # attempts after which an expert that fails nine times in ten is given up


@dataclass(frozen=True)
class Collected:
    """Result of a collection: demonstrations and samples in the file, and attempts behind them."""

    demonstrations: int
    samples: int
    attempts: int
    successes: int


@dataclass(frozen=True)
class _Setup:
    """Settings of a worker."""

    recording: Recording
    directory: Path
    keep_failures: bool


def collect(
    recording: Recording,
    episodes: int,
    output: Path,
    crew: Crew | None = None,
    keep_failures: bool = False,
    validation: float = 0.1,
    file_format: str = "hdf5",
    on_attempt: Callable[[bool, bool], None] = lambda kept, success: None,
) -> Collected | None:
    """Record `episodes` demonstrations into `output`, continuing what an interrupted run has left.

    Args:
        recording: the settings of the demonstrations.
        episodes: demonstrations to keep.
        output: an HDF5 file to write, or a directory for LeRobot's format.
        crew: records; None: this process alone.
        keep_failures: keep unsuccessful episodes too.
        validation: share of the demonstrations to validate on (`mask/valid`, or the split `valid`); at least one if
            there are two or more.
        file_format: one of `FORMATS`.
        on_attempt: called for each attempt, old ones first, with whether it is kept and whether it succeeded.

    Returns:
        Counts, or None if the file is complete already.

    Raises:
        SpecpolicyError: the output holds other settings; the expert fails nearly always; a worker died.
    """
    settings = {**recording.as_dict(), "keep_failures": keep_failures}
    wanted = {**settings, "episodes": episodes, "validation": validation}
    if file_format not in FORMATS:
        raise SpecpolicyError(f"unknown format '{file_format}': use one of {', '.join(FORMATS)}")
    read_settings, write = _format(file_format)
    if output.exists():
        _require_same(read_settings(output), wanted, output)
        return None
    with claim_path(output, "collect"):
        if output.exists():  # another run may have finished it by now
            return None
        _check_parts(output.with_name(output.name + ".parts"), settings)
        env_args, hz = describe(recording)  # find a wrong task or expert before anything is recorded
        if hz is None and file_format == "lerobot":
            raise SpecpolicyError(
                f"{recording.as_dict()['task']['id']} does not say its control steps per second, which LeRobot's "
                "format needs: give the environment control_hz or metadata['render_fps']"
            )
        return _collect(
            recording, output, crew or Processes(), settings, episodes, validation, env_args, hz, write, on_attempt
        )


def _collect(
    recording: Recording,
    output: Path,
    crew: Crew,
    settings: Mapping[str, Any],
    episodes: int,
    validation: float,
    env_args: Mapping[str, Any],
    hz: float | None,
    write: Callable[..., int],
    on_attempt: Callable[[bool, bool], None],
) -> Collected:
    """Record the missing demonstrations and write the output, which this run has locked."""
    keep_failures = bool(settings["keep_failures"])
    directory = output.with_name(output.name + ".parts")
    # Of a run that was killed:
    remove_temporary(output.parent, [glob.escape(output.name)])
    remove_temporary(directory, ["attempt_*.hdf5", SETTINGS])
    if not (directory / SETTINGS).exists():
        write_text(directory / SETTINGS, json.dumps(settings, indent=2))
    setup = _Setup(recording, directory, keep_failures)

    outcomes: dict[int, tuple[bool, bool]] = {}  # attempt number: succeeded, kept

    def register(number: int) -> None:
        outcomes[number] = read_part(_part(directory, number))
        on_attempt(outcomes[number][1], outcomes[number][0])
        failures = sum(not success for success, _ in outcomes.values())
        if not keep_failures and len(outcomes) >= HOPELESS and failures > 0.9 * len(outcomes):
            raise SpecpolicyError(
                f"the expert failed {failures} of {len(outcomes)} attempts at {recording.as_dict()['task']['id']}; "
                "lower noise, raise max_seconds, or set keep_failures=true"
            )

    for number in sorted(int(path.stem.removeprefix("attempt_")) for path in directory.glob("attempt_*.hdf5")):
        try:
            read_part(_part(directory, number))
        except (OSError, KeyError) as error:
            if getattr(error, "errno", None):  # the file cannot be reached, which says nothing about it
                raise
            _part(directory, number).unlink()  # cut short when the machine stopped: the attempt is made again
            continue
        register(number)
    for number in crew.run(
        Work(_Worker, setup, name=lambda number: f"attempt {number}"), _Numbers(outcomes, episodes), episodes
    ):
        register(number)

    attempts = 0
    kept: list[Path] = []
    while len(kept) < episodes:
        if outcomes[attempts][1]:
            kept.append(_part(directory, attempts))
        attempts += 1
    attributes = {
        "task": settings["task"],
        "collection": {**settings, "episodes": episodes, "validation": validation},
        "versions": versions(),
    }
    valid = _validation(episodes, validation, recording.seed)
    samples = write(output, kept, env_args, attributes, valid, hz)
    remove_parts(directory)
    successes = sum(outcomes[number][0] for number in range(attempts))
    return Collected(episodes, samples, attempts, successes)


class _Worker:
    """Records attempts into their part files; one in each process."""

    def __init__(self, setup: _Setup) -> None:
        self.setup = setup
        self.recorder = Recorder(setup.recording)

    def __call__(self, number: int) -> int:
        demonstration = self.recorder.record(number)
        kept = demonstration if demonstration.success or self.setup.keep_failures else None
        write_part(_part(self.setup.directory, number), kept, demonstration.success)
        return number

    def close(self) -> None:
        self.recorder.close()


class _Numbers:
    """Numbers of attempts still to be made, lowest first.

    It pauses while the finished and running attempts could be enough, and goes on if some of them fail.
    """

    def __init__(self, outcomes: Mapping[int, tuple[bool, bool]], episodes: int) -> None:
        self.outcomes, self.episodes = outcomes, episodes
        self.given: set[int] = set()

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        number = hoped = 0
        while number in self.outcomes or number in self.given:
            hoped += self.outcomes[number][1] if number in self.outcomes else 1
            number += 1
        if hoped >= self.episodes:
            raise StopIteration
        self.given.add(number)
        return number


def _format(name: str) -> tuple[Callable[[Path], Any], Callable[..., int]]:
    """Return a function that reads the settings of a finished output, and one that writes an output from parts."""
    if name == "lerobot":
        import pyarrow  # noqa: F401  (missing, it should be missed before anything is recorded)

        from specpolicy.data import lerobot_writer

        return lerobot_writer.read_settings, lerobot_writer.write_lerobot
    return lambda path: read_attribute(path, "collection"), assemble


def _part(directory: Path, number: int) -> Path:
    return directory / f"attempt_{number:06d}.hdf5"


def _check_parts(directory: Path, settings: Mapping[str, object]) -> None:
    """Check that the directory of parts, if it is there, was made for the same settings."""
    path = directory / SETTINGS
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        _require_same(found if isinstance(found, dict) else None, settings, directory)
    elif directory.exists() and any(not entry.name.startswith(".") for entry in directory.iterdir()):
        _require_same(None, settings, directory)


def _require_same(found: dict[str, object] | None, wanted: Mapping[str, object], path: Path) -> None:
    if found is None:
        raise SpecpolicyError(f"{path} exists and was not written by collect; choose another output")
    if difference := first_difference(found, wanted):
        name, old, new = difference
        raise SpecpolicyError(f"{path} was made with {name}={old}, not {new}; choose another output or delete it")


def _validation(episodes: int, share: float, seed: int) -> list[int]:
    """Draw the numbers of the held-out demonstrations from the collection's seed."""
    count = min(max(1, round(share * episodes)), episodes - 1)
    rng = np.random.default_rng(np.random.SeedSequence((seed, 2**32 - 1)))  # no attempt has this number
    return [int(number) for number in rng.choice(episodes, count, replace=False)]
