"""A network as samplers see it: what it returns is checked, what it is asked is counted and timed."""

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from specpolicy.engines.base import Denoiser, Engine
from specpolicy.engines.capture import Capture
from specpolicy.errors import SpecpolicyError


class Model:
    """A denoiser (x (N, H, D), t (N,), cond (N, ...) or None) -> (N, H, D), which notes its calls.

    It counts for one draw, and one thread: `fresh` makes another for the next. On a CUDA device time is taken by
    events, which are read only when somebody asks for `seconds`.

    Attributes:
        denoiser: what is called: a network, a function or an engine.
        device: where it computes.
        network: the module behind it, whose weights a calibration was made for; None for a function, of which nothing
            is known.
        rows_by_call: states of each call so far.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        device: torch.device | None = None,
        network: object = None,
        per_entry: tuple[int, ...] = (),
    ):
        """Nothing is counted yet.

        Args:
            denoiser: what is called.
            device: by default that of the denoiser.
            network: of a function whose network the caller knows.
            per_entry: the shape of what is returned for each entry of a state; () for a denoiser's single number.
        """
        self.denoiser, self.per_entry = denoiser, per_entry
        self.device = device_of(denoiser) if device is None else device
        self.network = network_of(denoiser if network is None else network)
        self.rows_by_call: list[int] = []
        self._seconds = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @property
    def backend(self) -> str:
        """What runs it, see `backend_name`."""
        return backend_name(self.device, self.denoiser.name if isinstance(self.denoiser, Engine) else "eager")

    @property
    def capture(self) -> Capture | None:
        """What makes functions that call the network one launch, where an engine has it."""
        return self.denoiser.capture if isinstance(self.denoiser, Engine) else None

    def fresh(self) -> "Model":
        """The same one, with nothing counted."""
        return Model(self.denoiser, self.device, self.network, self.per_entry)

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """Call the denoiser.

        Raises:
            SpecpolicyError: see `check_output`.
        """
        output = self.launch([len(x)], lambda: self.denoiser(x, t, cond))
        check_output(output, x, self.per_entry)
        return output

    def launch(self, rows: Sequence[int], run: Callable[[], Tensor]) -> Tensor:
        """Run something that calls the network with `rows` states, one call after the other. Its time is counted as the
        network's, with all else it does: what an engine captured is one piece."""
        self.rows_by_call.extend(rows)
        if self.device.type != "cuda":
            start = time.perf_counter()
            output = run()
            self._seconds += time.perf_counter() - start
            return output
        pair = (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
        stream = torch.cuda.current_stream(self.device)  # of another device than the current one, perhaps
        pair[0].record(stream)
        output = run()
        pair[1].record(stream)
        self._events.append(pair)
        return output

    @property
    def seconds(self) -> float:
        """Seconds in the denoiser so far. On a GPU this waits for it."""
        if self._events:
            torch.cuda.synchronize(self.device)
        return self._seconds + sum(start.elapsed_time(end) for start, end in self._events) / 1e3


def check_output(output: object, x: Tensor, per_entry: tuple[int, ...] = ()) -> None:
    """Raise unless a denoiser returned what it should for states x (N, H, D): one number for several entries would be
    broadcast, and another distribution drawn from.

    Raises:
        SpecpolicyError: it is of another shape.
    """
    if not isinstance(output, Tensor) or output.shape != (*x.shape, *per_entry):
        found = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise SpecpolicyError(
            f"the denoiser returned {found} for states of shape {tuple(x.shape)}: expected {(*x.shape, *per_entry)}"
        )


def backend_name(device: torch.device, engine: str) -> str:
    """What calibrations keep their plans by: the kind of device and the engine, as in "cpu", "cuda", "cpu-openvino"."""
    return device.type if engine == "eager" else f"{device.type}-{engine}"


def network_of(denoiser: object) -> nn.Module | None:
    """The network behind a denoiser: itself, or what an engine runs; None for a function."""
    inside = denoiser.workload.denoiser if isinstance(denoiser, Engine) else denoiser
    return inside if isinstance(inside, nn.Module) else None


def device_of(denoiser: object, cond: Tensor | None = None) -> torch.device:
    """Where a denoiser computes: on the device of its conditions, its own (an engine's), that of its parameters, or
    the CPU."""
    if cond is not None:
        return cond.device
    if isinstance(denoiser, Engine):
        return denoiser.device
    if isinstance(denoiser, nn.Module):
        for parameter in denoiser.parameters():
            return parameter.device
    return torch.device("cpu")
