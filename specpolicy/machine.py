"""What this machine is, and the versions of what runs on it."""

import functools
import importlib.metadata
import os
import platform
from pathlib import Path

PACKAGES = ("specpolicy", "torch", "numpy", "gymnasium", "mujoco", "robosuite")


@functools.cache
def cpu_name() -> str:
    """Return the processor's name as its maker writes it, or its architecture if the system does not tell the name."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
