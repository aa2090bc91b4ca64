"""The names that a pickle of these projects may use, and their stand-ins.

Nothing in a file becomes a live function or class. A name becomes a `Name`, which is text. Where the file calls it, a
function of ours makes a value: a container, text, a number, an array. Objects of OmegaConf become `Node` and
`Container`, which keep their state and do nothing. So neither omegaconf nor dill need be installed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import torch

from specpolicy.integrations.arrays import Dtype, array_of, check_shape, empty_array, scalar
from specpolicy.integrations.budget import Damaged, Refused
from specpolicy.parsing import shown


class Stub:
    """Stands for an object of a class that is not needed; it keeps the state."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Node(Stub):
    """A value of an OmegaConf configuration."""


class Container(Stub):
    """A mapping or a list of an OmegaConf configuration."""


@dataclass(frozen=True, slots=True)
class Name:
    """The name of a function or a class, such as `builtins.dict`."""

    full: str


def check_key(key: Any) -> Any:
    """Return a key of a mapping or an item of a set, if its type is allowed. Keys of other types can be made to
    collide.

    OmegaConf caches values of `${now:...}` under tuples of text.
    """
    if isinstance(key, int) and abs(key) >= 2**61 - 1:
        raise Refused("a key that is a large number")
    words = isinstance(key, tuple) and len(key) < MOST_WORDS and all(isinstance(word, str) for word in key)
    if key is not None and not words and not isinstance(key, str | bytes | int | float):
        raise Refused(f"a key that is a {type(key).__name__}")
    return key


def _set(items: Any = ()) -> set:
    return {check_key(item) for item in _sequence(items)}


def _sequence(items: Any) -> Any:
    if not isinstance(items, list | tuple):
        raise Damaged("a list that is none")
    return items


def _bytes(content: Any = b"", encoding: str = "latin-1") -> bytes:
    """`bytes` and `bytearray`, which protocol 2 stores as text."""
    if isinstance(content, str) and encoding in ("latin1", "latin-1"):
        return content.encode("latin-1")
    if not isinstance(content, bytes | bytearray):
        raise Refused(f"bytes of a {type(content).__name__}")
    return bytes(content)


def _ordered(pairs: Any = ()) -> dict:
    made = {}
    for pair in _sequence(pairs):
        key, value = _sequence(pair)
        made[check_key(key)] = value
    return made


def _default(factory: Any = None) -> dict:
    if factory is not None and not isinstance(factory, Name):
        raise Damaged("a default that is none")
    return {}


def _complex(real: float, imaginary: float) -> complex:
    return complex(_number(real), _number(imaginary))


def _number(value: Any) -> float:
    if not isinstance(value, int | float):
        raise Damaged("a number that is none")
    return float(value)


def _slice(*parts: Any) -> slice:
    if any(part is not None and type(part) is not int for part in parts):
        raise Refused("a slice of other things than whole numbers")
    return slice(*parts)


def _path(*parts: Any) -> str:
    if not all(isinstance(part, str) for part in parts):
        raise Damaged("a path that is none")
    return str(PurePosixPath(*parts))  # the root is a part, too


def _counter(counts: Any = None) -> dict:
    """Return the milestones of a learning rate schedule."""
    if counts is not None and not isinstance(counts, dict):
        raise Damaged("counts that are none")
    return dict(counts or {})


def _dill_type(name: Any) -> Name:
    """Return dill's name for a built-in type."""
    if not isinstance(name, str) or name not in TYPES:
        raise Refused(f"dill type {shown(name)}")
    return Name(f"builtins.{name}")


def _size(sides: Any) -> torch.Size:
    check_shape(sides)
    return torch.Size(sides)


def _device(*parts: Any) -> str:
    """Return a device's name: tensors are read to the CPU wherever they were."""
    if not parts or not isinstance(parts[0], str) or any(type(part) is not int for part in parts[1:]):
        raise Damaged("a device that is none")
    return ":".join(map(str, parts))


MOST_WORDS = 16  # in a key
TYPES = ("dict", "list", "tuple", "set", "frozenset", "int", "float", "bool", "str", "bytes")
_NODES = ("AnyNode", "StringNode", "IntegerNode", "FloatNode", "BooleanNode", "BytesNode", "PathNode", "EnumNode")
_CORES = ("numpy.core", "numpy._core")
_BUILTINS: dict[str, Callable[..., Any]] = {
    "set": _set,
    "frozenset": lambda *items: frozenset(_set(*items)),
    "bytes": _bytes,
    "bytearray": _bytes,
    "complex": _complex,
    "slice": _slice,
}
# Names that may be called, and their stand-ins. Protocol 2 writes Python 2's __builtin__.
CALLED: dict[str, Callable[..., Any]] = {
    **{f"{module}.{name}": call for module in ("builtins", "__builtin__") for name, call in _BUILTINS.items()},
    "_codecs.encode": _bytes,
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": _default,
    "collections.Counter": _counter,
    **{f"{module}._load_type": _dill_type for module in ("dill._dill", "dill.dill")},
    **{f"pathlib.{name}": _path for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath")},
    "pathlib._local.PosixPath": _path,
    "torch.Size": _size,
    "torch.device": _device,
    "numpy.dtype": Dtype,
    **{f"{core}.multiarray._reconstruct": empty_array for core in _CORES},
    **{f"{core}.multiarray.scalar": scalar for core in _CORES},
    **{f"{core}.numeric._frombuffer": array_of for core in _CORES},
}
# Classes whose objects keep their state and nothing else.
CLASSES: dict[str, type[Stub]] = {
    "omegaconf.dictconfig.DictConfig": Container,
    "omegaconf.listconfig.ListConfig": Container,
    "omegaconf.base.ContainerMetadata": Stub,
    "omegaconf.base.Metadata": Stub,
    **{f"omegaconf.nodes.{name}": Node for name in _NODES},
}
# Names that are only mentioned.
MENTIONED = {
    *(f"builtins.{name}" for name in TYPES),
    *(f"__builtin__.{name}" for name in (*TYPES, "long", "unicode")),
    "typing.Any",
    "numpy.ndarray",
    "torch.Tensor",
    "torch.nn.parameter.Parameter",
}
DTYPES = {f"torch.{name}": value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
