"""robomimic's HDF5 files, from `specpolicy collect` or robomimic: their vectors and their filter keys.

robomimic's own reader trusts `num_samples` and the masks. Here both are checked, and either may be missing.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from specpolicy.data.bounds import check_dataset
from specpolicy.data.episodes import DataSet, Episode, as_vectors
from specpolicy.data.frames import Frames
from specpolicy.data.robomimic_hdf5 import EXECUTED
from specpolicy.data.robomimic_images import HDF5Images, check_images
from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import check_regular, one_line
from specpolicy.rates import one_rate, parse_hz


def read(path: str | Path, observation_keys: Sequence[str]) -> DataSet:
    """See `specpolicy.data.dataset.read_data`. The parts are the filter keys under `mask`."""
    with opened(path) as file:
        known = _Known(HDF5Images(path))
        episodes = {
            name: _episode(path, f"data/{name}", file["data"][name], observation_keys, known)
            for name in names_in(path, file)
        }
        return DataSet(Path(path), episodes, _parts(path, file), _hz(path, file["data"].attrs))


def observation_keys(path: str | Path) -> list[str]:
    """See `specpolicy.data.dataset.observation_keys`."""
    with opened(path) as file:
        first = names_in(path, file)[0]
        demo = file["data"][first]
        _require_parts(path, f"data/{first}", demo)
        return sorted(
            key
            for key, values in demo["obs"].items()
            if isinstance(values, h5py.Dataset) and values.ndim in (1, 2) and 0 not in values.shape[1:]
        )


@dataclass
class _Known:
    """Shared by all demonstrations: the file of their images, and by key the width of a vector or (H, W, C)."""

    source: HDF5Images
    widths: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int, int]] = field(default_factory=dict)


@contextmanager
def opened(path: str | Path) -> Iterator[h5py.File]:
    """Open the file; any HDF5 error in the block becomes one line."""
    if not Path(path).exists():
        raise SpecpolicyError(f"no demonstrations at {path}: record some with 'specpolicy collect', or give data=FILE")
    check_regular(path)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise SpecpolicyError(f"{path} is not a readable HDF5 file ({one_line(error)})") from None
    with file:
        try:
            yield file
        except SpecpolicyError:
            raise
        except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:  # dangling links, damaged chunks
            raise SpecpolicyError(f"{path} is damaged ({type(error).__name__}: {one_line(error)})") from None


def names_in(path: str | Path, file: h5py.File) -> list[str]:
    """Return the names of the demonstrations, by their number as robomimic sorts them, others after them."""
    if not isinstance(file.get("data"), h5py.Group) or not len(file["data"]):
        raise SpecpolicyError(f"{path} has no demonstrations under 'data': it is not a robomimic file")

    def number(name: str) -> tuple[float, str]:
        found = re.fullmatch(r"demo_(\d+)", name, re.ASCII)
        return (int(found[1]) if found else float("inf")), name

    return sorted(file["data"], key=number)


def _episode(path: str | Path, where: str, demo: Any, keys: Sequence[str], known: _Known) -> Episode:
    """Read one demonstration, which must have the widths of those read before it."""
    _require_parts(path, where, demo)
    for key in keys:
        if key not in demo["obs"]:
            present = ", ".join(sorted(demo["obs"]))
            raise SpecpolicyError(f"{path}: {where}/obs has no key '{key}' (it has {present})")
    actions = np.asarray(_read(path, where, "actions", demo, None, known))
    told = demo.attrs.get("num_samples", len(actions))
    if np.ndim(told) or told != len(actions):
        raise SpecpolicyError(f"{path}: {where} says num_samples={told} and has {len(actions)} actions")
    observation = {key: _read(path, where, f"obs/{key}", demo, len(actions), known) for key in keys}
    executed = None
    if EXECUTED in demo:
        known.widths[EXECUTED] = known.widths["actions"]
        executed = np.asarray(_read(path, where, EXECUTED, demo, len(actions), known))
    return Episode(actions, observation, executed)


def image_keys(path: str | Path) -> list[str]:
    """See `specpolicy.data.dataset.image_keys`."""
    with opened(path) as file:
        first = names_in(path, file)[0]
        demo = file["data"][first]
        _require_parts(path, f"data/{first}", demo)
        return sorted(
            key
            for key, values in demo["obs"].items()
            if isinstance(values, h5py.Dataset) and values.ndim == 4 and values.dtype == np.uint8
        )


def _require_parts(path: str | Path, where: str, demo: Any) -> None:
    if not isinstance(demo, h5py.Group) or "actions" not in demo or not isinstance(demo.get("obs"), h5py.Group):
        raise SpecpolicyError(f"{path}: {where} lacks 'actions' or 'obs'")


def _read(
    path: str | Path, where: str, key: str, demo: h5py.Group, length: int | None, known: _Known
) -> np.ndarray | Frames:
    """Read vectors, or see to it that images can be read later."""
    array = demo[key]
    shape = array.shape if isinstance(array, h5py.Dataset) else None
    first = key not in known.widths and key not in known.sizes
    if shape and (key in known.sizes or (first and length is not None and len(shape) == 4)):
        size = known.sizes[key] = check_images(array, f"{where}/{key}", path, length, known.sizes.get(key))
        return Frames(known.source, f"{where}/{key}", np.arange(shape[0]), size)
    rows = length if length is not None or not shape else shape[0]
    wide = (*shape, 1) if shape and len(shape) == 1 and key.startswith("obs/") else shape  # a number is a vector of one
    if not wide or len(wide) != 2 or wide != (rows, known.widths.setdefault(key, wide[1])):
        expected = f"({'T' if rows is None else rows}, {known.widths.get(key, 'D')})"
        raise SpecpolicyError(f"{path}: {where}/{key} has shape {shape}, expected {expected}")
    check_dataset(array, f"{where}/{key}", path)
    return as_vectors(array[()].reshape(wide), f"{where}/{key}", path)


def _parts(path: str | Path, file: h5py.File) -> dict[str, list[str]]:
    mask = file.get("mask", {})
    if not isinstance(mask, Mapping):
        raise SpecpolicyError(f"{path}: mask is no group of filter keys")
    found = {}
    for name, entry in mask.items():
        values = np.zeros(1)
        if isinstance(entry, h5py.Dataset) and entry.ndim == 1:
            check_dataset(entry, f"mask/{name}", path)
            values = entry[()]
        texts = [value.decode(errors="replace") if isinstance(value, bytes) else value for value in values]
        if not all(isinstance(text, str) for text in texts):
            raise SpecpolicyError(f"{path}: mask/{name} is no list of names of demonstrations")
        found[str(name)] = texts
    return found


def _hz(path: str | Path, attributes: Mapping[str, Any]) -> float | None:
    """Return the rate of `control_hz` (ours) or of `control_freq` in the environment's description."""
    own = parse_hz(attributes.get("control_hz"), f"{path}: data's attribute control_hz")
    text = attributes.get("env_args")
    if text is None or (isinstance(text, str | bytes) and not text.strip()):
        return own
    try:
        description = json.loads(text)
        arguments = {} if description is None else description.get("env_kwargs") or {}
        frequency = arguments.get("control_freq")
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise SpecpolicyError(f"{path}: data's attribute env_args is no description of an environment") from None
    return one_rate(own, parse_hz(frequency, f"{path}: control_freq of env_args"), f"{path}: control_hz and env_args")
