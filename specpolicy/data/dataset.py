"""Training sequences from robomimic HDF5, read by robomimic's own `SequenceDataset`."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from specpolicy.errors import SpecpolicyError


@dataclass
class Sequences:
    """All training windows of a data set: observation {key: (N, To, D_key)} and action (N, H, D), float32."""

    observation: dict[str, Tensor]
    action: Tensor

    def __len__(self) -> int:
        return len(self.action)

    def ranges(self) -> dict[str, tuple[Tensor, Tensor]]:
        """(minimum, maximum) of each dimension, by key; the actions under 'action'."""
        arrays = {**self.observation, "action": self.action}
        return {key: (x.flatten(0, 1).amin(0), x.flatten(0, 1).amax(0)) for key, x in arrays.items()}


def load_sequences(
    path: str | Path, observation_keys: Sequence[str], n_obs_steps: int, horizon: int, split: str | None = "train"
) -> Sequences:
    """Cut every demonstration of `split` (a robomimic filter key, None: all) into overlapping windows.

    Window i of a demonstration holds the observations i - To + 1 ... i and the actions i - To + 1 ... i - To + H;
    beyond both ends of a demonstration its first and last entries are repeated, as robomimic does.
    """
    check_file(path, observation_keys, split)
    try:
        with _quiet():
            from robomimic.utils.dataset import SequenceDataset
            from robomimic.utils.obs_utils import initialize_obs_modality_mapping_from_dict
    except ModuleNotFoundError as error:
        raise SpecpolicyError(
            f"reading demonstrations needs robomimic ({error}): pip install 'specpolicy[train]'"
        ) from None
    initialize_obs_modality_mapping_from_dict({"low_dim": list(observation_keys)})
    with _quiet():
        dataset = SequenceDataset(
            hdf5_path=str(path),
            obs_keys=list(observation_keys),
            dataset_keys=("actions",),
            frame_stack=n_obs_steps,
            seq_length=horizon - n_obs_steps + 1,
            pad_frame_stack=True,
            pad_seq_length=True,
            load_next_obs=False,
            hdf5_cache_mode="low_dim",
            hdf5_use_swmr=True,
            hdf5_normalize_obs=False,
            filter_by_attribute=split,
        )
    windows = [dataset[index] for index in range(len(dataset))]
    dataset.close_and_delete_hdf5_handle()
    observation = {
        key: torch.from_numpy(np.stack([window["obs"][key][:n_obs_steps] for window in windows])).float()
        for key in observation_keys
    }
    return Sequences(observation, torch.from_numpy(np.stack([window["actions"] for window in windows])).float())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """robomimic greets on import and prints while it reads."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def check_file(path: str | Path, observation_keys: Sequence[str], split: str | None) -> None:
    """Raise one clear line for whatever would make the data set unusable further on."""
    if not Path(path).exists():
        raise SpecpolicyError(f"no demonstrations at {path}: record some with 'specpolicy collect', or give data=FILE")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise SpecpolicyError(f"{path} is not a readable HDF5 file ({error})") from None
    with file:
        if "data" not in file or not len(file["data"]):
            raise SpecpolicyError(f"{path} has no demonstrations under 'data': it is not a robomimic file")
        if split is not None and f"mask/{split}" not in file:
            raise SpecpolicyError(
                f"{path} has no filter key 'mask/{split}': split it, or give validation and train keys"
            )
        widths: dict[str, int] = {}
        for name, demo in file["data"].items():
            if "actions" not in demo or "obs" not in demo:
                raise SpecpolicyError(f"{path}: data/{name} lacks 'actions' or 'obs'")
            for key in observation_keys:
                if key not in demo["obs"]:
                    present = ", ".join(sorted(demo["obs"]))
                    raise SpecpolicyError(f"{path}: data/{name}/obs has no key '{key}' (it has {present})")
            length = len(demo["actions"])
            for key in ("actions", *(f"obs/{key}" for key in observation_keys)):
                array = demo[key]
                width = widths.setdefault(key, array.shape[-1])
                if array.ndim != 2 or array.shape != (length, width):
                    raise SpecpolicyError(
                        f"{path}: data/{name}/{key} has shape {array.shape}, expected ({length}, {width})"
                    )
                if not np.isfinite(array[()]).all():
                    raise SpecpolicyError(f"{path}: data/{name}/{key} has values that are not finite")
