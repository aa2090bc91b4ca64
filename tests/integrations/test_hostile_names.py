"""What strangers' pickles may name: nothing alive is within reach."""

import builtins
import codecs
import collections

import pytest
import torch
from hostile_files import (
    integer,
    many,
    mapping,
    name,
    program,
    refused,
    text,
    write_archive,
)

from specpolicy.integrations.unpickling import load

LIVE = (
    *("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter", "collections.OrderedDict"),
    *("collections.defaultdict", "builtins.dict", "builtins.int", "numpy.dtype", "numpy.ndarray", "torch.Size"),
    *("torch.float32", "torch.Tensor", "_codecs.encode", "numpy.core.multiarray._reconstruct", "typing.Any"),
    *("omegaconf.dictconfig.DictConfig", "dill._dill._load_type", "pathlib.PosixPath", "torch.FloatStorage"),
)
STATE = mapping(
    text("__defaults__"), many(integer(1)), text("__doc__"), text("changed"), text("specpolicy"), integer(1)
)
UNUSED_OPCODES = {
    "EXT1": b"\x82\x01",
    "EXT2": b"\x83\x01\x00",
    "EXT4": b"\x84\x01\x00\x00\x00",
    "INST": b"(ios\nsystem\n",
    "OBJ": b"(" + name("builtins.set") + b"o",
    "PERSID": b"Pstorage\n",
    "NEXT_BUFFER": b"\x97",
    "READONLY_BUFFER": b"\x98",
    "NEWOBJ_EX": name("builtins.set") + b")}\x92",
    "DUP": b"N2",
    "GET": b"g0\n",
    "PUT": b"Np0\n",
    "LONG": b"L9L\n",
    "STRING": b"S'a'\n",
    "UNICODE": b"Va\n",
    "BINSTRING": b"T\x01\x00\x00\x00a",
}


@pytest.mark.parametrize("full", LIVE)
@pytest.mark.parametrize("state", (STATE, b"N" + STATE + b"\x86"), ids=("state", "slots"))
def test_what_is_named_cannot_be_changed(full, state, tmp_path):
    refused(write_archive(tmp_path / "x.pt", program(name(full) + state + b"b")), "asks for a state for a")


def test_nor_was_it(tmp_path):
    documented = codecs.encode, collections.OrderedDict, torch._utils._rebuild_tensor_v2, builtins.dict
    before = [(one.__doc__, getattr(one, "__defaults__", None)) for one in documented]
    for full in LIVE:
        refused(write_archive(tmp_path / "x.pt", program(name(full) + STATE + b"b")))
    assert [(one.__doc__, getattr(one, "__defaults__", None)) for one in documented] == before
    assert not any(hasattr(one, "specpolicy") for one in documented)


@pytest.mark.parametrize(
    "module, last",
    (
        ("numpy", "dtype.__class__"),
        ("numpy", "ndarray.__reduce__"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("torch", "_utils._rebuild_tensor_v2"),
        ("builtins", "dict.fromkeys"),
        ("builtins", "getattr"),
        ("builtins", "object"),
        ("builtins", "type"),
        ("copyreg", "_reconstructor"),
        ("copyreg", "__newobj__"),
        ("functools", "partial"),
        ("operator", "attrgetter"),
        ("torch.storage", "_load_from_bytes"),
        ("torch._utils", "_rebuild_from_type_v2"),
        ("torch._tensor", "_rebuild_from_type_v2"),
        ("torch.nn.modules.linear", "Linear"),
        ("collections", "ChainMap"),
        ("numpy.core.multiarray", "frombuffer"),
        ("dill._dill", "_create_function"),
        ("omegaconf", "OmegaConf"),
        ("", ""),
        ("os\x1b[31m", "system\u2028"),
    ),
)
def test_names_are_compared_whole(module, last, tmp_path):
    stack = text(module) + text(last) + b"\x93"
    refused(write_archive(tmp_path / "x.pt", program(stack + b")R")), "asks for")


@pytest.mark.parametrize(
    "called",
    (b"N", text("os.system"), name("builtins.list"), name("torch.float32"), name("numpy.ndarray"), b"]", b"}"),
)
def test_what_cannot_be_called(called, tmp_path):
    refused(write_archive(tmp_path / "x.pt", program(called + b")R")), "asks for a call of")
    refused(write_archive(tmp_path / "x.pt", program(called + b")\x81")), "asks for an object of")


@pytest.mark.parametrize("opcode", UNUSED_OPCODES)
def test_opcodes_that_no_checkpoint_needs(opcode, tmp_path):
    refused(write_archive(tmp_path / "x.pt", program(UNUSED_OPCODES[opcode])), f"asks for the opcode {opcode}")


def test_names_in_a_content_are_inert(tmp_path):
    found = load(write_archive(tmp_path / "x.pt", program(many(name("builtins.dict"), name("numpy.ndarray")))))
    assert not any(callable(one) or isinstance(one, type) for one in found)


def test_text_that_cannot_be_written(tmp_path):
    path = write_archive(tmp_path / "x.pt", program(mapping(text("\ud800"), b"N")))
    refused(path, "text that is no Unicode")
    assert load(write_archive(tmp_path / "y.pt", program(mapping(text("ä\U0001f916"), b"N")))) == {"ä\U0001f916": None}
