"""A shard: a part of an evaluation that one process plays by itself, on a cluster without a daemon.

Conditions are compared by seed, so all conditions of a seed are in one shard. Episodes that are drawn in one batch
round alike only beside the same neighbours, so seeds are shared out by whole blocks. The rows of all shards are
therefore the rows of the single run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from specpolicy.errors import SpecpolicyError

DIRECTORY = "shards"  # below the output of the evaluation


@dataclass(frozen=True)
class Shard:
    """One of `count` shards; `number` begins at 1.

    Raises:
        SpecpolicyError: a number that is not one of them.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise SpecpolicyError(f"shard={self}: there are 1/{self.count} to {self.count}/{self.count}")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def has(self, block: int) -> bool:
        """Whether the seeds of a block belong to this shard; neighbouring blocks go to different shards."""
        return block % self.count == self.number - 1

    def directory(self, output: Path) -> Path:
        """Return the directory of this shard's results."""
        return output / DIRECTORY / f"{self.number}-of-{self.count}"


def read_shard(text: object) -> Shard:
    """Return the shard of a setting such as 3/16.

    Raises:
        SpecpolicyError: it is no such setting.
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", str(text))
    if found is None or int(found[2]) == 0:
        raise SpecpolicyError(f"shard={text}: expected its number and how many there are, such as 3/16")
    return Shard(int(found[1]), int(found[2]))
