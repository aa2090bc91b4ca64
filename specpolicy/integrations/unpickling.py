"""Reading the pickles of other projects without running what they say.

A pickle is a program: it may call any function by its name. The files read here need few names, listed below; they
build containers, numbers, arrays and tensors. Anything else is refused by its name. The configuration objects of
OmegaConf become inert stand-ins, so that neither omegaconf nor dill need be installed.
"""

import pickle
import types
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._utils
from numpy._core import multiarray
from torch import Tensor

from specpolicy.errors import SpecpolicyError


class Stub:
    """Stands for an object of a class that is not needed; keeps its state."""

    state: Any = None

    def __init__(self, *arguments: Any, **options: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


class Node(Stub):
    """A value of an OmegaConf configuration."""


class Container(Stub):
    """A mapping or a list of an OmegaConf configuration."""


def _load_type(name: str) -> type:
    """dill's name for a built-in type."""
    if name not in BUILTIN_TYPES:
        raise Refused(f"dill type {name}")
    return BUILTIN_TYPES[name]


class Refused(Exception):
    """A name that the pickle asks for and that is not on the list."""


def _encode(text: str, encoding: str) -> bytes:
    """How pickle's old protocols store bytes."""
    return text.encode(encoding)


def _array_from_bytes(buffer: bytes, dtype: np.dtype, shape: tuple[int, ...], order: Any) -> np.ndarray:
    """How pickle's newer protocols store arrays."""
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


BUILTIN_TYPES = {kind.__name__: kind for kind in (dict, list, tuple, set, frozenset, int, float, bool, str, bytes)}
_NODES = ("AnyNode", "StringNode", "IntegerNode", "FloatNode", "BooleanNode", "BytesNode", "PathNode", "EnumNode")

ALLOWED: dict[str, Any] = {
    **{f"builtins.{name}": kind for name, kind in BUILTIN_TYPES.items()},
    # Python 2's names, which the protocol that torch.save uses still has.
    **{f"__builtin__.{name}": kind for name, kind in (BUILTIN_TYPES | {"long": int, "unicode": str}).items()},
    "builtins.complex": complex,
    "builtins.slice": slice,
    "builtins.bytearray": bytearray,
    "_codecs.encode": _encode,
    "collections.OrderedDict": OrderedDict,
    "collections.defaultdict": defaultdict,
    "typing.Any": Any,
    "dill._dill._load_type": _load_type,
    "dill.dill._load_type": _load_type,
    "omegaconf.dictconfig.DictConfig": Container,
    "omegaconf.listconfig.ListConfig": Container,
    "omegaconf.base.ContainerMetadata": Stub,
    "omegaconf.base.Metadata": Stub,
    **{f"omegaconf.nodes.{name}": Node for name in _NODES},
    **{f"pathlib.{name}": Stub for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath")},
    "pathlib._local.PosixPath": Stub,
    "torch._utils._rebuild_tensor_v2": torch._utils._rebuild_tensor_v2,
    "torch._utils._rebuild_tensor": torch._utils._rebuild_tensor,
    "torch._utils._rebuild_parameter": torch._utils._rebuild_parameter,
    "torch.Size": torch.Size,
    "torch.device": torch.device,
    "torch.Tensor": torch.Tensor,
    "torch.nn.parameter.Parameter": torch.nn.Parameter,
    "torch.serialization._get_layout": Stub,
    **{f"torch.{name}": value for name, value in vars(torch).items() if isinstance(value, torch.dtype)},
    "numpy.dtype": np.dtype,
    "numpy.ndarray": np.ndarray,
    **{
        f"numpy.{core}.multiarray.{name}": getattr(multiarray, name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    },
    **{f"numpy.{core}.numeric._frombuffer": _array_from_bytes for core in ("core", "_core")},
}
# A storage is named by its class; torch looks the class up itself and reads the numbers from the archive.
_STORAGES = {f"torch.{name}" for name in dir(torch) if name.endswith("Storage")} | {
    "torch.storage.UntypedStorage",
    "torch.storage.TypedStorage",
}


def _unpickler(trust: bool) -> type[pickle.Unpickler]:
    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            full = f"{module}.{name}"
            if full in ALLOWED:
                return ALLOWED[full]
            if trust or full in _STORAGES:
                return super().find_class(module, name)
            raise Refused(full)

    return Unpickler


def load(path: str | Path, trust: bool = False) -> Any:
    """The object in a file that `torch.save` wrote, with tensors on the CPU.

    trust: import whatever the file names. A file from someone else can then run any code.

    Raises:
        SpecpolicyError: no such file, a truncated file, or one that names more than the list above.
    """
    path = Path(path)
    unpickler = _unpickler(trust)

    def load_stream(file: Any, **options: Any) -> Any:
        return unpickler(file, **options).load()

    # torch.load asks for a module; this one has all that it uses.
    module: Any = types.SimpleNamespace(__name__="specpolicy", Unpickler=unpickler, load=load_stream)
    try:
        return torch.load(path, map_location="cpu", pickle_module=module, weights_only=False)
    except FileNotFoundError:
        raise SpecpolicyError(f"no policy at {path}") from None
    except Refused as error:
        raise SpecpolicyError(
            f"{path} asks for {error}, which checkpoints of these projects do not need: it was not opened; "
            "if you trust who made it, set trust=true"
        ) from None
    except ModuleNotFoundError as error:
        raise SpecpolicyError(f"{path} needs the package {error.name}, which is not installed") from None
    except Exception as error:  # a damaged archive fails in many ways, by exceptions of many kinds
        raise SpecpolicyError(f"{path} cannot be read ({_reason(path, error)}): copy the checkpoint again") from None


def _reason(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        starts_as_archive = file.read(2) == b"PK"
    if starts_as_archive and not zipfile.is_zipfile(path):
        return "the file is truncated"
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def plain(value: Any) -> Any:
    """Configuration objects, stand-ins or OmegaConf's own, as dicts, lists and values; interpolations stay text."""
    if isinstance(value, Container | Node):
        state = value.state if isinstance(value.state, dict) else {}
        return plain(state.get("_content" if isinstance(value, Container) else "_val"))
    if type(value).__module__.startswith("omegaconf"):
        from omegaconf import OmegaConf

        return OmegaConf.to_container(value, resolve=False)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return value.tolist()
    return value
