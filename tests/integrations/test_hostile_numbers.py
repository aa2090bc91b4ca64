"""Arrays and tensors of strangers' files are made of bytes that are there."""

import struct

import numpy as np
import pytest
import torch
from hostile_files import (
    FOUR,
    call,
    data,
    integer,
    many,
    mapping,
    name,
    program,
    refused,
    storage,
    tensor,
    text,
    write_archive,
)

from specpolicy.integrations.unpickling import load


def dtype(*state, code="f8"):
    """numpy.dtype with a state."""
    return call("numpy.dtype", text(code), b"\x89", b"\x88") + many(*state) + b"b"


NONE, MINUS = b"N", integer(-1)
PLAIN = (integer(3), text("<"), NONE, NONE, NONE, MINUS, MINUS, integer(0))
OBJECTS = (integer(3), text("|"), NONE, NONE, NONE, MINUS, MINUS, integer(63))
FIELD = (
    integer(3),
    text("|"),
    NONE,
    many(text("a")),
    mapping(text("a"), many(call("numpy.dtype", text("f8")), integer(0))),
    integer(8),
    integer(1),
    integer(0),  # flags that hide what the field holds
)
SUBARRAY = (integer(3), text("|"), many(dtype(*PLAIN), many(integer(8))), NONE, NONE, MINUS, MINUS, integer(0))
POINTER = data(struct.pack("<Q", 0x4141414141414141))


def reconstructed(kind, content=POINTER, shape=(1,)):
    """An array by numpy's own call, and its state."""
    start = call("numpy.core.multiarray._reconstruct", name("numpy.ndarray"), many(integer(0)), data(b"b"))
    return start + many(integer(1), many(*map(integer, shape)), kind, b"\x89", content) + b"b"


HOSTILE_ARRAYS = {
    "code O": reconstructed(call("numpy.dtype", text("O8"), b"\x89", b"\x88")),
    "object flags": reconstructed(dtype(*OBJECTS)),
    "object field": reconstructed(dtype(*FIELD)),
    "subarray": reconstructed(dtype(*SUBARRAY)),
    "structure": reconstructed(call("numpy.dtype", text("V8"), b"\x89", b"\x88")),
    "text": reconstructed(call("numpy.dtype", text("U2"), b"\x89", b"\x88")),
    "dates": reconstructed(call("numpy.dtype", text("M8"), b"\x89", b"\x88")),
    "scalar": call("numpy.core.multiarray.scalar", dtype(*FIELD), POINTER),
    "scalar of objects": call("numpy.core.multiarray.scalar", dtype(*OBJECTS), POINTER),
    "frombuffer": call("numpy.core.numeric._frombuffer", POINTER, dtype(*FIELD), many(integer(1)), text("C")),
    "ndarray itself": call("numpy.ndarray", many(integer(1)), dtype(*FIELD), POINTER),
    "too few bytes": reconstructed(dtype(*PLAIN), shape=(1000,)),
    "too many bytes": reconstructed(dtype(*PLAIN), shape=()).replace(POINTER, data(b"a" * 16)),
    "negative shape": reconstructed(dtype(*PLAIN), shape=(-1, -1)),
    "huge shape": reconstructed(dtype(*PLAIN), shape=(2**40, 2**40)),
    "huge and empty": reconstructed(dtype(*PLAIN), shape=(2**40, 0)).replace(POINTER, data(b"")),
    "no bytes": reconstructed(dtype(*PLAIN), content=b"](" + integer(1) + b"e"),
    "state for an array": reconstructed(dtype(*PLAIN)) + many(integer(1)) + b"b",
    "byte order": reconstructed(dtype(integer(3), text("x"), *PLAIN[2:])),
}
HOSTILE_TENSORS = {
    "offset beyond": tensor(integer(4), many(integer(1)), many(integer(1))),
    "offset negative": tensor(integer(-1), many(integer(1)), many(integer(1))),
    "size beyond": tensor(integer(0), many(integer(5)), many(integer(1))),
    "stride beyond": tensor(integer(0), many(integer(2)), many(integer(4))),
    "stride negative": tensor(integer(3), many(integer(2)), many(integer(-1))),
    "size negative": tensor(integer(0), many(integer(-2)), many(integer(1))),
    "overflow": tensor(integer(0), many(integer(2**62), integer(2**62)), many(integer(2**62), integer(1))),
    "expanded": tensor(integer(0), many(integer(2**33)), many(integer(0))),
    "empty and wide": tensor(integer(0), many(integer(2**40), integer(0)), many(integer(0), integer(0))),
    "strides missing": tensor(integer(0), many(integer(2)), many()),
    "a float for a size": tensor(integer(0), many(b"G" + struct.pack(">d", 2.0)), many(integer(1))),
    "true for a size": tensor(integer(0), many(b"\x88"), many(integer(1))),
    "numbers that are not there": tensor(integer(0), many(integer(1)), many(integer(1)), numbers=2**40),
    "another type's numbers": tensor(
        integer(0), many(integer(1)), many(integer(1)), kind="torch.DoubleStorage", numbers=4
    ),
    "two types": many(
        tensor(integer(0), many(integer(1)), many(integer(1))),
        tensor(integer(0), many(integer(1)), many(integer(1)), kind="torch.IntStorage"),
    ),
    "no storage": call("torch._utils._rebuild_tensor_v2", data(b"a" * 99), integer(0), many(), many(), b"\x89", b"}"),
    "a storage that is not there": storage(1).replace(text("0"), text("7")),
    "a storage outside": storage(1).replace(text("0"), text("../data.pkl")),
    "a persistent id that is none": text("storage") + b"Q",
    "untyped": storage(16, kind="torch.storage.UntypedStorage"),
    "parameter of bytes": call("torch._utils._rebuild_parameter", data(b"abc"), b"\x88", b"}"),
    "hooks": call("torch._utils._rebuild_tensor_v2", storage(4), integer(0), many(), many(), b"\x89", b"}N\x88s"),
}


@pytest.mark.parametrize("case", HOSTILE_ARRAYS)
def test_arrays_that_hold_more_than_numbers(case, tmp_path):
    refused(write_archive(tmp_path / "x.pt", program(b"}N" + HOSTILE_ARRAYS[case] + b"s"), FOUR))


@pytest.mark.parametrize("case", HOSTILE_TENSORS)
def test_tensors_outside_their_bytes(case, tmp_path):
    refused(write_archive(tmp_path / "x.pt", program(HOSTILE_TENSORS[case]), FOUR))


def test_tensors_that_share_a_storage(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    torch.save({"base": base, "turned": base.T, "row": base[1], "other": base.clone()}, tmp_path / "x.pt")
    found = load(tmp_path / "x.pt")
    assert torch.equal(found["turned"], base.T) and torch.equal(found["row"], base[1])
    found["base"][1, 2] = 70.0
    assert found["turned"][2, 1] == 70 and found["row"][2] == 70 and found["other"][1, 2] == 6


@pytest.mark.parametrize("protocol", (2, 3, 4, 5))
@pytest.mark.parametrize(
    "array",
    (
        np.arange(6, dtype=">i4").reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([True, False]),
        np.array(1 + 2j),
        np.zeros((0, 3), np.uint16),
        np.float16(1.5),
        np.arange(5, dtype=np.int8)[::2],
    ),
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_come_back(array, protocol, tmp_path):
    torch.save([array, array], tmp_path / "x.pt", pickle_protocol=protocol)
    for found in load(tmp_path / "x.pt"):
        assert found.dtype == array.dtype.newbyteorder("=") and found.shape == array.shape
        np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("old", (False, True))
@pytest.mark.parametrize(
    "dtype", ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
)
def test_tensors_come_back(dtype, old, tmp_path):
    kind = getattr(torch, dtype)
    tensors = [torch.tensor([[0, 1], [2, 3]]).to(kind), torch.zeros(0, dtype=kind), torch.tensor(1).to(kind)]
    torch.save(tensors, tmp_path / "x.pt", _use_new_zipfile_serialization=not old)
    for found, wanted in zip(load(tmp_path / "x.pt"), tensors, strict=True):
        assert found.dtype == kind and torch.equal(found, wanted)
