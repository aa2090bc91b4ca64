"""Demonstrations in robomimic's HDF5 layout: one small file for each while recording, then one for all.

data            attributes total, control_hz, env_args (JSON), task (JSON), collection (JSON), versions (JSON)
data/demo_i     attributes num_samples, model_file, success, reset_seed
  actions (T, D)   states (T, N)   rewards (T,)   dones (T,)   obs/<key> (T, ...)   next_obs/<key> (T, ...)
  executed_actions (T, D), what the environment was given: the actions with the collection's noise
  images are obs/<key> (T, H, W, C) uint8, packed by gzip a frame at a time, and have no next_obs
mask/train, mask/valid   names of demonstrations, as bytes
"""

import contextlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from specpolicy.errors import SpecpolicyError
from specpolicy.files import atomic_path
from specpolicy.outputs import remove

SETTINGS = "settings.json"  # of a collection, beside its parts
RESET_SEED = "reset_seed"  # attribute of a demonstration
EXECUTED = "executed_actions"  # robomimic reads the arrays that it is told to, and leaves this one alone


@dataclass
class Demonstration:
    """One episode of T control steps.

    Attributes:
        actions: (T, D) clean actions, the labels.
        states: (T, N) simulator state before each action; N is 0 where the environment has none.
        rewards: (T,).
        dones: (T,) 0 or 1.
        observations: for each key (T + 1, ...): before each action, and after the last one.
        success: whether the task was solved.
        model_xml: MuJoCo model of the episode, or an empty string.
        executed: (T, D) what the environment was given; None: the labels.
        reset_seed: seed of the environment's reset; None if unknown.
    """

    actions: np.ndarray
    states: np.ndarray
    rewards: np.ndarray
    dones: np.ndarray
    observations: dict[str, np.ndarray]
    success: bool
    model_xml: str = ""
    executed: np.ndarray | None = None
    reset_seed: int | None = None

    def __len__(self) -> int:
        return len(self.actions)


class _Sink(io.FileIO):
    """A file for HDF5 to write to that never fails; its `error` is kept for afterwards.

    HDF5 writes when it closes a file, and tries again when Python ends: where that fails, it crashes the process.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        while len(left) and self.error is None:
            try:
                left = left[super().write(left) or 0 :]  # a disk that fills up takes a part first
            except OSError as error:
                self.error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0


@contextlib.contextmanager
def _written(path: Path) -> Iterator[h5py.File]:
    """Yield an HDF5 file to fill, which appears at `path` when the block has succeeded.

    Raises:
        SpecpolicyError: it cannot be written.
    """
    with atomic_path(path) as temporary, _Sink(temporary, "r+b") as sink:
        try:
            with h5py.File(sink, "w") as file:
                yield file
        except Exception as error:
            if sink.error is not None:  # HDF5 did not find what it had written
                raise sink.error from error
            raise
        if sink.error is not None:
            raise sink.error


def write_part(path: Path, demonstration: Demonstration | None, success: bool) -> None:
    """Write one attempt to its own file, atomically; `demonstration` is None for one not kept."""
    with _written(path) as file:
        file.attrs["success"] = success
        if demonstration is None:
            return
        group = file.create_group("demo")
        group.attrs["num_samples"] = len(demonstration)
        group.attrs["model_file"] = demonstration.model_xml
        group.attrs["success"] = success
        if demonstration.reset_seed is not None:
            group.attrs[RESET_SEED] = demonstration.reset_seed
        group["actions"] = demonstration.actions
        group[EXECUTED] = demonstration.actions if demonstration.executed is None else demonstration.executed
        group["states"] = demonstration.states
        group["rewards"] = demonstration.rewards
        group["dones"] = demonstration.dones
        for key, values in demonstration.observations.items():
            if values.dtype == np.uint8 and values.ndim == 4:
                # A window reads single frames, so each is unpacked by itself; next_obs would hold each a second time.
                chunks = (1, *values.shape[1:])
                group.create_dataset(f"obs/{key}", data=values[:-1], chunks=chunks, compression="gzip")
                continue
            group[f"obs/{key}"] = values[:-1]
            group[f"next_obs/{key}"] = values[1:]


def read_part(path: Path) -> tuple[bool, bool]:
    """Whether the attempt in a part file succeeded, and whether its data was kept."""
    with h5py.File(path, "r") as file:
        return bool(file.attrs["success"]), "demo" in file


def reset_seed(path: Path) -> int | None:
    """The seed of the reset of the attempt in a part file; None if an earlier version wrote it."""
    with h5py.File(path, "r") as file:
        found = file["demo"].attrs.get(RESET_SEED)
    return None if found is None else int(found)


def assemble(
    path: Path,
    parts: Sequence[Path],
    env_args: Mapping[str, Any],
    attributes: Mapping[str, Any],
    valid: Sequence[int],
    hz: float | None,
) -> int:
    """Join part files into one robomimic file, atomically; return its number of samples.

    Args:
        path: the file to write.
        parts: part files with data; the i-th becomes `demo_i`.
        env_args: robomimic's description of the environment.
        attributes: more attributes of `data`, stored as JSON.
        valid: numbers of the demonstrations in `mask/valid`; all others are in `mask/train`.
        hz: samples per second, stored as an attribute of `data`; None if unknown.
    """
    with _written(path) as file:
        data = file.create_group("data")
        total = 0
        for number, part in enumerate(parts):
            with h5py.File(part, "r") as source:
                source.copy("demo", data, name=f"demo_{number}")
            total += int(data[f"demo_{number}"].attrs["num_samples"])
        data.attrs["total"] = total
        if hz is not None:
            data.attrs["control_hz"] = hz
        data.attrs["env_args"] = json.dumps(dict(env_args))
        for key, value in attributes.items():
            data.attrs[key] = json.dumps(value)
        train = [number for number in range(len(parts)) if number not in set(valid)]
        for name, numbers in (("train", train), ("valid", sorted(valid))):
            file[f"mask/{name}"] = np.array([f"demo_{number}".encode() for number in numbers], dtype="S16")
    return total


def read_attribute(path: Path, name: str) -> Any:
    """Return one JSON attribute of `data`, or None if it is missing.

    Raises:
        SpecpolicyError: not an HDF5 file in this layout, or the attribute is damaged.
    """
    try:
        with h5py.File(path, "r") as file:
            text = file["data"].attrs.get(name)
    except (OSError, KeyError) as error:
        raise SpecpolicyError(f"{path} is no demonstration file (HDF5 in robomimic's layout)") from error
    try:
        return None if text is None else json.loads(text)
    except (ValueError, TypeError, RecursionError):
        raise SpecpolicyError(f"{path}: data's attribute {name} is damaged: it is no JSON") from None


def remove_parts(directory: Path) -> None:
    """Delete the part files of a directory, and the directory if nothing else is in it."""
    remove(directory, ["attempt_*.hdf5", SETTINGS])
    with contextlib.suppress(OSError):
        directory.rmdir()
