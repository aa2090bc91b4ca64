"""A GPU for machines without one: tensors on the device "meta" that hold their numbers on the CPU.

What a GPU would refuse is refused: operations that mix devices. What it would be waited for is noted: a copy to the
CPU, a number read from a tensor, a selection whose size depends on the numbers. Kernels and speed are not imitated.
"""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("meta")
READS = ("_local_scalar_dense", "equal", "is_nonzero")  # give a number, not a tensor
SELECTIONS = ("nonzero", "masked_select", "_unique2", "bincount")


class Pretended(torch.Tensor):
    """A tensor there; `held` is the same one here."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "Pretended":
        tensor = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), dtype=held.dtype, device=GPU, requires_grad=False
        )
        tensor.held = held
        return tensor

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Pretended({self.held})"

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func}: a pretended tensor outside `with PretendGpu()`")


class PretendGpu(TorchDispatchMode):
    """While it is active, device "meta" is the GPU. `waits`: the names of the operations that had to be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        there = [tensor for tensor in tensors if isinstance(tensor, Pretended)]
        name, target = func._schema.name.partition("::")[2], _device(func, args, kwargs)
        if not there and target != GPU:
            return func(*args, **kwargs)
        with self:  # inference mode hands over operations that are made of others, such as `to`, as a whole
            made = func.decompose(*args, **kwargs)
        if made is not NotImplemented:
            return made
        if name in ("_to_copy", "copy_"):
            if (target is not None and target != GPU) or (name == "copy_" and not isinstance(args[0], Pretended)):
                self.waits.append(name)
        else:
            here = [tensor for tensor in tensors if not isinstance(tensor, Pretended) and tensor.dim() > 0]
            assert not here, f"{name}: {[tuple(one.shape) for one in here]} on the CPU, {len(there)} on the GPU"
            masks = name.startswith("index") and any(tensor.dtype == torch.bool for tensor in there[1:])
            if masks or name in READS or name in SELECTIONS:
                self.waits.append(name)
        real_args, real_kwargs = tree_map(_real, (args, kwargs))
        if target is not None:
            real_kwargs = {**real_kwargs, "device": torch.device("cpu")}
        out = func(*real_args, **real_kwargs)
        first = func._schema.arguments[0] if func._schema.arguments else None
        if first is not None and first.alias_info is not None and first.alias_info.is_write:
            return args[0]
        if name in READS or (name == "_to_copy" and target is not None and target != GPU):
            return out
        return tree_map(lambda leaf: Pretended(leaf) if isinstance(leaf, torch.Tensor) else leaf, out)


def _device(func: Any, args: tuple, kwargs: dict[str, Any]) -> torch.device | None:
    """The device that an operation is told to put its result on."""
    named = {argument.name: value for argument, value in zip(func._schema.arguments, args, strict=False)} | kwargs
    device = named.get("device")
    return None if device is None else torch.device(device)


def _real(leaf: Any) -> Any:
    return leaf.held if isinstance(leaf, Pretended) else leaf
