"""The processes of one training run: one alone, or several that torchrun has started, which share out every batch.

The first of them does what is done once: it checks, owns the output, logs, validates and saves. The others wait until
it has begun, and leave when it refuses.
"""

import contextlib
import datetime
import gc
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from specpolicy.errors import SpecpolicyError

T = TypeVar("T")
VARIABLES = ("RANK", "MASTER_ADDR", "MASTER_PORT")  # which torchrun sets
PATIENCE = datetime.timedelta(days=2)  # the first process may play episodes while the others wait
LOST = ("gloo", "onnection", "NCCL")  # in errors of torch where another process has ended


@dataclass(frozen=True)
class Group:
    """The processes of a run, and this one's number among them."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that does what is done once."""
        return self.rank == 0

    def share(self, rows: int) -> slice:
        """Return the rows of a batch that this process learns from.

        Raises:
            SpecpolicyError: they cannot be shared out evenly.
        """
        if rows % self.size:
            raise SpecpolicyError(f"batch_size={rows} is no multiple of the {self.size} processes that share it out")
        each = rows // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def meet(self) -> None:
        """Wait until the first process is here, too."""
        self.from_first(lambda: True)

    def wrap(self, module: nn.Module, device: torch.device) -> nn.Module:
        """Return the module with gradients averaged over all processes, and the first one's weights in all of them."""
        if self.size == 1:
            return module
        # What is in buffers, such as the normaliser's numbers, is the same in all processes.
        devices = [device] if device.type == "cuda" else None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)  # its successor is of torch 2.13
            # The transformer keeps weights that it does not use, for other projects' checkpoints have them.
            return nn.parallel.DistributedDataParallel(
                module, device_ids=devices, broadcast_buffers=False, find_unused_parameters=True
            )

    def from_first(self, make: Callable[[], T]) -> T:
        """Return, in all processes, what the first one makes; an error of it is its own."""
        if self.size == 1:
            return make()
        made: list[Any] = [make() if self.first else None]
        distributed.broadcast_object_list(made, src=0)
        return made[0]

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a number over all processes."""
        if self.size > 1:
            value = value.clone()
            distributed.all_reduce(value)
            value /= self.size
        return value

    @staticmethod
    def adding_up(module: nn.Module, more: bool) -> contextlib.AbstractContextManager:
        """Return a block for one pass of a step through a wrapped module; `more`: it is not the last, and processes do
        not exchange gradients yet."""
        if more and isinstance(module, nn.parallel.DistributedDataParallel):
            return module.no_sync()
        return contextlib.nullcontext()


ALONE = Group()


@contextlib.contextmanager
def joined(device: str) -> Iterator[tuple[Group, str]]:
    """Join the processes of this run, until the block ends; return the group and this process's device.

    A process that no torchrun has started is a group of its own. Where the first process ends early, whose message says
    why, the others end in silence.

    Args:
        device: such as "cpu", or "cuda", of which each process takes one.

    Raises:
        SpecpolicyError: WORLD_SIZE is set, and what torchrun sets beside it is not.
    """
    size = os.environ.get("WORLD_SIZE", "").strip()
    if not size.isdecimal() or int(size) < 2:
        yield ALONE, device
        return
    missing = [name for name in VARIABLES if not os.environ.get(name, "").strip()]
    if missing:
        raise SpecpolicyError(
            f"WORLD_SIZE={size} is set, and {', '.join(missing)} is not: start several processes by torchrun, "
            "or unset it"
        )
    group = Group(int(os.environ["RANK"]), int(size))
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
        torch.cuda.set_device(device)
    backend = "nccl" if device.startswith("cuda") else "gloo"
    try:
        distributed.init_process_group(backend, timeout=PATIENCE, rank=group.rank, world_size=group.size)
        yield group, device
        group.meet()  # the launcher ends all processes of a run as soon as one has failed
    except RuntimeError as error:
        if group.first or not any(word in str(error) for word in LOST):
            raise
        sys.exit(2)
    finally:
        gc.collect()  # of wrapped modules, whose threads belong to what is destroyed
        if distributed.is_initialized():
            distributed.destroy_process_group()
