"""What a pickle may ask for, what is refused, and what stands for configuration objects."""

import os
import pickle
from collections import OrderedDict, defaultdict
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from specpolicy import SpecpolicyError, load_policy
from specpolicy.integrations.unpickling import load, plain


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", (2, 4, 5))
def test_what_checkpoints_hold_comes_back(protocol, tmp_path):
    content = {
        "tensor": torch.arange(6.0).reshape(2, 3),
        "half": torch.ones(2, dtype=torch.float16),
        "parameter": torch.nn.Parameter(torch.zeros(2)),
        "ordered": OrderedDict(a=1),
        "default": defaultdict(dict, x={"y": 2**70}),
        "array": np.arange(3.0),
        "number": np.float32(2.5),
        "bytes": b"\x80\x04N.",
        "type": torch.float32,
        "size": torch.Size([2, 3]),
        "text": "ä",
    }
    torch.save(content, tmp_path / "file.pt", pickle_protocol=protocol)
    found = load(tmp_path / "file.pt")
    assert list(found) == list(content)
    for name, value in content.items():
        assert (
            (np.asarray(found[name]) == np.asarray(value)).all()
            if name in ("tensor", "array")
            else found[name] is not None
        )
    assert found["default"]["x"]["y"] == 2**70 and found["bytes"] == b"\x80\x04N." and found["number"] == 2.5
    assert (
        torch.equal(found["parameter"], torch.zeros(2)) and found["size"] == (2, 3) and found["type"] is torch.float32
    )


@pytest.mark.parametrize("old", (False, True))
def test_state_of_a_training_comes_back(old, tmp_path):
    parameter = torch.nn.Parameter(torch.ones(2))
    optimiser = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimiser.step()
    schedules = (
        torch.optim.lr_scheduler.MultiStepLR(optimiser, [2, 2, 7]),
        torch.optim.lr_scheduler.LinearLR(optimiser),
        torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 0.5**step),
        torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser),
    )
    content = {
        "optimiser": optimiser.state_dict(),
        "schedules": [schedule.state_dict() for schedule in schedules],
        "paths": [str(PurePosixPath(one)) for one in ("/a/b", "a/b", "/", "")],
    }
    paths = [Path(one) for one in content["paths"]]
    torch.save({**content, "paths": paths}, tmp_path / "x.pt", _use_new_zipfile_serialization=not old)
    found = load(tmp_path / "x.pt")
    assert found["schedules"] == content["schedules"] and found["paths"] == content["paths"]
    assert torch.equal(found["optimiser"]["state"][0]["exp_avg"], optimiser.state[parameter]["exp_avg"])
    assert found["optimiser"]["param_groups"] == content["optimiser"]["param_groups"]


def test_the_oldest_format_of_torch(tmp_path):
    torch.save({"x": torch.ones(3)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(load(tmp_path / "old.pt")["x"], torch.ones(3))
    torch.save({"x": Call(os.getcwd)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(SpecpolicyError, match=r"asks for posix\.getcwd"):
        load(tmp_path / "old.pt")


@pytest.mark.parametrize(
    "call, name",
    (
        ((os.system, "touch {}"), "posix.system"),
        ((eval, "open('{}', 'w')"), "builtins.eval"),
        ((exec, "open('{}', 'w')"), "builtins.exec"),
        ((getattr, os, "system"), "builtins.getattr"),
        ((pickle.loads, b""), "pickle.loads"),
        ((torch.hub.load, "{}"), "torch.hub.load"),
        ((torch.storage._load_from_bytes, b""), "torch.storage._load_from_bytes"),
        ((np.load, "{}"), "numpy.load"),
    ),
    ids=lambda part: part if isinstance(part, str) else part[0].__name__,
)
def test_code_is_refused_by_name_and_does_not_run(call, name, tmp_path):
    mark = tmp_path / "ran"
    function, *arguments = (part.format(mark) if isinstance(part, str) else part for part in call)
    if function is getattr:
        arguments = ["text", "upper"]
    path = tmp_path / "evil.ckpt"
    torch.save({"state_dicts": {}, "cfg": Call(function, *arguments)}, path)
    with pytest.raises(SpecpolicyError) as error:
        load_policy(path)
    short = name.replace("builtins", "__builtin__")
    assert (name in str(error.value) or short in str(error.value)) and "trust=true" in str(error.value)
    assert not mark.exists()


def test_trust_opens_what_the_list_does_not_have(tmp_path):
    path = tmp_path / "file.pt"
    torch.save({"where": Call(os.getcwd)}, path)
    assert load(path, trust=True) == {"where": os.getcwd()}


def test_a_package_that_is_missing_is_named(tmp_path):
    path = tmp_path / "file.pt"
    torch.save({"where": Call(os.getcwd)}, path)
    path.write_bytes(path.read_bytes().replace(b"posix", b"nosix"))
    with pytest.raises(SpecpolicyError, match=r"cannot be read|needs the package nosix"):
        load(path, trust=True)


def test_configurations_become_plain_without_omegaconf(tmp_path):
    cfg = {
        "a": {"b": [1, 2.5, "x", None, True]},
        "link": "${a.b}",
        "list": [{"deep": [[]]}],
        "empty": {},
        "missing": "???",
    }
    torch.save({"cfg": OmegaConf.create(cfg)}, tmp_path / "file.pt")
    assert plain(load(tmp_path / "file.pt")["cfg"]) == cfg
    assert plain(OmegaConf.create(cfg)) == cfg
    assert plain(load(tmp_path / "file.pt", trust=True)["cfg"]) == cfg


def test_no_file(tmp_path):
    with pytest.raises(SpecpolicyError, match="no policy at"):
        load(tmp_path / "absent.pt")
