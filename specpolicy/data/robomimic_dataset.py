"""Training sequences from robomimic HDF5, read by robomimic's own `SequenceDataset`."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch

from specpolicy.data.episodes import Sequences
from specpolicy.errors import SpecpolicyError


def load_sequences(
    path: str | Path,
    observation_keys: Sequence[str],
    n_obs_steps: int,
    horizon: int,
    split: str | None = "train",
    validation: float = 0.1,
) -> Sequences:
    """See `specpolicy.data.dataset.load_sequences`. split: a filter key; the file itself says what `validation` is."""
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


def observation_keys(path: str | Path) -> list[str]:
    """See `specpolicy.data.dataset.observation_keys`."""
    check_file(path, [], None)
    with h5py.File(path, "r") as file:
        return sorted(next(iter(file["data"].values()))["obs"])


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
