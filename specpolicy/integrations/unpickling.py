"""Reads the pickles of other projects without running their code.

A file of `torch.save` is opened by our own parser, whatever kind of file it claims to be: `archive` for the zip,
`machine` for the pickle in it, `tensors` for the numbers. A name in it is on the short list of `stand_ins`, or refused.
With `trust` the file is given to torch, and can run any code.
"""

import io
import pickle
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specpolicy.errors import SpecpolicyError
from specpolicy.integrations import archive, legacy
from specpolicy.integrations.budget import MOST_DEPTH, MOST_VALUES, Budget, Damaged, Refused
from specpolicy.integrations.machine import Machine
from specpolicy.integrations.stand_ins import CLASSES, TYPES, Container, Node
from specpolicy.integrations.tensors import STORAGES, Tensors
from specpolicy.parsing import check_regular, one_line

TAIL = 66_000  # bytes at the end of a zip that hold the start of its last record


def load(path: str | Path, trust: bool = False) -> Any:
    """Return the object in a file that `torch.save` wrote, with tensors on the CPU.

    Args:
        path: the file.
        trust: import whatever the file names. A file from someone else can then run any code.

    Raises:
        SpecpolicyError: no such file, a damaged one, or one that needs more than checkpoints of these projects need.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise SpecpolicyError(f"no policy at {path}")
        check_regular(path)
        return _load_trusted(path) if trust else _load(path)
    except SpecpolicyError:
        raise
    except Refused as error:
        raise SpecpolicyError(
            f"{path} asks for {one_line(error)}, which checkpoints of these projects do not need: it was not opened; "
            "if you trust who made it, set trust=true"
        ) from None
    except ModuleNotFoundError as error:
        raise SpecpolicyError(f"{path} needs the package {error.name}, which is not installed") from None
    except OSError as error:
        raise SpecpolicyError(f"{path} cannot be read: {error.strerror or one_line(error)}") from None
    except Exception as error:  # damaged files raise exceptions of many kinds
        raise SpecpolicyError(f"{path} cannot be read ({_reason(path, error)}): copy the checkpoint again") from None


def _load(path: Path) -> Any:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        if start[:1] == b"\x80":
            return legacy.read(file, size)
        if start != archive.SIGNATURE:
            raise Damaged("it is no file of torch.save")
        source = archive.Archive(file, size)
        tensors = Tensors(source)
        machine = Machine(tensors.storage, tensors.calls(), set(STORAGES))
        content = machine.run(io.BytesIO(source.pickle()))
        source.finish()
        return content


def _load_trusted(path: Path) -> Any:
    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            try:
                return super().find_class(module, name)
            except ModuleNotFoundError:  # neither omegaconf nor dill is needed to read a checkpoint
                if name == "_load_type" and module.partition(".")[0] == "dill":
                    return _load_type
                if f"{module}.{name}" in CLASSES:
                    return CLASSES[f"{module}.{name}"]
                raise

    def load_stream(file: Any, **options: Any) -> Any:
        return Unpickler(file, **options).load()

    # torch.load asks for a module; this one has everything that it uses.
    module: Any = types.SimpleNamespace(__name__="specpolicy", Unpickler=Unpickler, load=load_stream)
    return torch.load(path, map_location="cpu", pickle_module=module, weights_only=False)


def _load_type(name: str) -> type:
    """Return the built-in type of dill's name."""
    if name not in TYPES:
        raise Refused(f"dill type {name}")
    return {kind.__name__: kind for kind in (dict, list, tuple, set, frozenset, int, float, bool, str, bytes)}[name]


def _reason(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        starts_as_archive = file.read(2) == b"PK"
        file.seek(max(0, path.stat().st_size - TAIL))
        if starts_as_archive and b"PK\x05\x06" not in file.read():
            return "the file is truncated"
    text = str(error) if isinstance(error, Damaged) else f"{type(error).__name__}: {error}"
    return one_line(text)


def plain(value: Any) -> Any:
    """Return configuration objects, stand-ins or OmegaConf's own, as dicts, lists and values; interpolations stay text.

    Raises:
        SpecpolicyError: they hold more values, or nest deeper, than any configuration does.
    """
    budget = Budget(MOST_VALUES, "values in a configuration")
    try:
        return _plain(value, budget, 0)
    except Refused as error:
        raise SpecpolicyError(f"{error}, which no policy has") from None


def _plain(value: Any, budget: Budget, depth: int) -> Any:
    budget.spend(1)
    if depth > MOST_DEPTH:
        raise Refused(f"a configuration that nests deeper than {MOST_DEPTH}")
    if isinstance(value, Container | Node):
        state = value.state if isinstance(value.state, dict) else {}
        return _plain(state.get("_content" if isinstance(value, Container) else "_val"), budget, depth + 1)
    if type(value).__module__.startswith("omegaconf"):
        from omegaconf import OmegaConf

        return OmegaConf.to_container(value, resolve=False)
    if isinstance(value, dict):
        return {key: _plain(item, budget, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, budget, depth + 1) for item in value]
    if isinstance(value, Tensor | np.ndarray | np.generic):
        budget.spend(value.numel() if isinstance(value, Tensor) else value.size)
        return value.tolist()
    return value
