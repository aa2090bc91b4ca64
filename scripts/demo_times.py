"""Choose whose times the demonstration charges.

    python scripts/demo_times.py <a benchmark's directory> [seconds of a step]

Prints the CSV file with the times of chunks to charge, and the reason on stderr. These are this machine's own times,
unless they would show nothing: on a slow machine every sampler is too late, on a fast one even the sequential one is in
time.
"""

import csv
import statistics
import sys
from pathlib import Path

RECORDED = Path("benchmarks/traces/lift_conveyor-amd_epyc-2_threads-pytorch.csv")
WHOSE = "an AMD EPYC with 2 threads, run by PyTorch"
SLOW, QUICK = "ddpm", "recycled-16"  # the sampler that should be late, and the one that should not
STEP = 0.05  # control step of the conveyor task, in seconds
LATE, IN_TIME = 3.0, 1.5  # in control steps


def choose(slow: float, quick: float) -> tuple[bool, str]:
    """Return whether to charge this machine's own times, and the reason in a sentence.

    Args:
        slow, quick: times of the two samplers, in control steps.
    """
    took = f"a chunk takes {SLOW} {slow:.1f} and {QUICK} {quick:.1f} control steps of {1000 * STEP:.0f} ms here"
    if quick > IN_TIME:
        return False, f"{took}: this machine is too slow for this belt. Charged are recorded times of {WHOSE}."
    if slow < LATE:
        return False, f"{took}: even {SLOW} is nearly in time. Charged are recorded times of {WHOSE}."
    return True, f"{took}. These are the times that are charged."


def medians(path: Path) -> dict[str, float]:
    """Return median seconds of a chunk, by sampler."""
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
