"""Remembered choices of `auto`: a small file for each network, machine and version, so that each is made once."""

import hashlib
import importlib.metadata
import json
import os
from dataclasses import dataclass
from typing import Any

import torch

from specpolicy.engines.base import Engine, Workload
from specpolicy.errors import SpecpolicyError
from specpolicy.files import cache_directory, write_text
from specpolicy.machine import cpu_name

PACKAGES = ("torch", "openvino", "numba")


@dataclass(frozen=True)
class Choice:
    """An engine that was found to be the fastest.

    Attributes:
        name: name of the engine.
        considered: findings about it and the other engines, by name.
    """

    name: str
    considered: dict[str, str]


def recall(workload: Workload, beside: str | None = None) -> Choice | None:
    """Return the choice for such a workload on this machine; None if there is none. `beside`: see `Beside.about`."""
    path = _path(workload, beside)
    if path is None:
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Choice(str(found["engine"]), {str(name): str(text) for name, text in found["considered"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # missing or damaged: it is measured again
        return None


def remember(workload: Workload, engine: Engine, beside: str | None = None) -> None:
    """Store a choice. If nothing can be written, the next process measures again."""
    path = _path(workload, beside)
    if path is None:
        return
    found = {"engine": engine.name, "considered": engine.considered, "for": _about(workload, beside)}
    try:
        write_text(path, json.dumps(found, indent=2) + "\n")
    except (OSError, SpecpolicyError):
        return


def _path(workload: Workload, beside: str | None) -> Any:
    """Return the file for a workload; None if its network is a function, which cannot be identified."""
    if not isinstance(workload.denoiser, torch.nn.Module):
        return None
    digest = hashlib.sha256(json.dumps(_about(workload, beside), sort_keys=True).encode()).hexdigest()
    return cache_directory() / "engines" / f"{digest[:32]}.json"


def _about(workload: Workload, beside: str | None) -> dict[str, Any]:
    """Return everything that decides which engine is the fastest: the shapes of the weights do, their values do not."""
    network = workload.denoiser
    assert isinstance(network, torch.nn.Module)
    shapes = [(name, list(weight.shape), str(weight.dtype)) for name, weight in network.state_dict().items()]
    gpu = workload.device.type == "cuda"
    return {
        "network": type(network).__qualname__,
        "weights": hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:32],
        "chunk_shape": list(workload.chunk_shape),
        "cond_shape": None if workload.cond_shape is None else list(workload.cond_shape),
        "max_rows": workload.max_rows,
        "precision": workload.precision,
        "time_dtype": str(workload.time_dtype),
        "machine": torch.cuda.get_device_name(workload.device) if gpu else cpu_name(),
        "device": workload.device.type,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "versions": {name: _version(name) for name in PACKAGES},
        **({} if beside is None else {"beside": beside}),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
