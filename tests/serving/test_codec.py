"""Messages survive the way there and back, and nothing that is no message becomes one."""

import contextlib

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from specpolicy.serving.codec import MOST_OBJECTS, ProtocolError, pack, unpack

openpi = pytest.importorskip("openpi_client.msgpack_numpy")

DTYPES = ("?", "u1", "i2", "<i8", ">i4", "f2", "f4", "f8", "S3", "U2")


def array(**fields):
    """A packed array with some fields replaced."""
    whole = {b"__ndarray__": True, b"data": bytes(8), b"dtype": "<f4", b"shape": [2], **fields}
    return msgpack.packb({key.encode() if isinstance(key, str) else key: value for key, value in whole.items()})


@given(arrays.arrays(st.sampled_from(DTYPES), arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)))
def test_arrays_come_back_the_same_through_our_codec_and_openpis(value):
    for there, back in ((pack, unpack), (openpi.packb, unpack), (pack, openpi.unpackb)):
        found = back(there({"x": value}))["x"]
        assert found.dtype == value.dtype and found.shape == value.shape
        np.testing.assert_array_equal(found, value)


def test_everything_else_that_an_observation_holds_comes_back_the_same():
    message = {"prompt": "grüße", "list": [1, 2.5, None, True], "map": {"a": {}}, "bytes": b"\x00\xff"}
    assert unpack(pack(message)) == unpack(openpi.packb(message)) == message
    scalar = unpack(pack({"x": np.float32(0.1)}))["x"]
    assert scalar == np.float32(0.1) and scalar.dtype == np.float32
    unpack(pack(np.zeros(3)))[0] = 1  # what comes out may be written to
    np.testing.assert_array_equal(unpack(pack(np.arange(12).reshape(3, 4).T)), np.arange(12).reshape(3, 4).T)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"hello",
        pack({"x": 1})[:-1],
        pack({"x": 1}) + b"\x00",
        b"\x91" * 100_000,  # lists in lists
        b"\xdd\xff\xff\xff\xff",  # a list said to have four thousand million entries
        b"\xdb\xff\xff\xff\xffx",
        msgpack.packb(msgpack.ExtType(5, b"x")),
        b"\xa1\xff",  # text that is not UTF-8
        msgpack.packb({1: 2}),
        msgpack.packb([[]] * MOST_OBJECTS),  # a byte each on the way, 56 in memory
        msgpack.packb([[0] * 1000] * (1 + MOST_OBJECTS // 1000)),
        array(dtype="O"),
        array(dtype="O8"),
        array(dtype="f4,f4"),
        array(dtype="c8"),
        array(dtype="V4"),
        array(dtype="(2,)f4"),
        array(dtype="M8[s]"),
        array(dtype="S0"),
        array(dtype="no such type"),
        array(dtype="f" * 1000),
        array(dtype=["f4"]),
        array(shape=[3]),
        array(shape=[-1, -2]),
        array(shape=[2.0]),
        array(shape="2"),
        array(shape=None),
        array(shape=[2**40, 2**40]),
        array(shape=[1] * 33 + [2]),
        array(data="12345678"),
        array(data=None),
        msgpack.packb({b"__npgeneric__": True, b"data": "x", b"dtype": "<f4"}),
        msgpack.packb({b"__npgeneric__": True, b"data": 1, b"dtype": "O"}),
        msgpack.packb({b"__npgeneric__": True}),
    ],
)
def test_what_is_no_message_is_refused_in_one_line(data):
    with pytest.raises(ProtocolError) as caught:
        unpack(data)
    assert len(str(caught.value)) < 300


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(data):
    with contextlib.suppress(ProtocolError):
        unpack(data)


@given(st.data())
def test_a_damaged_message_is_a_message_or_refused(data):
    message = bytearray(pack({"a": np.arange(3), "b": [np.float64(1), "x"]}))
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProtocolError):
        unpack(bytes(message))


@pytest.mark.parametrize("value", [object(), np.array([object()]), np.zeros(1, "f4,f4"), 1j, {1, 2}, 2**70])
def test_what_cannot_be_sent_is_said(value):
    with pytest.raises(ProtocolError):
        pack({"x": value})
