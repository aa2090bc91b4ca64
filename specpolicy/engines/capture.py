"""Functions of tensors as one launch: a CUDA graph replays the operations that Python would launch one by one."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from specpolicy.engines.base import Denoiser

Values = Any  # tensors in nested tuples; None where there is nothing
Function = Callable[[Any], tuple[Any, Tensor]]  # from values to the new values, and an output


class Capture(Protocol):
    """Makes functions run as one launch.

    Attributes:
        network: the function to call in place of the network inside a captured function.
    """

    network: Denoiser

    def __call__(self, function: Function, values: Values) -> Callable[[], Tensor]:
        """Return a function that runs `function(values)`, writes the new values over the old ones and returns the
        output, which is valid until the next run.

        The function must launch the same operations for all numbers, and wait for none of them.
        """
        ...


class CudaCapture:
    """See `Capture`. The captured functions run in turn, because the graphs share their memory."""

    def __init__(self, network: Denoiser, device: torch.device):
        self.network, self.device = network, device
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(self, function: Function, values: Values) -> Callable[[], Tensor]:
        """See `Capture`."""
        device = self.device
        warm_up(lambda: function(values), device)
        graph = torch.cuda.CUDAGraph()
        # Capture and replay use the current device, which need not be the policy's.
        with torch.cuda.device(device), torch.cuda.graph(graph, pool=self.pool):
            says = write_over(function, values)

        def run() -> Tensor:
            with torch.cuda.device(device):
                graph.replay()
            return says

        return run


def warm_up(call: Callable[[], object], device: torch.device) -> None:
    """Run a call before its capture. Libraries initialise in their first calls, which must not be captured."""
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream(device).wait_stream(side)


def write_over(function: Function, values: Values) -> Tensor:
    """Run a function once, in the manner of `Capture`."""
    new, says = function(values)
    for old, value in zip(leaves(values), leaves(new), strict=True):
        if value is not old:
            old.copy_(value)
    return says


def leaves(values: Values) -> Iterator[Tensor]:
    """Yield the tensors of nested tuples, in order."""
    if isinstance(values, Tensor):
        yield values
    elif values is not None:
        for part in values:
            yield from leaves(part)


def apart(values: Values) -> Values:
    """Copy the values into separate memory that may be overwritten."""
    if values is None:
        return None
    if isinstance(values, Tensor):
        return values.clone()
    parts = [apart(part) for part in values]
    return type(values)(*parts) if hasattr(values, "_fields") else tuple(parts)
