"""A network as samplers call it: outputs are checked, calls are counted and timed."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from specpolicy.engines.base import Denoiser, Engine
from specpolicy.engines.capture import Capture
from specpolicy.engines.split import InParts, gains_in_torch
from specpolicy.errors import SpecpolicyError

HALF = (torch.float16, torch.bfloat16)


class Model:
    """A denoiser (x (N, H, D), t (N,), cond (N, ...) or None) -> (N, H, D) that records its calls.

    It counts for one draw and one thread; `fresh` makes another for the next. On a CUDA device events take the time and
    are read only by `seconds`.

    Attributes:
        denoiser: the network, function or engine that is called.
        device: where it computes.
        network: the module behind it, whose weights a calibration was made for; None for a function, whose network is
            unknown.
        rows_by_call: states of each call so far.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        device: torch.device | None = None,
        network: object = None,
        per_entry: tuple[int, ...] = (),
        evaluations: int = 1,
    ):
        """Make a model without any calls.

        Args:
            denoiser: the network, function or engine to call.
            device: by default that of the denoiser.
            network: of a function whose network the caller knows.
            per_entry: shape of the output for each entry of a state; () for a denoiser's single number.
            evaluations: of the network in one call of `denoiser`, one after the other.
        """
        self.denoiser, self.per_entry, self.evaluations = denoiser, per_entry, evaluations
        self.device = device_of(denoiser) if device is None else device
        self.network = network_of(denoiser if network is None else network)
        self.rows_by_call: list[int] = []
        self._parts: InParts | None = None
        self._seconds = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @property
    def backend(self) -> str:
        """Name of engine and device, see `backend_name`."""
        return backend_name(self.device, self.denoiser.name if isinstance(self.denoiser, Engine) else "eager")

    @property
    def capture(self) -> Capture | None:
        """Function of the engine that makes calls of the network one launch; None if it has none."""
        return self.denoiser.capture if isinstance(self.denoiser, Engine) else None

    def fresh(self) -> "Model":
        """Return the same model without calls."""
        return Model(self.denoiser, self.device, self.network, self.per_entry, self.evaluations)

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """Call the denoiser. What it says in half precision, as under autocast, is returned as float32.

        Raises:
            SpecpolicyError: see `check_output`.
        """
        output = self.launch([len(x)], lambda: self._evaluate(x, t, cond))
        check_output(output, x, self.per_entry)
        return output.float() if output.dtype in HALF else output

    def _evaluate(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """Call the denoiser: in two parts where that is faster, but for gradients, which nothing remembered has. What
        it remembers of conditions ends with this draw, as weights may change before the next."""
        if torch.is_grad_enabled() or not gains_in_torch(self.denoiser):
            return self.denoiser(x, t, cond)
        if self._parts is None:
            network: Any = self.denoiser
            split = network.split_denoiser(x.shape[1], 1)
            self._parts = InParts(split)
        return self._parts(x, t, cond)

    def launch(self, rows: Sequence[int], run: Callable[[], Tensor]) -> Tensor:
        """Run code that calls the network with `rows` states, one call after the other. All of its time counts as the
        network's, because a captured piece cannot be divided."""
        self.rows_by_call.extend(number for number in rows for _ in range(self.evaluations))
        if self.device.type != "cuda":
            start = time.perf_counter()
            output = run()
            self._seconds += time.perf_counter() - start
            return output
        pair = (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
        stream = torch.cuda.current_stream(self.device)  # the device may not be the current one
        pair[0].record(stream)
        output = run()
        pair[1].record(stream)
        self._events.append(pair)
        return output

    @property
    def seconds(self) -> float:
        """Seconds in the denoiser so far. On a GPU reading this waits for it."""
        if self._events:
            torch.cuda.synchronize(self.device)
        return self._seconds + sum(start.elapsed_time(end) for start, end in self._events) / 1e3


def check_output(output: object, x: Tensor, per_entry: tuple[int, ...] = ()) -> None:
    """Raise unless a denoiser's output has the right shape for states x (N, H, D). One number for several entries would
    be broadcast and give another distribution.

    Raises:
        SpecpolicyError: it has another shape.
    """
    if not isinstance(output, Tensor) or output.shape != (*x.shape, *per_entry):
        found = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise SpecpolicyError(
            f"the denoiser returned {found} for states of shape {tuple(x.shape)}: expected {(*x.shape, *per_entry)}"
        )


def backend_name(device: torch.device, engine: str) -> str:
    """Return the name under which calibrations keep plans: device kind and engine, as in "cpu", "cuda",
    "cpu-openvino"."""
    return device.type if engine == "eager" else f"{device.type}-{engine}"


def network_of(denoiser: object) -> nn.Module | None:
    """Return the network behind a denoiser: itself, or the network of an engine; None for a function."""
    inside = denoiser.workload.denoiser if isinstance(denoiser, Engine) else denoiser
    return inside if isinstance(inside, nn.Module) else None


def device_of(denoiser: object, cond: Tensor | None = None) -> torch.device:
    """Return the device of a denoiser: that of its conditions, its own (an engine's), that of its parameters, or the
    CPU."""
    if cond is not None:
        return cond.device
    if isinstance(denoiser, Engine):
        return denoiser.device
    if isinstance(denoiser, nn.Module):
        for parameter in denoiser.parameters():
            return parameter.device
    return torch.device("cpu")


def usable_device(name: torch.device | str) -> torch.device:
    """Return the device of this name.

    Raises:
        SpecpolicyError: it does not exist, or this torch cannot use it.
    """
    try:
        found = torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError, TypeError) as error:  # AssertionError: a build of torch without CUDA
        raise SpecpolicyError(f"device={name} cannot be used here: {str(error).splitlines()[0]}") from error
    if found.type == "meta":
        raise SpecpolicyError(f"device={name} cannot be used here: it keeps no numbers")
    return found
