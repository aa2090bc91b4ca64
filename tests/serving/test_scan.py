"""A message is measured before anything is made of it: memory and time are those of what a policy observes."""

import struct
import tracemalloc

import msgpack
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from services import Counting, frame

from specpolicy.serving.codec import Limits, ProtocolError, pack, unpack
from specpolicy.serving.protocol import read_request, request_limits
from specpolicy.serving.scan import check_size

SHAPES, STEPS = Counting.shapes, Counting.n_obs_steps
LIMITS = request_limits(SHAPES, STEPS)


def read(data):
    """A request, as the server reads it."""
    return read_request(unpack(data, LIMITS), SHAPES, STEPS)


def lists(levels, innermost=b"\x01"):
    """Lists of one entry in each other."""
    return b"\x91" * levels + innermost


ENTRIES = 30_000
HOSTILE = {
    "a long text and many empty ones": pack({**frame(1), "step": ["x" * 15_000] + [""] * ENTRIES}),
    "the same below a key that nobody knows": pack({**frame(1), "prompt": ["x" * 15_000] + [""] * ENTRIES}),
    "a text, then a list as long as it may be": pack({**frame(1), "step": ["x" * 60_000] + [""] * 2000}),
    "many numbers": pack({**frame(1), "step": [0] * ENTRIES}),
    "many lists of numbers": pack({**frame(1), "step": [[0.5]] * ENTRIES}),
    "many empty lists": pack({**frame(1), "step": [[]] * ENTRIES}),
    "many empty maps": pack({**frame(1), "step": [{}] * ENTRIES}),
    "many keys": pack({**frame(1), **{str(number): 0 for number in range(ENTRIES)}}),
    "many texts in other keys": pack({**frame(1), "prompt": ["ab"] * ENTRIES}),
    "lists in lists": b"\x81\xa4step" + lists(40_000),
    "maps in maps": b"\x81\xa4step" + b"\x81\xa1x" * 20_000 + b"\x01",
    "lists that say how long they are, in each other": b"\x81\xa4step" + b"\xdd\x00\x01\x00\x00" * 8000,
    "maps that say how long they are, in each other": b"\x81\xa4step" + b"\xdf\x00\x01\x00\x00\xa1x" * 8000,
    "a list of four thousand million": b"\x81\xa4step\xdd\xff\xff\xff\xff" + b"\x01" * ENTRIES,
    "a map of four thousand million": b"\xdf\xff\xff\xff\xff" + b"\xa1x\x01" * 10_000,
    "a text of four gigabytes": b"\x81\xa4step\xdb\xff\xff\xff\xff" + b"x" * ENTRIES,
    "bytes of four gigabytes": b"\x81\xa4step\xc6\xff\xff\xff\xff" + b"x" * ENTRIES,
    "a long text as a key": pack({**frame(1), "x" * 70_000: 1}),
    "an extension": b"\x81\xa4step" + msgpack.packb(msgpack.ExtType(5, b"x" * ENTRIES)),
    "an empty extension": b"\x81\xa4step\xc7\x00\x05",
    "a time stamp": b"\x81\xa4step" + msgpack.packb(msgpack.Timestamp(1)),
    "a scalar made of a list": msgpack.packb(
        {b"__npgeneric__": True, b"dtype": "<f8", b"data": ["x" * 15_000] + [""] * 2000}
    ),
    "a scalar made of a text": msgpack.packb({b"__npgeneric__": True, b"dtype": "<f8", b"data": "1e5"}),
    "many scalars": pack({**frame(1), "step": [np.float32(1)] * 10_000}),
    "an array in an array's data": msgpack.packb(
        {b"__ndarray__": True, b"dtype": "<f8", b"shape": [1], b"data": {b"__ndarray__": True}}
    ),
    "cut off": pack(frame(1))[:-1],
    "goes on": pack(frame(1)) + b"\x01",
    "nothing": b"",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_request_is_refused_and_takes_no_more_memory_than_its_bytes(case):
    data = HOSTILE[case]
    read(pack(frame(1)))  # what is made once is made
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError) as caught:
            read(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
    assert peak < 4 * len(data) + 2**20


@pytest.mark.parametrize("ignored", [{}, {"prompt": "lift"}, {"images": {"top": np.zeros((480, 640, 3), np.uint8)}}])
def test_what_a_client_may_send_is_read(ignored):
    whole = {"step": [[1.0], [2]], "image": np.zeros((2, 3, 4, 5)).tolist()}  # numbers as lists, all frames at once
    for message in (frame(1), whole, {**frame(1), "reset": True, "seed": 3}, {"reset": True}):
        request = read(pack({**message, **ignored}))
        assert not request.frames or set(request.frames) == set(SHAPES)


def test_a_large_message_takes_a_few_times_its_bytes():
    data = pack({**frame(1), "camera": np.zeros(2**22, np.uint8)})
    tracemalloc.start()
    try:
        read(data)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(data)
    finally:
        tracemalloc.stop()


@example(b"\x84\x00\x00\x00\x00\x90\x00\x00")
@given(st.binary(max_size=60))
def test_what_is_measured_is_what_is_decoded(data):
    """msgpack and we agree on where a message ends, but for what it refuses itself: extensions, keys, bad text."""
    try:
        check_size(data, Limits())
    except ProtocolError as error:
        if "extension" not in str(error):
            # A list as a key is refused by msgpack where it stands, before it can see how the message ends.
            with pytest.raises((ValueError, TypeError, msgpack.exceptions.UnpackException)):
                msgpack.unpackb(data, strict_map_key=False)
        return
    try:
        msgpack.unpackb(data, strict_map_key=False)
    except msgpack.exceptions.ExtraData as error:
        raise AssertionError from error
    except (ValueError, TypeError) as error:  # a list as a key, text that is none
        assert "incomplete" not in str(error)


TREES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=40), inner),
    max_leaves=20,
)


def parts(tree):
    """A message's parts, counted on what it means."""
    if isinstance(tree, dict):
        return 1 + sum(1 + parts(value) for value in tree.values())
    return 1 + sum(map(parts, tree)) if isinstance(tree, list) else 1


@given(TREES)
def test_a_message_passes_with_as_many_parts_as_it_has_and_not_with_one_less(tree):
    data, count = msgpack.packb(tree), parts(tree)
    check_size(data, Limits(parts=count, depth=100))
    if count > 1:
        with pytest.raises(ProtocolError, match="parts"):
            check_size(data, Limits(parts=count - 1, depth=100))


def test_depth_and_text_are_counted_to_the_last_one():
    check_size(lists(3), Limits(depth=3))
    with pytest.raises(ProtocolError, match="in each other"):
        check_size(lists(4), Limits(depth=3))
    check_size(msgpack.packb("x" * 100), Limits(text=100))
    with pytest.raises(ProtocolError, match="a text of 101 bytes"):
        check_size(msgpack.packb("x" * 101), Limits(text=100))


def test_the_size_is_read_however_many_bytes_tell_it():
    for size in (0, 15, 16, 31, 32, 255, 256, 65_535, 65_536):
        for value in ("x" * size, b"x" * size, [None] * size, {str(number): None for number in range(size)}):
            check_size(msgpack.packb(value), Limits(text=10**6))
    check_size(b"\xca" + struct.pack(">f", 1.0), Limits())
