"""Demonstrations from a scripted expert, recorded over processes, safe against kills.

Each attempt becomes a small file in `<output>.parts/`, renamed into place when complete. Attempts are
numbered; the demonstrations kept are the first successful ones by number. So they depend on the settings
alone, not on how many processes recorded them or on how often the run was killed and started again.
"""

import contextlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from specpolicy.data.recorder import Recording, recorder
from specpolicy.data.robomimic_hdf5 import assemble, read_attribute, read_part, remove_parts, write_part
from specpolicy.errors import SpecpolicyError
from specpolicy.files import write_text

HOPELESS = 30  # attempts after which an expert that fails nine times in ten is given up


@dataclass(frozen=True)
class Collected:
    """What a collection came to: demonstrations and samples in the file, and attempts behind them."""

    demonstrations: int
    samples: int
    attempts: int
    successes: int


def collect(
    recording: Recording,
    episodes: int,
    output: Path,
    workers: int = 1,
    keep_failures: bool = False,
    validation: float = 0.1,
    on_attempt: Callable[[bool, bool], None] = lambda kept, success: None,
) -> Collected | None:
    """Record `episodes` demonstrations into `output`, continuing what an interrupted run has left.

    Args:
        recording: what to record.
        episodes: demonstrations to keep.
        output: the HDF5 file to write.
        workers: processes; 1 records in this one.
        keep_failures: keep unsuccessful episodes too.
        validation: share of the demonstrations in `mask/valid`; at least one if there are two or more.
        on_attempt: called for each attempt, old ones first, with whether it is kept and whether it succeeded.

    Returns:
        Counts, or None if the file is complete already.

    Raises:
        SpecpolicyError: the output holds other settings; the expert fails nearly always; a worker died.
    """
    settings = {**recording.as_dict(), "keep_failures": keep_failures}
    wanted = {**settings, "episodes": episodes, "validation": validation}
    if output.exists():
        _require_same(read_attribute(output, "collection"), wanted, output)
        return None
    env_args = recorder(recording).env_args()  # also finds a wrong task or expert before anything is written
    directory = output.with_name(output.name + ".parts")
    _claim(directory, settings)

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
        register(number)
    run = _run_here if workers == 1 else _run_in_processes
    run(recording, directory, keep_failures, workers, lambda busy: _next(outcomes, busy, episodes), register)

    attempts = 0
    kept: list[Path] = []
    while len(kept) < episodes:
        if outcomes[attempts][1]:
            kept.append(_part(directory, attempts))
        attempts += 1
    attributes = {"task": settings["task"], "collection": wanted}
    valid = _validation(episodes, validation, recording.seed)
    samples = assemble(output, kept, env_args, attributes, valid)
    remove_parts(directory)
    successes = sum(outcomes[number][0] for number in range(attempts))
    return Collected(episodes, samples, attempts, successes)


def _record(recording: Recording, directory: Path, keep_failures: bool, number: int) -> int:
    """Record one attempt into its part file; runs in a worker."""
    demonstration = recorder(recording).record(number)
    kept = demonstration if demonstration.success or keep_failures else None
    write_part(_part(directory, number), kept, demonstration.success)
    return number


def _next(outcomes: dict[int, tuple[bool, bool]], busy: set[int], episodes: int) -> int | None:
    """The lowest attempt still to be made; None when those made and under way could be enough."""
    number = kept = 0
    while kept < episodes:
        if number in outcomes:
            kept += outcomes[number][1]
        elif number in busy:
            kept += 1
        else:
            return number
        number += 1
    return None


def _run_here(
    recording: Recording,
    directory: Path,
    keep_failures: bool,
    workers: int,
    next_number: Callable[[set[int]], int | None],
    register: Callable[[int], None],
) -> None:
    while (number := next_number(set())) is not None:
        register(_record(recording, directory, keep_failures, number))


def _run_in_processes(
    recording: Recording,
    directory: Path,
    keep_failures: bool,
    workers: int,
    next_number: Callable[[set[int]], int | None],
    register: Callable[[int], None],
) -> None:
    context = multiprocessing.get_context("spawn")
    busy: dict[Future[int], int] = {}
    try:
        with _one_thread_each(), ProcessPoolExecutor(workers, context, _start_worker) as pool:
            try:
                while True:
                    while len(busy) < workers and (number := next_number(set(busy.values()))) is not None:
                        busy[pool.submit(_record, recording, directory, keep_failures, number)] = number
                    if not busy:
                        return
                    for future in wait(busy, return_when=FIRST_COMPLETED).done:
                        del busy[future]
                        register(future.result())
            finally:
                pool.shutdown(cancel_futures=True)
    except BrokenProcessPool as error:
        raise SpecpolicyError(
            f"a worker process died (out of memory?); nothing is lost: start the same command again, "
            f"with fewer than workers={workers}"
        ) from error


def _start_worker() -> None:
    """Leave Ctrl-C to the main process, and do not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes started in this block compute on one thread each; the cores are shared out already."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _part(directory: Path, number: int) -> Path:
    return directory / f"attempt_{number:06d}.hdf5"


def _claim(directory: Path, settings: dict[str, object]) -> None:
    """Make the directory of parts, or check that it was made for the same settings."""
    path = directory / "settings.json"
    if path.exists():
        _require_same(json.loads(path.read_text(encoding="utf-8")), settings, directory)
    else:
        write_text(path, json.dumps(settings, indent=2))


def _require_same(found: dict[str, object] | None, wanted: Mapping[str, object], path: Path) -> None:
    if found is None:
        raise SpecpolicyError(f"{path} exists and was not written by collect; choose another output")
    difference = _first_difference(found, wanted)
    if difference:
        raise SpecpolicyError(f"{path} was made with {difference}; choose another output or delete it")


def _first_difference(found: Mapping[str, object], wanted: Mapping[str, object], prefix: str = "") -> str | None:
    for key in sorted({*found, *wanted}):
        old, new = found.get(key), wanted.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            if deeper := _first_difference(old, new, f"{prefix}{key}."):
                return deeper
        elif old != new:
            return f"{prefix}{key}={old}, not {new}"
    return None


def _validation(episodes: int, share: float, seed: int) -> list[int]:
    """Numbers of the demonstrations held out, drawn from the collection's seed."""
    count = min(max(1, round(share * episodes)), episodes - 1)
    rng = np.random.default_rng(np.random.SeedSequence((seed, 2**32 - 1)))  # no attempt has this number
    return [int(number) for number in rng.choice(episodes, count, replace=False)]
