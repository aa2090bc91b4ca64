"""What this machine is."""

import functools
import os
import platform
from pathlib import Path


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
