"""Whose times the demonstration charges: python scripts/demo_times.py <a benchmark's directory> [seconds of a step]

Prints the CSV file of the chunks' times to charge, and why on stderr: this machine's own, unless they would tell
nothing. On a slow machine every sampler comes too late, on a fast one even the sequential sampler is in time.
"""

import csv
import statistics
import sys
from pathlib import Path

RECORDED = Path("benchmarks/traces/lift_conveyor-amd_epyc-2_threads-pytorch.csv")
WHOSE = "an AMD EPYC with 2 threads, run by PyTorch"
SLOW, QUICK = "ddpm", "recycled-16"  # the one that shall be late, and the one that shall not
STEP = 0.05  # of the conveyor, in seconds
LATE, IN_TIME = 3.0, 1.5  # in control steps


def choose(slow: float, quick: float) -> tuple[bool, str]:
    """Whether this machine's own times are charged, and a sentence that says why. slow, quick: in control steps."""
    took = f"a chunk takes {SLOW} {slow:.1f} and {QUICK} {quick:.1f} control steps of {1000 * STEP:.0f} ms here"
    if quick > IN_TIME:
        return False, f"{took}: this machine is too slow for this belt. Charged are recorded times of {WHOSE}."
    if slow < LATE:
        return False, f"{took}: even {SLOW} is nearly in time. Charged are recorded times of {WHOSE}."
    return True, f"{took}. These are the times that are charged."


def medians(path: Path) -> dict[str, float]:
    """Seconds of a chunk, by sampler."""
    seconds: dict[str, list[float]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            seconds.setdefault(row["sampler"], []).append(float(row["seconds"]))
    return {sampler: statistics.median(taken) for sampler, taken in seconds.items()}


def main() -> None:
    """See the module's docstring."""
    own = Path(sys.argv[1]) / "chunks.csv"
    found = medians(own)
    is_own, why = choose(found[SLOW] / STEP, found[QUICK] / STEP)
    print(why, file=sys.stderr)
    print(own if is_own else RECORDED)


if __name__ == "__main__":
    main()
