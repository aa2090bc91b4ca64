"""Options of the config group `cluster`, one dataclass for each of its choices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from specpolicy.errors import SpecpolicyError
from specpolicy.parsing import parse
from specpolicy.parsing.schema import check_ranges

MANY = 10_000


@dataclass(frozen=True)
class Local:
    """Processes of this machine.

    Attributes:
        planners: 1: one policy, in the main process, draws the chunks for all processes; 0: each has its own copy.
        workers: processes; None: the verb decides.
        timeout: seconds that a block may take before the run ends and names it; None: no limit.
    """

    name: Literal["local"] = "local"
    planners: int = 0
    workers: int | None = None
    timeout: float | None = None

    def __post_init__(self) -> None:
        check_ranges(self, workers=(0, MANY))
        _check_timeout(self.timeout)
        if self.timeout is not None and self.workers == 0:
            raise SpecpolicyError("workers is 0: a timeout ends a process that hangs, so there must be at least one")
        if self.planners not in (0, 1):
            raise SpecpolicyError(
                f"planners is {self.planners}: on this machine 0 or 1; cluster=ray spreads several over machines"
            )
        if self.planners and self.workers == 0:
            raise SpecpolicyError("workers is 0: a planner is shared by processes, give at least one")


@dataclass(frozen=True)
class Ray:
    """Processes of a Ray cluster.

    Attributes:
        address: of a running cluster, such as "10.0.0.1:6379", or "auto" for the one of this machine; None: a Ray of
            its own on this machine.
        planners: policies that draw the chunks for all processes; 0: each process has its own copy.
        workers: processes, each with a CPU; None: one for each CPU of the cluster that no planner takes.
        gpus: share of a GPU for each process with a policy; None: a whole one if the policy's device is one, else none.
        retries: how often a block is played again, elsewhere if possible, when its process, its machine or its
            environment has failed.
        timeout: seconds that a block may take before that counts as a failure; None: no limit.
    """

    name: Literal["ray"] = "ray"
    address: str | None = None
    planners: int = 0
    workers: int | None = None
    gpus: float | None = None
    retries: int = 2
    timeout: float | None = None

    def __post_init__(self) -> None:
        check_ranges(self, planners=(0, MANY), workers=(1, MANY), gpus=(0, 64), retries=(0, 100))
        _check_timeout(self.timeout)
        if self.workers is not None and self.planners > self.workers:
            raise SpecpolicyError(f"planners is {self.planners}, more than the {self.workers} workers that share them")


def _check_timeout(seconds: float | None) -> None:
    if seconds is not None and not seconds > 0:
        raise SpecpolicyError(f"timeout is {seconds}: expected seconds, or null for no limit")


def read_options(config: Any) -> Local | Ray:
    """Return the options of a configuration of the group `cluster`.

    Raises:
        SpecpolicyError: an unknown key, or a value that cannot be meant.
    """
    if config.get("name") == "ray":
        return parse(Ray, config, "cluster")
    return parse(Local, config, "cluster")
