"""Counts the operations that Python launches for a chunk, in the network and outside it, and how often Python waits.

On a GPU a small operation takes the time of its launch. Code that reads a number computed by the GPU waits until all
earlier work is done. Both can be counted on any device.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from specpolicy.errors import SpecpolicyError

# The size or the Python number of their results is known on the device only.
READING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_dim"}
# They only allocate or view memory, though their schema declares writes or new values.
IDLE = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "empty_permuted", "resize_"}
IDLE |= {"_unsafe_view", "detach_", "as_strided_", "squeeze_", "t_", "transpose_", "unsqueeze_"}


@dataclass(frozen=True)
class Launches:
    """Operations of torch: `inside` the network, `outside` it; `waits`: those of both that wait for the device.

    Views and allocations do not count. One operation may be several kernels of a GPU. Operations that an engine runs by
    itself, such as a captured graph, do not count.
    """

    inside: int
    outside: int
    waits: int


def count_launches(call: Callable[[], object], network: object) -> Launches:
    """Count the launches of `call` in this thread. `network`: the module or the engine that it calls.

    Raises:
        SpecpolicyError: another kind of network, whose calls cannot be observed.
    """
    counter = _Counter()
    with _entered(network, counter), counter:
        call()
    return Launches(counter.inside, counter.outside, counter.waits)


class _Counter(TorchDispatchMode):
    """Counts dispatched operations. `depth`: nested calls of the network in progress."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = self.outside = self.waits = self.depth = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func._overloadpacket.__name__ not in READING:
            with self:  # some operations are made of others, which are not visible one by one in inference mode
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        if not is_view(func) and func._overloadpacket.__name__ not in IDLE:
            self.waits += waits(func, args, kwargs)
            if self.depth:
                self.inside += 1
            else:
                self.outside += 1
        return func(*args, **kwargs)


def is_view(func: Any) -> bool:
    """Whether an operation returns a view of its input."""
    returned = [value.alias_info for value in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in returned)


def waits(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether an operation waits for the device, because it reads a number or a size from it, or copies to the CPU."""
    name = func._overloadpacket.__name__
    if name in ("index", "index_put", "index_put_"):  # masks become indices, whose number depends on the values
        return any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    if name == "repeat_interleave":
        return kwargs.get("output_size") is None
    if name == "_to_copy":
        there = kwargs.get("device")
        return _leaves(args[0], there) and not kwargs.get("non_blocking", False)
    if name == "copy_":
        given = [*args[2:], kwargs.get("non_blocking", False)]
        return _leaves(args[1], args[0].device) and not given[0]
    return name in READING


def _leaves(value: Tensor, there: torch.device | None) -> bool:
    """Whether a copy goes from a device to the CPU."""
    return there is not None and torch.device(there).type == "cpu" and value.device.type != "cpu"


@contextlib.contextmanager
def _entered(network: Any, counter: _Counter) -> Iterator[None]:
    """Count calls of the network in progress in `counter.depth` during this block."""
    if isinstance(network, nn.Module):
        hooks = [
            network.register_forward_pre_hook(lambda *_: _deeper(counter, 1)),
            network.register_forward_hook(lambda *_: _deeper(counter, -1), always_call=True),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        return
    kind, own = type(network), "__call__" in vars(type(network))
    if not callable(network) or kind.__module__ == "builtins":
        raise SpecpolicyError("network: calls of a module or of an engine can be counted, this is neither")
    original = kind.__call__

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        within = int(self is network)
        _deeper(counter, within)
        try:
            return original(self, *args, **kwargs)
        finally:
            _deeper(counter, -within)

    kind.__call__ = call
    try:
        yield
    finally:
        if own:
            kind.__call__ = original
        else:
            del kind.__call__


def _deeper(counter: _Counter, by: int) -> None:
    counter.depth += by
