"""OpenVINO, for CPUs (the optional extra `openvino`)."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from specpolicy.engines.base import Buffers, PaddedEngine, Runner, Workload, row_sizes
from specpolicy.errors import SpecpolicyError

if TYPE_CHECKING:
    import openvino

# Compiled for one number of rows the small networks are up to twice as fast as compiled for any number; but each
# such copy holds the weights anew. Large networks, which gain little, get one copy for all numbers.
COPIES_BYTES = 2**30


class OpenVINOEngine(PaddedEngine):
    """The network converted once; on as many threads as torch has when the engine is made."""

    name = "openvino"

    def __init__(self, workload: Workload):
        super().__init__(workload, row_sizes(workload.max_rows))
        self.functions: list[tuple[Any, Any, Any]] = []  # what is computed beside the network, see `compiled_steps`
        openvino, network = import_openvino(), workload.denoiser
        if not isinstance(network, nn.Module):
            raise SpecpolicyError("engine 'openvino' needs a torch.nn.Module as denoiser")
        if workload.device.type != "cpu":
            raise SpecpolicyError(f"engine 'openvino' runs on the CPU, the policy is on {workload.device}")
        self._core = openvino.Core()
        if workload.precision == "bfloat16" and "BF16" not in self._core.get_property(
            "CPU", "OPTIMIZATION_CAPABILITIES"
        ):
            raise SpecpolicyError("this CPU does not compute in bfloat16: use dtype=float32")
        self._options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[workload.precision],
            "ENABLE_CPU_PINNING": False,  # several processes would all be pinned to the same cores
        }
        self._model = convert(network, workload)
        weights = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
        self._shared = None
        if weights * len(self.sizes) > COPIES_BYTES:
            self._shared = self._core.compile_model(self._model, "CPU", self._options)

    def compile(self, model: openvino.Model) -> Any:
        """Another model for this engine's threads, in float32."""
        return self._core.compile_model(model, "CPU", {**self._options, "INFERENCE_PRECISION_HINT": "f32"})

    def make_runner(self, size: int) -> Runner:
        """See `PaddedEngine.make_runner`."""
        openvino, buffers = import_openvino(), Buffers(self.workload, size)
        output = torch.empty_like(buffers.x)
        inputs = [buffers.x, buffers.t, *([] if buffers.cond is None else [buffers.cond])]
        compiled = self._shared
        if compiled is None:
            model = self._model.clone()
            model.reshape({index: list(value.shape) for index, value in enumerate(inputs)})
            compiled = self._core.compile_model(model, "CPU", self._options)
        request = compiled.create_infer_request()
        for index, value in enumerate(inputs):
            request.set_input_tensor(index, openvino.Tensor(value.numpy(), shared_memory=True))
        request.set_output_tensor(0, openvino.Tensor(output.numpy(), shared_memory=True))

        def run(x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
            rows = buffers.fill(x, t, cond)
            request.infer()
            return output[:rows]

        return run


def convert(network: nn.Module, workload: Workload) -> openvino.Model:
    """The network as an OpenVINO model for any number of rows; its inputs are x, t and, if there is one, cond."""
    openvino = import_openvino()
    example = tuple(value for value in workload.example(2) if value is not None)
    rows = torch.export.Dim("rows", min=1, max=2**20)
    try:
        with _quiet(), torch.no_grad():
            program = torch.export.export(network, example, dynamic_shapes=({0: rows},) * len(example))
            model = openvino.convert_model(program)
    except Exception as error:  # whatever torch or OpenVINO finds it cannot express
        reason = " ".join(str(error).split())[:200]
        raise SpecpolicyError(f"OpenVINO cannot convert this network: use engine eager ({reason})") from error
    model.reshape({index: openvino.PartialShape([-1, *value.shape[1:]]) for index, value in enumerate(example)})
    _expand_mish(model)
    return model


def _expand_mish(model: openvino.Model) -> None:
    """Write Mish, x tanh(log(1 + e^x)), as x - 2x / ((1 + e^x)^2 + 1).

    OpenVINO fuses these operations with their neighbours. Its own Mish it fuses for many rows only, and for few rows
    some versions refuse to compile it.
    """
    from openvino import opset13

    for node in model.get_ordered_ops():
        if node.get_type_name() == "Mish":
            x = node.input_value(0)
            one, two, bound = (opset13.constant(value, dtype="float32") for value in (1.0, 2.0, 20.0))
            growth = opset13.exp(opset13.minimum(x, bound))  # beyond 20 Mish is x to the last digit
            square = opset13.multiply(opset13.add(growth, one), opset13.add(growth, one))
            part = opset13.divide(two, opset13.add(square, one))
            node.output(0).replace(opset13.subtract(x, opset13.multiply(x, part)).output(0))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporting logs and warns at length about things that do not matter here; the result is checked."""
    logger = logging.getLogger("torch.export")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def import_openvino() -> Any:
    """The package, which tells nobody that it is used: its telemetry would call Google Analytics when it is imported
    and keep a file in the home directory. Without the package of the telemetry it takes a stub of its own."""
    if "openvino" not in sys.modules:
        with _hidden("openvino_telemetry"):
            return _import_or_refuse()
    return _import_or_refuse()


def _import_or_refuse() -> Any:
    try:
        import openvino
    except ModuleNotFoundError:
        raise SpecpolicyError("engine 'openvino' needs a package: pip install 'specpolicy[openvino]'") from None
    return openvino


@contextlib.contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Importing the package fails in this block, as if it were not installed."""
    before = sys.modules.get(package)
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if before is None:
            del sys.modules[package]
        else:
            sys.modules[package] = before
