"""Processes of this machine, with a policy each, or with one that they share."""

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any

from specpolicy.cluster.jobs import run_jobs
from specpolicy.cluster.limits import Limit
from specpolicy.cluster.work import Work
from specpolicy.cluster.worlds import run_shared


@dataclass(frozen=True)
class Processes:
    """Processes of this machine.

    Attributes:
        workers: number of processes; 0 works in this one, without processes.
        planners: 1: this process draws the chunks for all of them.
        timeout: seconds that a job may take in a process; None: no limit.
    """

    workers: int = 0
    planners: int = 0
    timeout: float | None = None

    @property
    def about(self) -> dict[str, Any]:
        """See `Crew`."""
        return {"name": "local", "workers": self.workers, "planners": self.planners}

    def run(self, work: Work, jobs: Iterable[Any], most: int) -> Generator[Any, None, None]:
        """See `Crew.run`."""
        if not self.planners:
            return run_jobs(work.make, work.setup, jobs, min(self.workers, most), Limit(self.timeout, work.name))
        workers = max(1, min(self.workers, most * work.size))  # no more than there can be seats at work
        return run_shared(work, jobs, workers, Limit(self.timeout, work.name))
