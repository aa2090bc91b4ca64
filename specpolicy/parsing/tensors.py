"""`read_tensors`: compares a stranger's safetensors file with the expected tensors before reading it."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn import init
from torch.overrides import TorchFunctionMode

from specpolicy.errors import SpecpolicyError
from specpolicy.parsing.json_file import MIB, check_regular
from specpolicy.parsing.words import one_line, shown

MOST_HEADER = 16 * MIB  # a network of a thousand weights has 0.1
FLOATS = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}
OTHERS = {"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8}
OTHERS |= {"BOOL": torch.bool}
RANDOM = {torch.Tensor.uniform_, torch.Tensor.normal_}
RANDOM |= {getattr(init, name) for name in ("uniform_", "normal_", "kaiming_uniform_", "xavier_uniform_")}
Layout = Mapping[str, tuple[str, tuple[int, ...]]]  # {name: (safetensors' name of the type, shape)}


def read_tensors(path: str | Path, expected: Mapping[str, Tensor] | None = None, remedy: str = "") -> dict[str, Tensor]:
    """Return the tensors of a file, floating-point ones as float32.

    Args:
        path: a regular file.
        expected: tensors with the required names, shapes and kinds, on any device, "meta" too. None: any.
        remedy: advice for messages about a bad file.

    Raises:
        SpecpolicyError: no such file, a damaged one, or other tensors than expected.
    """
    end = f": {remedy}" if remedy else ""
    layout = read_layout(path, remedy)
    if expected is not None:
        check_layout(layout, expected, f"{path}: ")
    for name, (kind, _) in layout.items():
        if kind not in FLOATS | OTHERS:
            raise SpecpolicyError(f"{path} holds {shown(name)} as {kind}, which is no kind of weight{end}")
    with opened(path, "pt", remedy) as tensors:
        found = {name: tensors.get_tensor(name) for name in layout}
    return {name: value.float() if value.is_floating_point() else value for name, value in found.items()}


def read_layout(path: str | Path, remedy: str = "") -> Layout:
    """Return the layout that a safetensors file states, without reading its numbers. See `read_tensors`."""
    with opened(path, "pt", remedy) as tensors:
        parts = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
        return {name: (part.get_dtype(), tuple(part.get_shape())) for name, part in parts.items()}


@contextlib.contextmanager
def opened(path: str | Path, framework: str = "pt", remedy: str = "") -> Iterator[Any]:
    """Open a safetensors file with a bounded header; errors become one line.

    `framework`: "pt" or "numpy", the kind of arrays returned. See `safetensors.safe_open`, and `read_tensors`.
    """
    end = f": {remedy}" if remedy else ""
    size = check_regular(path)
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(MOST_HEADER, size - 8):
            raise SpecpolicyError(f"{path} cannot be read (it is no safetensors file, or cut off){end}")
        with safe_open(path, framework) as tensors:
            yield tensors
    except OSError as error:
        raise SpecpolicyError(f"{path} cannot be read: {error.strerror or error}{end}") from None
    except (SafetensorError, RuntimeError, OverflowError, MemoryError) as error:
        raise SpecpolicyError(f"{path} cannot be read ({one_line(error)}){end}") from None


class Unfilled(TorchFunctionMode):
    """A block in which networks are made without random first weights: for networks whose weights are read afterwards.

    That saves most of the time of making one, and does not advance torch's random numbers.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Return the tensor unfilled."""
        kwargs = kwargs or {}
        if func in RANDOM:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@contextlib.contextmanager
def without_memory() -> Iterator[None]:
    """A block in which networks have names and shapes, but neither memory nor values."""
    with torch.device("meta"), Unfilled():
        yield


def layout_of(tensors: Mapping[str, Tensor]) -> Layout:
    """Return the names, types and shapes of tensors in memory."""
    names = {dtype: name for name, dtype in (FLOATS | OTHERS).items()}
    return {name: (names.get(value.dtype, str(value.dtype)), tuple(value.shape)) for name, value in tensors.items()}


def check_layout(found: Layout, expected: Mapping[str, Tensor], where: str = "") -> None:
    """Raise, naming the first of them, if tensors are missing, are too many, or have another shape or kind.

    The message begins with `where`.
    """
    wrong = [f"{_bare(name)} is missing" for name in expected if name not in found]
    wrong += [f"{_bare(name)} has no place" for name in found if name not in expected]
    for name, value in expected.items():
        if name not in found:
            continue
        kind, shape = found[name]
        if shape != tuple(value.shape):
            wrong.append(f"{_bare(name)} has shape {shape} in place of {tuple(value.shape)}")
        elif not (kind in FLOATS if value.is_floating_point() else OTHERS.get(kind) == value.dtype):
            wanted = "a floating-point number" if value.is_floating_point() else str(value.dtype).removeprefix("torch.")
            wrong.append(f"{_bare(name)} is of type {kind} in place of {wanted}")
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise SpecpolicyError(f"{where}the weights do not fit the configuration: {wrong[0]}{more}")


def check_finite(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], where: str = "") -> None:
    """Raise if a tensor holds values that are not finite, unless a network has the same ones there (an attention mask).

    The message begins with `where`.
    """
    for name, value in tensors.items():
        if value.is_floating_point() and value.numel() and not _finite(value):
            if name in own and torch.equal(value.cpu(), own[name].cpu()):
                continue
            raise SpecpolicyError(f"{where}the weights {_bare(name)} hold what is not finite: the file is damaged")


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def prefixed(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors under names with a prefix."""
    return {f"{prefix}{name}": value for name, value in tensors.items()}


def _bare(name: str) -> str:
    """Return a foreign name for a message, on one line, without quotes."""
    return shown(name)[1:-1]


def _finite(value: Tensor) -> bool:
    low, high = value.aminmax()  # both NaN if any value is
    return math.isfinite(float(low)) and math.isfinite(float(high))
