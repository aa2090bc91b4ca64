"""Whatever a file holds, it is opened or refused in one line."""

import random
import zipfile

import numpy as np
import pytest
import torch
from hostile_files import (
    FOUR,
    data,
    integer,
    name,
    program,
    storage,
    text,
    write_archive,
)
from omegaconf import OmegaConf
from test_hostile_names import LIVE

from specpolicy import SpecpolicyError
from specpolicy.integrations.unpickling import load, plain


def mutations(whole, count, seed):
    """Files with bytes changed, missing, twice, or cut off."""
    dice = random.Random(seed)
    for _ in range(count):
        content, place, length = bytearray(whole), dice.randrange(len(whole)), dice.randrange(1, 30)
        match dice.randrange(4):
            case 0:
                content[place] = dice.randrange(256)
            case 1:
                del content[place : place + length]
            case 2:
                content[place:place] = content[place : place + length]
            case 3:
                content[place : place + length] = dice.randbytes(length)
        yield bytes(content)


def streams(count, seed):
    """Pickles of opcodes at random."""
    dice = random.Random(seed)
    full = [*LIVE, "numpy.core.multiarray.scalar", "builtins.set", "builtins.bytearray", "os.system"]
    parts = [name(one) for one in full] + [text("f8"), data(b"abcd"), integer(7), storage(4)]
    parts += [bytes([one]) for one in b"}]()ttRRRbbb000aesuQN\x85\x86\x87\x88\x89\x81\x8f\x90\x91\x94\x93"] * 2
    parts += [b"q" + bytes([n]) for n in range(3)] + [b"h" + bytes([n]) for n in range(3)]
    for _ in range(count):
        yield program(*dice.choices(parts, k=dice.randrange(2, 40)))


@pytest.fixture(scope="class")
def content():
    return {
        "cfg": OmegaConf.create({"a": [1, {"b": "${a}"}]}),
        "state_dicts": {"model": torch.nn.Linear(3, 2).state_dict()},
        "array": np.arange(3.0),
        "number": np.float32(2),
        "set": {1, 2},
        "turned": torch.ones(2, 3).T,
    }


def opened_or_refused(path):
    try:
        found = load(path)
        plain(found.get("cfg") if isinstance(found, dict) else found)
    except SpecpolicyError as error:
        assert "\n" not in str(error) and len(str(error)) < 800
        return False
    return True


@pytest.mark.parametrize("protocol", (2, 4))
def test_pickles_with_faults(content, protocol, tmp_path):
    torch.save(content, tmp_path / "whole.pt", pickle_protocol=protocol)
    with zipfile.ZipFile(tmp_path / "whole.pt") as archive:
        parts = {key.removeprefix("whole/"): archive.read(key) for key in archive.namelist()}
    storages = {key.removeprefix("data/"): value for key, value in parts.items() if key.startswith("data/")}
    results = [
        opened_or_refused(write_archive(tmp_path / "x.pt", pickle, storages))
        for pickle in mutations(parts["data.pkl"], 150, protocol)
    ]
    assert 0 < sum(results) < 100


@pytest.mark.parametrize("old", (False, True))
def test_files_with_faults(content, old, tmp_path):
    torch.save(content, tmp_path / "whole.pt", _use_new_zipfile_serialization=not old)
    for changed in mutations((tmp_path / "whole.pt").read_bytes(), 150, old):
        (tmp_path / "x.pt").write_bytes(changed)
        opened_or_refused(tmp_path / "x.pt")


def test_opcodes_at_random(tmp_path):
    results = [opened_or_refused(write_archive(tmp_path / "x.pt", one, FOUR)) for one in streams(400, 0)]
    assert sum(results) < 200
