"""The base classes of engines; those for fixed numbers of rows share padding, cutting and checking."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from specpolicy.engines.turn import Turn
from specpolicy.errors import SpecpolicyError

if TYPE_CHECKING:
    from specpolicy.engines.capture import Capture


class Denoiser(Protocol):
    """A network as a sampler calls it: (x (N, H, D), t (N,) int64, cond (N, ...) or None) -> (N, H, D)."""

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor: ...


def allows_tf32(what: str) -> bool:
    """Whether "products" of matrices, or "convolutions", may be rounded to TF32 (10 bits) on a GPU.

    Torch from 2.9 on has `fp32_precision`; a program that has set it must not read `allow_tf32`.
    """
    if what == "products":
        backend: Any = torch.backends.cuda.matmul
    else:
        backend = getattr(torch.backends.cudnn, "conv", torch.backends.cudnn)
    setting = getattr(backend, "fp32_precision", None)
    return bool(backend.allow_tf32) if setting is None else setting == "tf32"


@dataclass(frozen=True)
class Workload:
    """The use that an engine is made for.

    Attributes:
        denoiser: the network; for most engines it must be a `torch.nn.Module`.
        chunk_shape: (H, D) of one row.
        cond_shape: shape of one row's condition; None if the network takes none.
        max_rows: most rows of one call of the network; larger calls are evaluated in pieces.
        precision: "float32", or "bfloat16" inside the network.
        train_steps: timesteps are below this number.
        time_dtype: of the timesteps, which are whole numbers unless the network takes others.
    """

    denoiser: Denoiser
    chunk_shape: tuple[int, ...]
    cond_shape: tuple[int, ...] | None
    max_rows: int
    precision: str = "float32"
    train_steps: int = 100
    time_dtype: torch.dtype = torch.int64

    @property
    def device(self) -> torch.device:
        """Device of the network's weights."""
        if isinstance(self.denoiser, torch.nn.Module):
            for parameter in self.denoiser.parameters():
                return parameter.device
        return torch.device("cpu")

    @property
    def tolerance(self) -> float:
        """Largest allowed difference from the network itself, relative to the root mean square of its output."""
        if self.precision == "bfloat16":
            return 0.1
        return 1e-2 if self.device.type == "cuda" and allows_tf32("convolutions") else 1e-4

    def example(self, rows: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return seeded random inputs: x (rows, H, D), timesteps, cond."""
        source = torch.Generator().manual_seed(seed)
        x = torch.randn(rows, *self.chunk_shape, generator=source)
        cond = None if self.cond_shape is None else torch.randn(rows, *self.cond_shape, generator=source)
        t = ((torch.arange(rows) + seed) % self.train_steps).to(self.time_dtype)
        return x.to(self.device), t.to(self.device), None if cond is None else cond.to(self.device)


class Engine(ABC):
    """A denoiser (x (N, H, D), t (N,), cond (N, ...) or None) -> (N, H, D), made from a network and bound to its
    device.

    Later changes of the network's weights may or may not take effect; old and new ones are not mixed. Pickling keeps
    the recipe: the engine is made anew where it is unpickled.

    Attributes:
        name: its name for users and plans.
        sizes: prepared numbers of rows, rising.
        considered: by engine the findings about it, where this one was chosen by "auto".
        capture: makes functions that call the network one launch; None where the engine cannot.
    """

    name: str
    capture: "Capture | None" = None

    def __init__(self, workload: Workload):
        self.workload, self._device = workload, workload.device
        self.sizes: tuple[int, ...] = (1, workload.max_rows)
        self.considered: dict[str, str] = {}

    @property
    def device(self) -> torch.device:
        """Device of the network's weights and of its inputs."""
        return self._device

    @abstractmethod
    def __call__(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """Evaluate the network."""

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Do the slow work of the first calls, and compare with the network at each of `sizes` and at `max_rows`.

        Raises:
            SpecpolicyError: the engine computes something else, or the network nothing finite.
        """
        for rows in sorted({*self.sizes, self.workload.max_rows}):
            inputs = self.workload.example(rows, seed=1)  # other inputs than those that buffers begin with
            expected, found = self.workload.denoiser(*inputs), self(*inputs)
            if not bool(expected.isfinite().all()):
                raise SpecpolicyError("the network's output is not finite: are its weights whole?")
            error = float((found - expected).abs().max() / expected.square().mean().sqrt().clamp(min=1e-6))
            if not error <= self.workload.tolerance:
                raise SpecpolicyError(
                    f"engine '{self.name}' differs from the network by {error:.1e} of its output ({rows} rows, "
                    f"{self.workload.precision}): use engine eager"
                )

    def __reduce__(self) -> tuple[Any, ...]:
        """See the class."""
        return _remake, (type(self), self.workload)


Runner = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # takes up to its number of rows; see `PaddedEngine`


class PaddedEngine(Engine):
    """An engine that pads rows to the next of `sizes` and cuts the result, so that every call has a known shape.

    Rows are independent inside the network, so the padding does not influence the others. Threads may share an engine.
    They take turns, because its runners have one set of buffers.
    """

    def __init__(self, workload: Workload, sizes: Sequence[int]):
        super().__init__(workload)
        self.sizes = tuple(sizes)
        self._runners: dict[int, Runner] = {}
        self._turn = Turn()

    @abstractmethod
    def make_runner(self, size: int) -> Runner:
        """Return a function that evaluates up to `size` rows. Its next call may overwrite its output. On CUDA it is
        called on the caller's stream."""

    def __call__(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """See `Engine`."""
        largest = self.sizes[-1]
        if len(x) > largest:
            conditions = [None] * -(-len(x) // largest) if cond is None else cond.split(largest)
            pieces = zip(x.split(largest), t.split(largest), conditions, strict=True)
            return torch.cat([self(*piece) for piece in pieces])
        if len(x) == 0:
            return torch.zeros_like(x)
        size = next(size for size in self.sizes if size >= len(x))
        with self._turn.on(self.device):
            if size not in self._runners:
                with torch.inference_mode(False), torch.no_grad():
                    self._runners[size] = self.make_runner(size)
            return self._runners[size](x, t, cond).clone()


class Buffers:
    """Inputs of a fixed number of rows, at fixed addresses."""

    def __init__(self, workload: Workload, size: int):
        self.x, self.t, self.cond = workload.example(size)

    def fill(self, x: Tensor, t: Tensor, cond: Tensor | None) -> int:
        """Copy the inputs into the first rows and return the number of these rows.

        Raises:
            SpecpolicyError: timesteps between whole numbers, which would be rounded.
        """
        rows = len(x)
        if t.is_floating_point() and not self.t.is_floating_point():
            raise SpecpolicyError(
                "this engine was made for timesteps that are whole numbers: make it with time_dtype=torch.float32"
            )
        self.x[:rows].copy_(x)
        self.t[:rows].copy_(t)
        copy_condition(None if self.cond is None else self.cond[:rows], cond)
        return rows


def copy_condition(own: Tensor | None, cond: Tensor | None) -> None:
    """Copy conditions (N, ...) over those that a buffer holds; one row is for all.

    Raises:
        SpecpolicyError: there are some where there were none, or none, or of another shape: what the buffer holds would
            be used in their place.
    """
    if own is None and cond is None:
        return
    if own is None or cond is None or own.shape[1:] != cond.shape[1:]:
        made, given = ("none" if one is None else f"those of shape {tuple(one.shape[1:])}" for one in (own, cond))
        raise SpecpolicyError(
            f"made for conditions: {made}; given: {given}: make an engine, or bind a sampler, for each kind"
        )
    own.copy_(cond)


def row_sizes(max_rows: int, fine: bool = True) -> tuple[int, ...]:
    """Return the sizes that rows are padded to: powers of two, or, if `fine`, about a quarter apart (for processors
    whose time grows with the rows). The last one is `max_rows`."""
    sizes, size = [], 1
    while size < max_rows:
        sizes.append(size)
        size = size * 2 if not fine or size < 8 else size + max(4, size // 16 * 4)
    return (*sizes, max_rows)


def _remake(kind: type[Engine], workload: Workload) -> Engine:
    engine = kind(workload)
    engine.warm_up()
    return engine
