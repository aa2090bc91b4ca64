"""Ways to damage a file that a policy is read from: every value of a JSON file, every tensor, the file itself."""

import copy
import json
import os
import struct

import torch
from safetensors.torch import load_file, save_file

REMOVE, BESIDE = object(), object()
# As JSON text: several are no values that Python would write.
VALUES = {
    "removed": REMOVE,
    "an unknown key beside it": BESIDE,
    "null": "null",
    "true": "true",
    "text": '"text"',
    "control characters": '"\\u001b[2J\\n\\u0000"',
    "-1": "-1",
    "zero": "0",
    "1.5": "1.5",
    "1e-30": "1e-30",
    "1e9": "1000000000",
    "-1e18": "-1000000000000000000",
    "2**70": str(2**70),
    "1e300": "1e300",
    "NaN": "NaN",
    "infinity": "-Infinity",
    "an empty list": "[]",
    "an empty mapping": "{}",
    "lists in lists": "[[1], [1, 2]]",
    "a long list": str(list(range(1, 300))),
    "a mapping": '{"a": {"b": 1}}',
}
MARK = "\u2603"  # stands for the damage until the text is written


def fields(value, path=()):
    """The paths of all values of nested mappings; of a list of numbers the first stands for all."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield (*path, key)
            yield from fields(one, (*path, key))
    elif isinstance(value, list) and value:
        yield (*path, 0)
        yield from fields(value[0], (*path, 0))


def damaged_json(content, path, how):
    """The text of a JSON file in which one value is another; None where that makes no sense."""
    content = copy.deepcopy(content)
    inside = content
    for key in path[:-1]:
        inside = inside[key]
    if VALUES[how] is REMOVE:
        del inside[path[-1]]
        return json.dumps(content)
    if VALUES[how] is BESIDE:
        if isinstance(inside, list):
            return None
        inside["zzz_unknown"] = 1
        return json.dumps(content)
    inside[path[-1]] = MARK
    return json.dumps(content, ensure_ascii=False).replace(f'"{MARK}"', VALUES[how])


TENSORS = {
    "removed": lambda value: None,
    "NaN": lambda value: value.float().fill_(float("nan")),
    "infinity": lambda value: value.float().fill_(-float("inf")),
    "too large for float32": lambda value: value.double().fill_(1e300),
    "integers": lambda value: value.to(torch.int64),
    "booleans": lambda value: value.to(torch.bool),
    "complex": lambda value: value.to(torch.complex64),
    "eight bits": lambda value: value.to(torch.float8_e4m3fn),
    "one more axis": lambda value: value[None].contiguous(),
    "one axis less": lambda value: value.flatten()[:-1].clone() if value.dim() < 2 else value.flatten(),
    "empty": lambda value: value.flatten()[:0].clone(),
}


def damage_tensor(path, name, how):
    """Change one tensor of a safetensors file; `name` None: add one."""
    tensors = load_file(path)
    if name is None:
        tensors["zzz_unknown\n"] = torch.zeros(2)
    else:
        changed = TENSORS[how](tensors.pop(name))
        if changed is not None:
            tensors[name] = changed
    save_file(tensors, path)


def _rewritten(change):
    def damage(path):
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(change(content))

    return damage


def _replaced(make):
    def damage(path):
        path.unlink()
        make(path)

    return damage


def _sparse(path):
    content = path.read_bytes()
    with open(path, "wb") as file:
        file.write(content)
        file.truncate(2**40)


FILES = {
    "missing": lambda path: path.unlink(),
    "a directory": _replaced(lambda path: path.mkdir()),
    "a pipe": _replaced(os.mkfifo),
    "a link to /dev/zero": _replaced(lambda path: path.symlink_to("/dev/zero")),
    "a link to nothing": _replaced(lambda path: path.symlink_to("nowhere")),
    "a link to itself": _replaced(lambda path: path.symlink_to(path.name)),
    "empty": _rewritten(lambda content: b""),
    "seven bytes": _rewritten(lambda content: content[:7]),
    "cut in the middle": _rewritten(lambda content: content[: len(content) // 2]),
    "cut at the end": _rewritten(lambda content: content[:-3]),
    "zeros": _rewritten(lambda content: bytes(len(content))),
    "random bytes": _rewritten(lambda content: bytes((17 * i + 5) % 256 for i in range(4000))),
    "a header of 2**62 bytes": _rewritten(lambda content: struct.pack("<Q", 2**62) + content[8:]),
    "a header of 20 MiB": _rewritten(lambda content: struct.pack("<Q", 20 * 2**20) + b"{" + b" " * (20 * 2**20 - 1)),
    "a header of brackets": _rewritten(lambda content: struct.pack("<Q", 10**6) + b"[" * 10**6),
    "a tensor that is not there": _rewritten(
        lambda content: (lambda h: struct.pack("<Q", len(h)) + h)(
            b'{"a":{"dtype":"F32","shape":[100000,100000],"data_offsets":[0,40000000000]}}'
        )
    ),
    "text": _rewritten(lambda content: b"hello"),
    "JSON of brackets": _rewritten(lambda content: b"[" * 10**6),
    "9 MiB of JSON": _rewritten(lambda content: b'{"a": "' + b"a" * (9 * 2**20) + b'"}'),
    "a terabyte of nothing behind it": _sparse,
}
