"""Recorded observation histories of a policy in its task, kept as a file. Needs no simulator."""

import os
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from specpolicy.errors import SpecpolicyError
from specpolicy.files import atomic_path
from specpolicy.parsing.tensors import opened, read_layout
from specpolicy.policy.base import Policy

REMEDY = "record the observations again"
KINDS = ("F16", "F32", "F64", "U8", "I8", "I16", "I32", "I64")  # safetensors' names of the number types
Histories = dict[str, np.ndarray]  # {key: (N, To, ...)}
FILE = "observations.safetensors"  # beside a checkpoint: observations not used in training or calibration


def write_histories(path: str | Path, histories: Histories) -> None:
    """Write recorded observations as safetensors."""
    with atomic_path(Path(path)) as temporary:
        save_file(histories, temporary)


def read_histories(path: str | Path, policy: Policy) -> Histories:
    """Read observations that were recorded for this policy.

    Raises:
        SpecpolicyError: no such file, a damaged one, one of another policy, or one without observations.
    """
    if not os.path.lexists(path):
        raise SpecpolicyError(f"no recorded observations at {path}: `specpolicy calibrate` writes them")
    layout = read_layout(path, REMEDY)
    for key in policy.observation_keys:
        if key not in layout:
            raise SpecpolicyError(f"{path} has no '{key}': it was recorded for another policy")
        kind, shape = layout[key]
        frames = policy.frame_shape(key)
        # The channels of images may come last.
        fits = len(shape) == 1 + len(frames) and shape[1] == frames[0] and sorted(shape[2:]) == sorted(frames[1:])
        if kind not in KINDS or not fits:
            raise SpecpolicyError(
                f"{path} holds '{key}' as {kind} of shape {shape}, the policy sees {frames}: it was recorded for "
                "another policy"
            )
    counts = {layout[key][1][0] for key in policy.observation_keys}
    if len(counts) != 1 or counts == {0}:
        raise SpecpolicyError(f"{path} holds no observations, or not as many of each key: {REMEDY}")
    with opened(path, "numpy", REMEDY) as tensors:
        histories = {key: tensors.get_tensor(key) for key in policy.observation_keys}
    for key, values in histories.items():
        if not np.isfinite(values).all():
            raise SpecpolicyError(f"{path} holds values of '{key}' that are not finite: {REMEDY}")
    return histories
