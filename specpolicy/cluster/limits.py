"""How long a job may take before the process that does it counts as hung."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from specpolicy.errors import SpecpolicyError


@dataclass
class Limit:
    """Watches the jobs that are under way. Each is known by a key of its own, such as the connection to its process.

    Attributes:
        seconds: that a job may take, with the start of the process if it is its first; None: as long as it takes.
        name: names a job in messages.
    """

    seconds: float | None = None
    name: Callable[[Any], str] = str
    _begun: dict[Any, tuple[float, Any]] = field(default_factory=dict)

    def begin(self, key: Any, job: Any) -> None:
        """Take note that a job begins."""
        self._begun[key] = time.monotonic(), job

    def end(self, key: Any) -> Any:
        """Take note that it has ended, and return it; None if none is known by this key."""
        return self._begun.pop(key, (0.0, None))[1]

    @property
    def left(self) -> float | None:
        """Seconds until the first job that is under way will have taken too long; None: none ever does."""
        if self.seconds is None or not self._begun:
            return None
        return max(0.0, min(since for since, _ in self._begun.values()) + self.seconds - time.monotonic())

    @property
    def over(self) -> list[Any]:
        """The keys of the jobs that have taken too long."""
        if self.seconds is None:
            return []
        now = time.monotonic()
        return [key for key, (since, _) in self._begun.items() if now - since >= self.seconds]

    @property
    def reason(self) -> str:
        """What is said of a job whose time is over."""
        return f"not ended in {self.seconds:g} s (cluster.timeout)"

    def error(self, keys: Iterable[Any]) -> SpecpolicyError:
        """Return what to raise when jobs have not ended in their time."""
        names = "; ".join(self.name(self._begun[key][1]) for key in keys)
        return SpecpolicyError(
            f"{names}: {self.reason}; what is finished is kept: start the same command again, with a longer time if "
            "nothing hangs"
        )
