"""Provenance of results: the machine, the versions and the policy behind them."""

import hashlib
import json
import os
import platform
from typing import Any

import torch

from specpolicy.fingerprints import add_weights
from specpolicy.machine import cores, cpu_name
from specpolicy.policy import Policy


def hardware() -> dict[str, Any]:
    """Return CPU name, cores this process may use, memory in GiB, and GPU name (None without one)."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    return {
        "cpu": cpu_name(),
        "cores": cores(),
        "memory_gib": round(pages / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
    }


def load() -> float | None:
    """Return the machine's load in the last minute, in cores; None where it is not known."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def fingerprint(policy: Policy) -> str:
    """Hash the policy's weights and configuration; a copy elsewhere on the disk has the same hash."""
    digest = hashlib.sha256(json.dumps(policy.config.to_dict(), sort_keys=True).encode())
    add_weights(digest, policy.state_dict())
    return digest.hexdigest()[:16]
