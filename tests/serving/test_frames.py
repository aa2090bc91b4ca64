"""Observations become numbers by one door: whatever else a client may send is refused by its name."""

import msgpack
import numpy as np
import pytest

from specpolicy import SpecpolicyError
from specpolicy.serving.codec import ProtocolError, pack, unpack
from specpolicy.serving.frames import read_frames

STEPS = 2


def array(**fields):
    """A packed array (2,) of float32 with some fields replaced."""
    whole = {b"__ndarray__": True, b"data": bytes(8), b"dtype": "<f4", b"shape": [2]}
    return msgpack.packb({**whole, **{name.encode(): value for name, value in fields.items()}})


def scalar(dtype, data):
    return msgpack.packb({b"__npgeneric__": True, b"dtype": dtype, b"data": data})


NESTED = 0.0
for _ in range(500):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    "value, complaint",
    [
        ("left", "dtype str"),
        (None, "dtype object"),
        (b"\x00\x00\x00\x00", "dtype bytes"),
        ({"a": 1}, "dtype dict"),
        (["x" * 1000, ""], "dtype str"),
        ([1.0, ""], "not an array of numbers"),
        ([1.0, None], "not an array of numbers"),
        ([1.0, [1.0]], "not an array of numbers"),
        ([1.0, {}], "not an array of numbers"),
        ([None, 1.0], "dtype object"),
        ([[1.0, 2.0], [1.0]], "not an array of numbers"),
        ([[1.0, 2.0], 1.0], "not an array of numbers"),
        ([], r"shape \(0,\)"),
        ([[], []], r"shape \(2, 0\)"),
        ([1.0], r"shape \(1,\)"),
        ([1.0] * 3, r"shape \(3,\)"),
        ([[1.0, 2.0]] * 3, r"shape \(3, 2\)"),
        ([[[1.0], [2.0]]] * 2, "lists in each other"),
        (NESTED, "lists in each other"),
        (1.0, r"shape \(\)"),
        (True, r"shape \(\)"),
        (np.float32(1), r"shape \(\)"),
        ([2**70, 0], "dtype object"),
        ([np.array([1.0, 2.0]), np.array([1.0])], "not an array of numbers"),
        ([np.array(["a", "b"])], "dtype <U1"),
        (np.array(["a", "b"]), "dtype <U1"),
        (np.array([None, 1]), "dtype object"),
        (np.zeros(2, complex), "dtype complex128"),
        (np.zeros(2, "f4,f4"), "dtype"),
        (np.zeros(2, "M8[s]"), "dtype datetime64"),
        (np.zeros((0, 2)), r"shape \(0, 2\)"),
        (np.zeros((2, 2, 2)), r"shape \(2, 2, 2\)"),
        (np.array([np.nan, 0]), "not finite"),
        (np.array([0, -np.inf]), "not finite"),
        ([float("nan"), 0.0], "not finite"),
        (np.array([1e300, 0]), "not finite in float32"),
        (np.array([0, -3.5e38]), "not finite in float32"),
        ([1e300, 0.0], "not finite in float32"),
        ([[0.0, 0.0], [0, 1e300]], "not finite in float32"),
        (np.array([1e300, 0], ">f8"), "not finite in float32"),
        ([np.float64(1e300), 0.0], "not finite in float32"),
    ],
)
def test_what_is_no_observation_is_refused_in_one_line(value, complaint):
    with pytest.raises(ProtocolError, match=complaint) as caught:
        read_frames("state", value, (2,), STEPS)
    assert "'state'" in str(caught.value) and len(str(caught.value)) < 200


@pytest.mark.parametrize("dtype", ("f2", "<f4", ">f4", "<f8", ">f8", "u1", ">i2", "<i4", "<u8", "?"))
def test_numbers_of_every_kind_and_byte_order_are_the_same_numbers(dtype):
    sent = np.array([0, 1], dtype)
    frames = read_frames("state", unpack(pack(sent)), (2,), STEPS)
    assert frames.shape == (1, 2) and frames.astype(float).tolist() == [[0, 1]]
    assert frames.dtype == np.float32
    assert read_frames("state", [sent, sent], (2,), STEPS).astype(float).tolist() == [[0, 1], [0, 1]]


def test_lists_of_numbers_are_the_same_numbers():
    for value in ([0.5, 2], [True, 2.0], [np.float32(0.5), 2], (0.5, 2)):
        assert read_frames("state", value, (2,), STEPS).tolist() == [[float(value[0]), 2]]


IMAGE = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
LAST = np.moveaxis(IMAGE, 0, -1)


@pytest.mark.parametrize(
    "sent",
    [IMAGE, LAST, IMAGE / 255, (IMAGE / 255).tolist(), (LAST / 255).astype(">f4"), list(LAST)],
    ids=("bytes", "channels last", "floats", "lists", "big endian", "a list of arrays"),
)
def test_images_are_the_same_numbers_however_they_are_sent(sent):
    found = read_frames("image", sent, (2, 3, 4), STEPS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, IMAGE[None] / 255, atol=1e-7)
    np.testing.assert_array_equal(read_frames("image", [sent, sent], (2, 3, 4), STEPS), [found[0], found[0]])


@pytest.mark.parametrize(
    "sent",
    [IMAGE.tolist(), IMAGE.astype(float), IMAGE.astype(">i2"), IMAGE / 255 - 1, IMAGE > 3],
    ids=("whole numbers", "floats of bytes", "short", "below zero", "true and false"),
)
def test_images_of_an_unknown_scale_are_refused(sent):
    with pytest.raises(SpecpolicyError, match=r"give .*bytes \(uint8\)"):
        read_frames("image", sent, (2, 3, 4), STEPS)


DARK, HALF = np.ones((2, 3, 4), np.uint8), np.full((2, 3, 4), 0.5, np.float32)


@pytest.mark.parametrize(
    "sent",
    [[DARK, HALF], [HALF, DARK], [DARK[0], HALF[0]], [DARK[0], HALF[0].tolist()], [[*DARK[0]], [*HALF[0]]]],
    ids=("frames", "floats first", "channels", "with a list", "rows"),
)
def test_bytes_are_not_mixed_with_floats(sent):
    with pytest.raises(ProtocolError, match="'image' mixes bytes with other numbers"):
        read_frames("image", sent, (2, 3, 4), STEPS)


@pytest.mark.parametrize(
    "data",
    [
        array(dtype="O"), array(dtype="|O8"), array(dtype="c8"), array(dtype="f4,f4"), array(dtype="V4"),
        array(dtype="M8[s]"), array(dtype="m8"), array(dtype="(2,)f4"), array(dtype="2f4"), array(dtype="f4,"),
        array(dtype="<f16"), array(dtype="g"), array(dtype="longdouble"), array(dtype="S0"), array(dtype="U0"),
        array(dtype="S999999999999999", shape=[0], data=b""), array(dtype="U99999999999", shape=[0], data=b""),
        array(dtype="<U536870911", shape=[0], data=b""), array(dtype=4), array(dtype=None), array(dtype=b"<f4"),
        array(dtype="?", data=b"\x00\x02"), array(dtype="<U1", data=b"\xff" * 8), array(dtype=">U1", data=b"\xff" * 8),
        array(shape=[-2]), array(shape=[-1, -2]), array(shape=[True, 2]), array(shape=[2.0]), array(shape=["2"]),
        array(shape=[[2]]), array(shape=None), array(shape=2), array(shape={}), array(shape=[2**31, 0]),
        array(shape=[2**63, 2**63]), array(shape=[0, 2**40]), array(shape=[2] + [1] * 40), array(shape=[3]),
        array(shape=[1]), array(shape=[]), array(shape=[0]), array(data=bytes(7)), array(data=bytes(9)),
        array(data=b""), array(data="\0" * 8), array(data=[0.0, 0.0]), array(data=None), array(__ndarray__=False),
        array(__ndarray__=None), array(strides=[0]), array(__npgeneric__=True),
        array(shape=[0] + [2**31 - 1] * 8, data=b""),
        msgpack.packb({b"__ndarray__": True}), msgpack.packb({b"__npgeneric__": True, b"dtype": "<f4"}),
        scalar("<f4", "1"), scalar("<f4", b"1"), scalar("<f4", True), scalar("<f4", None), scalar("<f4", [1.0]),
        scalar("<i4", 2**40), scalar("<i4", 1.5), scalar("<i4", True), scalar("|u1", -1), scalar("?", 1),
        scalar("?", [True]), scalar("<U1", b"a"), scalar("|S1", "a"), scalar("<U3", ["abc"]), scalar("|O", 1),
        scalar("<c8", 1.0), scalar("<M8[s]", 1),
        msgpack.packb({b"state": 1}), msgpack.packb({1: 2}), b"\x81\xc0\x01", b"\x81\x90\x01", b"\x81\xc3\x01",
        b"\x82\xa1a\x01\xa1a\x02", b"\x82\xc4\x01a\x01\xc4\x01a\x02", b"\x81\xa1x\x82\xa1a\x01\xa1a\x01",
        b"\x85" + b"\xc4\x0b__ndarray__\xc3" * 2 + array()[1 + 14 :],
    ],
)  # fmt: skip
def test_what_is_no_array_and_no_map_is_refused_in_one_line(data):
    with pytest.raises(ProtocolError) as caught:
        unpack(data)
    assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)


def test_scalars_come_back_in_their_dtype():
    for value in (np.float32(0.1), np.float16(2), np.int8(-1), np.uint64(2**64 - 1), np.bool_(True)):
        back = unpack(pack({"x": value}))["x"]
        assert back == value and back.dtype == value.dtype
