"""Draws an OpenVINO graph by running a torch function once, with nodes of OpenVINO in place of tensors.

It supports the operations of networks in two parts and of small functions. Exporting through torch supports nearly all
operations and takes a hundred times as long.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    import openvino


class UnknownOperation(Exception):
    """An operation that this module does not support."""


def draw_graph(function: Callable[..., Any], shapes: Sequence[Sequence[int]], opset: Any, model: Any) -> openvino.Model:
    """Return the graph of a function of float32 tensors of these shapes, in which -1 stands for any size.

    Args:
        function: torch code.
        shapes: of its inputs.
        opset: the module of OpenVINO's operations.
        model: OpenVINO's class of models.

    Raises:
        UnknownOperation: the function uses an unsupported operation.
    """
    inputs = [opset.parameter(list(shape), np.float32) for shape in shapes]
    with torch.no_grad():
        result = function(*(Node(value.output(0), opset) for value in inputs))
    return model([result.output], inputs)


class Node:
    """Stands for a tensor. Torch operations on it return nodes."""

    def __init__(self, output: Any, opset: Any):
        self.output, self._opset = output, opset

    @property
    def dims(self) -> int:
        """Number of dimensions."""
        return self.output.get_partial_shape().rank.get_length()

    def apply(self, name: str, *arguments: Any, **options: Any) -> Node:
        """Return OpenVINO's operation of this name, on this node and others; tensors become constants."""
        given = [self.constant(value) if isinstance(value, Tensor) else value for value in arguments]
        given = [value.output if isinstance(value, Node) else value for value in given]
        return Node(getattr(self._opset, name)(self.output, *given, **options).output(0), self._opset)

    def whole(self, *numbers: int) -> Any:
        """Return a constant of whole numbers; a single number is a scalar, not a vector."""
        return self._opset.constant(np.array(numbers if len(numbers) > 1 else numbers[0], dtype=np.int64))

    def vector(self, *numbers: int) -> Any:
        """Return a constant vector of whole numbers."""
        return self._opset.constant(np.array(numbers, dtype=np.int64))

    def parts(self, made: Any) -> list[Node]:
        """Return the outputs of an operation that has several."""
        return [Node(output, self._opset) for output in made.outputs()]

    def constant(self, value: Tensor | float) -> Any:
        """Return a float32 constant."""
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.float32(value)
        return self._opset.constant(np.ascontiguousarray(array, dtype=np.float32))

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(function, "__name__", str(function)).strip("_")
        if name not in OPERATIONS:
            raise UnknownOperation(name)
        return OPERATIONS[name](*args, **(kwargs or {}))

    def __getattr__(self, name: str) -> Any:
        if name not in OPERATIONS:
            raise UnknownOperation(name)
        return functools.partial(OPERATIONS[name], self)

    def _combine(self, name: str, other: Any) -> Node:
        return self.apply(name, self.constant(float(other)) if isinstance(other, float | int) else other)

    def __add__(self, other: Any) -> Node:
        return self._combine("add", other)

    def __sub__(self, other: Any) -> Node:
        return self._combine("subtract", other)

    def __mul__(self, other: Any) -> Node:
        return self._combine("multiply", other)

    def __matmul__(self, other: Any) -> Node:
        return self.apply("matmul", other, transpose_a=False, transpose_b=False)

    __radd__, __rmul__ = __add__, __mul__

    def __getitem__(self, index: Any) -> Node:
        items = list(index) if isinstance(index, tuple) else [index]
        if Ellipsis in items:
            place = items.index(Ellipsis)
            missing = self.dims - sum(item is not None for item in items) + 1
            items[place : place + 1] = [slice(None)] * missing
        cuts: list[tuple[int, int, int]] = []
        gone: list[int] = []
        new: list[int] = []
        axis = 0
        for item in items:
            if item is None:
                new.append(axis - len(gone) + len(new))
                continue
            if isinstance(item, int):
                cuts.append((item, item + 1 or 2**31 - 1, axis))
                gone.append(axis)
            elif item != slice(None):
                if item.step not in (None, 1):
                    raise UnknownOperation("slices with steps")
                cuts.append((item.start or 0, 2**31 - 1 if item.stop is None else item.stop, axis))
            axis += 1
        node = self
        if cuts:
            starts, stops, axes = (self.vector(*numbers) for numbers in zip(*cuts, strict=True))
            node = node.apply("slice", starts, stops, self.vector(*[1] * len(cuts)), axes)
        node = node.apply("squeeze", self.vector(*gone)) if gone else node
        return node.apply("unsqueeze", self.vector(*new)) if new else node


def _permute(x: Node, *order: Any) -> Node:
    return x.apply("transpose", x.vector(*(order[0] if isinstance(order[0], tuple | list) else order)))


def _transpose(x: Node, first: int, second: int) -> Node:
    order = list(range(x.dims))
    order[first], order[second] = order[second], order[first]
    return _permute(x, order)


def _reshape(x: Node, *shape: Any) -> Node:
    return x.apply("reshape", x.vector(*(shape[0] if isinstance(shape[0], tuple | list) else shape)), False)


def _split(x: Node, sizes: list[int], dim: int = 0) -> list[Node]:
    return x.parts(x._opset.variadic_split(x.output, x.whole(dim), x.vector(*sizes)))


def _chunk(x: Node, chunks: int, dim: int = 0) -> list[Node]:
    return x.parts(x._opset.split(x.output, x.whole(dim), chunks))


def _cat(tensors: Sequence[Node], dim: int = 0) -> Node:
    first = tensors[0]
    return Node(first._opset.concat([one.output for one in tensors], dim).output(0), first._opset)


def _stack(tensors: Sequence[Node], dim: int = 0) -> Node:
    return _cat([one.apply("unsqueeze", one.vector(dim)) for one in tensors], dim)


def _pad(x: Node, pad: tuple[int, ...], mode: str = "constant", value: float | None = None) -> Node:
    if mode != "constant" or value:
        raise UnknownOperation("padding with anything but zeros")
    before, after = [0] * x.dims, [0] * x.dims
    for place in range(len(pad) // 2):
        before[-1 - place], after[-1 - place] = pad[2 * place], pad[2 * place + 1]
    return x.apply("pad", x.vector(*before), x.vector(*after), "constant")


def _linear(x: Node, weight: Tensor, bias: Tensor | None = None) -> Node:
    product = x.apply("matmul", weight, transpose_a=False, transpose_b=True)
    return product if bias is None else product + bias


def _convolve(
    x: Node, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1
) -> Node:
    dims = weight.dim() - 2
    strides, pads, dilations = (
        list(value) if isinstance(value, tuple) else [value] * dims for value in (stride, padding, dilation)
    )
    product = x.apply("convolution", weight, strides, pads, pads, dilations)
    return product if bias is None else product + bias.reshape(-1, *[1] * dims)


def _group_norm(x: Node, groups: int, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Node:
    return x.apply("group_normalization", weight, bias, groups, eps)


def _layer_norm(
    x: Node, shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Node:
    x = x.apply("mvn", x.vector(*range(-len(shape), 0)), True, eps, "inside_sqrt")
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _mish(x: Node, inplace: bool = False) -> Node:
    """x - 2x / ((1 + e^x)^2 + 1). OpenVINO fuses these operations with their neighbours. Its own Mish it fuses for many
    rows only, and for few rows some versions refuse to compile it."""
    growth = x._combine("minimum", 20.0).apply("exp") + 1.0  # beyond 20 Mish is x to the last digit
    two = Node(x.constant(2.0).output(0), x._opset)
    return x - x * two.apply("divide", growth * growth + 1.0)


def _attend(query: Node, key: Node, value: Node, attn_mask: Tensor | None = None) -> Node:
    given = [key, value] if attn_mask is None else [key, value, attn_mask]
    return query.apply("scaled_dot_product_attention", *given)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "permute": _permute,
    "transpose": _transpose,
    "reshape": _reshape,
    "view": _reshape,
    "split": _split,
    "chunk": _chunk,
    "cat": _cat,
    "stack": _stack,
    "pad": _pad,
    "linear": _linear,
    "conv1d": _convolve,
    "conv2d": _convolve,
    "group_norm": _group_norm,
    "layer_norm": _layer_norm,
    "mish": _mish,
    "silu": lambda x, inplace=False: x.apply("swish"),
    "gelu": lambda x, approximate="none": x.apply("gelu", "TANH" if approximate == "tanh" else "ERF"),
    "scaled_dot_product_attention": _attend,
    "add": lambda x, y: y + x if isinstance(x, Tensor) else x + y,
    "mul": lambda x, y: y * x if isinstance(x, Tensor) else x * y,
}
