"""Encoders of single frames on the engine of the denoiser."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from specpolicy.engines.base import Workload
from specpolicy.engines.capture import warm_up
from specpolicy.engines.compiled import CompiledEngine
from specpolicy.engines.cuda_graph import CudaGraphEngine
from specpolicy.engines.openvino import OpenVINOEngine, bound_request, compile_options
from specpolicy.engines.openvino_model import export, import_openvino, refusal
from specpolicy.engines.turn import Turn
from specpolicy.errors import SpecpolicyError

SEEDS = (1, 2, 3)  # of the frames on which an engine is compared with the network


class FrameEngine(ABC):
    """A network (1, ...) -> (1, F) of one frame, on an engine and always in float32. Threads take turns.

    Pickling keeps the recipe: the engine is made anew where it is unpickled.

    Args:
        network: of one frame; it computes on the device of its weights.
        shape: of a frame.

    Raises:
        SpecpolicyError: the engine cannot express the network, or computes something else.
    """

    name: ClassVar[str]

    def __init__(self, network: nn.Module, shape: Sequence[int]):
        self.network, self.shape, self._turn = network, tuple(shape), Turn()
        self.device = next(network.parameters()).device
        with torch.inference_mode(False), torch.no_grad():
            self._frame = torch.zeros(1, *self.shape, device=self.device)
            self._run = self._make()
        self._check()

    @abstractmethod
    def _make(self) -> Callable[[], Tensor]:
        """Return a function that encodes what `_frame` holds. Its next call may overwrite its output."""

    @torch.no_grad()
    def __call__(self, frame: Tensor) -> Tensor:
        """Return the features (1, F) of a frame (1, ...)."""
        with self._turn.on(self.device):
            self._frame.copy_(frame)
            return self._run().clone()

    def __reduce__(self) -> tuple[Any, ...]:
        """See the class."""
        return type(self), (self.network, self.shape)

    @torch.no_grad()
    def _check(self) -> None:
        tolerance = Workload(self.network, self.shape, None, max_rows=1).tolerance
        for seed in SEEDS:
            source = torch.Generator().manual_seed(seed)
            frame = torch.randn(1, *self.shape, generator=source).to(self.device)
            expected, found = self.network(frame), self(frame)
            if not bool(expected.isfinite().all()):
                raise SpecpolicyError("the encoder's output is not finite: are its weights whole?")
            error = float((found - expected).abs().max() / expected.square().mean().sqrt().clamp(min=1e-6))
            if not error <= tolerance:
                raise SpecpolicyError(
                    f"engine '{self.name}' differs from the encoder by {error:.1e} of its output: use engine eager"
                )


class OpenVINOFrames(FrameEngine):
    """On OpenVINO, compiled for one frame."""

    name = OpenVINOEngine.name

    def _make(self) -> Callable[[], Tensor]:
        model = export(self.network, [torch.zeros(2, *self.shape)])
        model.reshape({0: [1, *self.shape]})
        try:
            compiled = import_openvino().Core().compile_model(model, "CPU", compile_options("float32"))
        except RuntimeError as error:
            raise refusal(error) from error
        output = torch.empty_like(self.network(self._frame))
        request = bound_request(compiled, [self._frame], output)

        def run() -> Tensor:
            request.infer(share_outputs=True)
            return output

        return run


class CudaGraphFrames(FrameEngine):
    """As a CUDA graph."""

    name = CudaGraphEngine.name

    def _make(self) -> Callable[[], Tensor]:
        return self._captured(self.network)

    def _captured(self, network: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
        device, frame = self.device, self._frame
        warm_up(lambda: network(frame), device)
        graph = torch.cuda.CUDAGraph()
        # Capture and replay use the current device, which need not be the policy's.
        with torch.cuda.device(device), torch.cuda.graph(graph):
            output = network(frame)

        def run() -> Tensor:
            with torch.cuda.device(device):
                graph.replay()
            return output

        return run


class CompiledFrames(CudaGraphFrames):
    """By torch.compile, on a GPU captured as well."""

    name = CompiledEngine.name

    def _make(self) -> Callable[[], Tensor]:
        compiled: Callable[[Tensor], Tensor] = torch.compile(self.network)
        return self._captured(compiled) if self.device.type == "cuda" else lambda: compiled(self._frame)


FRAME_ENGINES: dict[str, type[FrameEngine]] = {
    kind.name: kind for kind in (OpenVINOFrames, CudaGraphFrames, CompiledFrames)
}


def make_frame_engine(name: str, network: nn.Module, shape: Sequence[int]) -> FrameEngine | None:
    """Return the network of one frame on the engine of that name; None for "eager", which is the network itself.

    Raises:
        SpecpolicyError: see `FrameEngine`.
    """
    kind = FRAME_ENGINES.get(name)
    return None if kind is None else kind(network, shape)
