"""Converts torch modules to OpenVINO models."""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from specpolicy.engines.openvino_graph import UnknownOperation, draw_graph
from specpolicy.errors import SpecpolicyError

if TYPE_CHECKING:
    import openvino


def export(module: nn.Module, example: Sequence[Tensor]) -> openvino.Model:
    """Convert the module by torch's exporter, for any number of rows. `example`: its inputs, two rows each.

    Raises:
        SpecpolicyError: OpenVINO cannot express it.
    """
    package, example = import_openvino(), tuple(example)
    rows = torch.export.Dim("rows", min=1, max=2**20)
    try:
        with _quiet(), torch.no_grad():
            program = torch.export.export(module, example, dynamic_shapes=({0: rows},) * len(example))
            model = package.convert_model(program)
    except Exception as error:  # torch and OpenVINO raise many kinds of errors
        raise refusal(error) from error
    model.reshape({index: package.PartialShape([-1, *value.shape[1:]]) for index, value in enumerate(example)})
    _expand_mish(model)
    _expand_group_norm(model)
    return model


def draw(function: Callable[..., Any], shapes: Sequence[Sequence[int]]) -> openvino.Model:
    """Convert a function of float32 tensors of these shapes, in which -1 stands for any size; see `draw_graph`.

    Raises:
        SpecpolicyError: it uses an unsupported operation.
    """
    package = import_openvino()
    try:
        return draw_graph(function, shapes, importlib.import_module("openvino.opset13"), package.Model)
    except (UnknownOperation, RuntimeError, TypeError) as error:  # an operation, or its options
        raise refusal(error) from error


def refusal(error: Exception) -> SpecpolicyError:
    """Return our error for an error of OpenVINO or torch."""
    reason = " ".join(str(error).split())[:200]
    return SpecpolicyError(f"OpenVINO cannot convert this network: use engine eager ({reason})")


def _expand_mish(model: openvino.Model) -> None:
    """Write Mish as `openvino_graph` does."""
    from openvino import opset13

    for node in model.get_ordered_ops():
        if node.get_type_name() == "Mish":
            x = node.input_value(0)
            one, two, bound = (opset13.constant(value, dtype="float32") for value in (1.0, 2.0, 20.0))
            growth = opset13.exp(opset13.minimum(x, bound))  # beyond 20 Mish is x to the last digit
            square = opset13.multiply(opset13.add(growth, one), opset13.add(growth, one))
            part = opset13.divide(two, opset13.add(square, one))
            node.output(0).replace(opset13.subtract(x, opset13.multiply(x, part)).output(0))


def _expand_group_norm(model: openvino.Model) -> None:
    """Write group norm of images by simpler operations: OpenVINO 2026.4 crashes where it fuses its own with a
    convolution whose result is added to another."""
    from openvino import opset13

    for node in model.get_ordered_ops():
        rank = node.get_output_partial_shape(0).rank
        if node.get_type_name() != "GroupNormalization" or rank.is_dynamic or rank.get_length() != 4:
            continue
        (x, scale, bias), options = (node.input_value(index) for index in range(3)), node.get_attributes()
        grouped = opset13.reshape(x, opset13.constant([0, options["num_groups"], -1], dtype="int64"), True)
        axes = opset13.constant([2], dtype="int64")
        normal = opset13.mvn(grouped, axes, True, options["epsilon"], "inside_sqrt")
        column = opset13.constant([1, -1, 1, 1], dtype="int64")
        scaled = opset13.multiply(
            opset13.reshape(normal, opset13.shape_of(x), False), opset13.reshape(scale, column, False)
        )
        node.output(0).replace(opset13.add(scaled, opset13.reshape(bias, column, False)).output(0))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, which logs and warns at length about unimportant things. The result is checked."""
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
    """Import the package with its telemetry off. The telemetry would call Google Analytics at import and keep a file in
    the home directory. Without the telemetry package OpenVINO uses its own stub."""
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
    """Make imports of the package fail in this block, as if it were not installed."""
    before = sys.modules.get(package)
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if before is None:
            del sys.modules[package]
        else:
            sys.modules[package] = before
