"""Times a denoiser from outside: how much of a sample is network, how much is ours."""

import time

import torch
from torch import Tensor

from specpolicy.errors import SpecpolicyError
from specpolicy.samplers.base import Denoiser, engine_name


class Meter:
    """Wraps a denoiser and adds up its time. On a CUDA device events are recorded and read only at the end.

    `check`: refuse an output that has not the shape of the states."""

    def __init__(self, denoiser: Denoiser, device: torch.device, check: bool = False):
        self._denoiser, self._check = denoiser, check
        self.name = engine_name(denoiser)
        self._cuda = device.type == "cuda"
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._device = device
        self._network_seconds = 0.0
        self._start = self._now()

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """Call the denoiser."""
        if self._cuda:
            pair = (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
            stream = torch.cuda.current_stream(self._device)  # of another device than the current one, perhaps
            pair[0].record(stream)
            output = self._denoiser(x, t, cond)
            pair[1].record(stream)
            self._events.append(pair)
        else:
            start = time.perf_counter()
            output = self._denoiser(x, t, cond)
            self._network_seconds += time.perf_counter() - start
        if self._check and (not isinstance(output, Tensor) or output.shape != x.shape):
            # One number for each of the states would do as well for some samplers, and draw from another law.
            found = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise SpecpolicyError(
                f"the denoiser returned {found} for states of shape {tuple(x.shape)}: both must have one shape"
            )
        return output

    def read(self) -> tuple[float, float]:
        """(seconds since this meter was made, seconds of them in the denoiser)."""
        total = self._now() - self._start
        return total, self._network_seconds + sum(a.elapsed_time(b) for a, b in self._events) / 1e3

    def _now(self) -> float:
        if self._cuda:
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
