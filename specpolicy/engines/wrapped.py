"""An engine whose network is wrapped in a function: the function calls it, and is called in its place."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from specpolicy.engines.base import Denoiser, Engine
from specpolicy.engines.capture import Capture, Function, Values


class WrappedEngine(Engine):
    """Runs `wrap(inner)` and looks like `inner` to samplers: the same name, and so the same plans of a calibration.

    Args:
        inner: runs the network.
        wrap: makes the function from a denoiser.
        fixed_shapes: whether the function can be captured with the calls of the network in it.
    """

    def __init__(self, inner: Engine, wrap: Callable[[Denoiser], Denoiser], fixed_shapes: bool = True):
        super().__init__(inner.workload)
        self.inner, self.name, self.sizes, self.considered = inner, inner.name, inner.sizes, inner.considered
        self._arguments = inner, wrap, fixed_shapes
        self._call = wrap(inner)
        if inner.capture is not None and fixed_shapes:
            self.capture = _WrappedCapture(inner.capture, wrap)

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """See `Engine`."""
        return self._call(x, t, cond)

    def __reduce__(self) -> tuple[Any, ...]:
        """See `Engine`."""
        return WrappedEngine, self._arguments


class _WrappedCapture:
    """See `Capture`."""

    def __init__(self, inner: Capture, wrap: Callable[[Denoiser], Denoiser]):
        self._inner, self.network = inner, wrap(inner.network)

    def __call__(self, function: Function, values: Values) -> Callable[[], Tensor]:
        """See `Capture`."""
        return self._inner(function, values)
