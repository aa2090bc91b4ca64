"""Where figures come from: the machine, the versions and the policy behind them."""

import hashlib
import importlib.metadata
import json
import os
import platform
from typing import Any

import torch

from specpolicy.fingerprints import add_weights
from specpolicy.machine import cpu_name
from specpolicy.policy_base import Policy

PACKAGES = ("specpolicy", "torch", "numpy", "gymnasium", "mujoco", "robosuite")


def hardware() -> dict[str, Any]:
    """CPU name, cores this process may use, memory in GiB, and GPU name (None without one)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    return {
        "cpu": cpu_name(),
        "cores": cores,
        "memory_gib": round(pages / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
    }


def load() -> float | None:
    """How many cores' worth of work the machine has had in the last minute; None where that is not known."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def versions() -> dict[str, str]:
    """Python and the packages that the results depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def fingerprint(policy: Policy) -> str:
    """A hash of the policy's weights and configuration: the same policy elsewhere on the disk has the same."""
    digest = hashlib.sha256(json.dumps(policy.config.to_dict(), sort_keys=True).encode())
    add_weights(digest, policy.state_dict())
    return digest.hexdigest()[:16]
