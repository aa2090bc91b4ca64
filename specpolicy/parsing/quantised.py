"""Matrices of weights as bytes with a scale for each row: half of half precision, for networks that need not be exact.

A scale has eight significant bits. So the largest number of its row is stored as 127 or -127, products of bytes and
scales are exact in float32, and what was quantised, read and quantised again is the same to the bit.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from specpolicy.parsing.tensors import read_layout, read_tensors

SCALE = ".scale"  # added to the name of a quantised matrix
LEAST = 2**14  # numbers of a matrix that is worth it


def in_half(value: Tensor) -> Tensor:
    """Return a weight as it is stored elsewhere: in half precision, if it is no whole number."""
    return value.half().contiguous() if value.is_floating_point() else value.contiguous()


def quantised(name: str, value: Tensor) -> dict[str, Tensor]:
    """Return what is stored of a weight: a large matrix as bytes (R, C) and scales (R,), anything else in half
    precision."""
    if value.dim() != 2 or value.numel() < LEAST or not value.is_floating_point():
        return {name: in_half(value)}
    value = value.detach().cpu().float()
    scale = (value.abs().amax(dim=1) / 127).bfloat16()
    rows = (value / scale.float().clamp(min=torch.finfo(torch.float32).tiny)[:, None]).round()  # 0 / 0 is 0 here
    return {name: rows.clamp(-127, 127).to(torch.int8), name + SCALE: scale}


def read_quantised(path: str | Path, expected: Mapping[str, Tensor], remedy: str = "") -> dict[str, Tensor]:
    """Return the tensors of a file, floating-point ones and those that are quantised as float32.

    Args:
        path, expected, remedy: see `read_tensors`; any matrix may be quantised.

    Raises:
        SpecpolicyError: see `read_tensors`.
    """
    layout = read_layout(path, remedy)
    matrices = [name for name, value in expected.items() if value.is_floating_point() and value.dim() == 2]
    small = [name for name in matrices if name in layout and layout[name][0] == "I8"]
    stored = dict(expected)
    for name in small:
        stored[name] = torch.empty(expected[name].shape, dtype=torch.int8, device="meta")
        stored[name + SCALE] = torch.empty(len(expected[name]), device="meta")
    found = read_tensors(path, stored, remedy)
    for name in small:
        found[name] = found[name].float() * found.pop(name + SCALE)[:, None]
    return found
