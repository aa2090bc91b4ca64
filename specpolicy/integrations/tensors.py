"""Tensors of a stranger's checkpoint: made of bytes in the file, checked against the pickle's description."""

from typing import Any, Protocol

import torch
from torch import Tensor

from specpolicy.integrations.arrays import check_shape
from specpolicy.integrations.budget import MIB, Budget, Damaged, Refused
from specpolicy.integrations.stand_ins import Name
from specpolicy.parsing import shown

# A storage is named by its class.
STORAGES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
    "torch.ComplexFloatStorage": torch.complex64,
    "torch.ComplexDoubleStorage": torch.complex128,
}
# Largest ratio of all tensors together to the stored numbers. Weights that several names share are stored
# once, such as an encoder for four cameras; so is a tensor that was expanded.
SHARED, EXPANDED = 8, 64 * MIB


class Storage:
    """A row of numbers, of which tensors are views."""

    def __init__(self, dtype: torch.dtype, size: int):
        self.raw = torch.empty(size, dtype=torch.uint8)
        self.values = self.raw.view(dtype)

    @property
    def buffer(self) -> memoryview:
        """Return the bytes to be filled."""
        return self.raw.numpy().data

    def settle(self) -> None:
        """Check the values; call this when the bytes are there."""
        if self.values.dtype == torch.bool:  # a bool is one of the bytes 0 and 1
            self.raw.copy_(self.raw != 0)


class Source(Protocol):
    """Source of the bytes of storages."""

    def storage_size(self, key: str) -> int:
        """Return the bytes of a storage."""

    def read_storage(self, key: str, into: memoryview) -> None:
        """Fill `into`, now or later."""


class Tensors:
    """Makes the storages and tensors of a pickle."""

    def __init__(self, source: Source):
        self._source = source
        self.storages: dict[str, Storage] = {}
        self._most = Budget(EXPANDED, "bytes of tensors beyond what is stored")

    def storage(self, described: Any) -> Storage:
        """Return the storage of a persistent id ("storage", class, key, device, number of numbers)."""
        if not isinstance(described, tuple) or len(described) not in (5, 6) or described[0] != "storage":
            raise Damaged("a storage that is none")
        kind, key, _, count = described[1:5]
        if len(described) == 6 and described[5] is not None:
            raise Refused("a view of a storage")
        if not isinstance(kind, Name) or kind.full not in STORAGES or not isinstance(key, str):
            raise Damaged("a storage without a type")
        dtype = STORAGES[kind.full]
        if key not in self.storages:
            size = self._source.storage_size(key)
            if type(count) is not int or count * dtype.itemsize != size:
                raise Damaged(f"the storage {shown(key)} has {size} bytes, not those of its numbers")
            self.storages[key] = Storage(dtype, size)
            self._source.read_storage(key, self.storages[key].buffer)
            self.storages[key].settle()
            self._most.spend(-SHARED * size)
        if self.storages[key].values.dtype != dtype or len(self.storages[key].values) != count:
            raise Damaged(f"the storage {shown(key)} with two types")
        return self.storages[key]

    def tensor(
        self,
        storage: Any,
        offset: Any,
        size: Any,
        stride: Any,
        requires_grad: Any = False,
        hooks: Any = None,
        metadata: Any = None,
    ) -> Tensor:
        """Return the view of a storage, which must lie in it."""
        if not isinstance(storage, Storage):
            raise Damaged("a tensor without a storage")
        if hooks or metadata:
            raise Refused("a tensor with hooks or metadata")
        numbers = check_shape(size)
        steps = isinstance(stride, tuple) and len(stride) == len(size) and all(type(step) is int for step in stride)
        if not steps or type(offset) is not int or offset < 0 or min(stride, default=0) < 0:
            raise Damaged("a tensor with strides that are none")
        last = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
        if offset > len(storage.values) or max(stride, default=0) >= 2**48:
            raise Damaged("a tensor outside its storage")
        if numbers and last >= len(storage.values):
            raise Damaged("a tensor outside its storage")
        self._most.spend(numbers * storage.values.dtype.itemsize)
        view = storage.values.as_strided(size, stride, offset)
        # A plain tensor if it asks for gradients of whole numbers, which torch does not have.
        return view.requires_grad_(requires_grad is True and view.dtype.is_floating_point)

    def parameter(self, data: Any, requires_grad: Any = True, hooks: Any = None) -> Tensor:
        """Return a parameter with the numbers of a tensor."""
        if not isinstance(data, Tensor) or hooks:
            raise Damaged("a parameter without a tensor")
        floating = data.dtype.is_floating_point
        return torch.nn.Parameter(data.detach(), requires_grad=requires_grad is True and floating)

    def calls(self) -> dict[str, Any]:
        """Return the names that the pickle may call, with their stand-ins."""
        return {
            "torch._utils._rebuild_tensor": self.tensor,
            "torch._utils._rebuild_tensor_v2": self.tensor,
            "torch._utils._rebuild_parameter": self.parameter,
        }
