"""Recorded observation histories: what a policy has met in its task, kept as a file. No simulator is needed here."""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from specpolicy.errors import SpecpolicyError
from specpolicy.files import atomic_path
from specpolicy.policy_base import Policy

Histories = dict[str, np.ndarray]  # {key: (N, To, ...)}
FILE = "observations.safetensors"  # beside a checkpoint: observations that it was neither trained nor calibrated on


def write_histories(path: str | Path, histories: Histories) -> None:
    """Write recorded observations as safetensors."""
    with atomic_path(Path(path)) as temporary:
        save_file(histories, temporary)


def read_histories(path: str | Path, policy: Policy) -> Histories:
    """Read observations that were recorded for this policy.

    Raises:
        SpecpolicyError: no such file, a damaged one, one of another policy, or one without observations.
    """
    try:
        histories = load_file(path)
    except FileNotFoundError:
        raise SpecpolicyError(f"no recorded observations at {path}: `specpolicy calibrate` writes them") from None
    except (SafetensorError, OSError) as error:
        raise SpecpolicyError(f"{path} cannot be read ({error}): record the observations again") from None
    missing = [key for key in policy.observation_keys if key not in histories]
    if missing:
        raise SpecpolicyError(f"{path} has no '{missing[0]}': it was recorded for another policy")
    histories = {key: histories[key] for key in policy.observation_keys}
    counts = {len(values) for values in histories.values()}
    if len(counts) != 1 or counts == {0}:
        raise SpecpolicyError(f"{path} holds no observations, or not as many of each key: record them again")
    return histories
