"""Where the robot will be when a chunk can be used: a small linear model of the actions that are executed until then.

A Smith predictor (Smith 1957): in place of what is seen now, the policy observes what is predicted for the step from
which its chunk counts. VLASH (arXiv 2512.01031) does so for the robot's own state. The model is a ridge regression of
the change of each observed vector within d steps on the last frames and the d actions, one for each d. Vectors of the
scene that are relative to the gripper move with it, so they are predicted by the same regression. Images stay those of
the newest frame.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from specpolicy.committed import PREDICTED, Committed
from specpolicy.errors import SpecpolicyError
from specpolicy.files import atomic_path, write_text
from specpolicy.parsing import check_ranges, parse, read_json
from specpolicy.parsing.tensors import check_finite, read_tensors
from specpolicy.policy.observations import checked_frames

WEIGHTS, SETTINGS = "prediction.safetensors", "prediction.json"
REMEDY = "train the policy anew, or delete prediction.json and prediction.safetensors"


@dataclass(frozen=True)
class PredictorOptions:
    """Sizes of a predictor, and contents of prediction.json.

    Attributes:
        keys: dimension of each predicted vector.
        n_obs_steps: frames that it sees.
        action_dim: numbers of an action.
        steps: most steps that it looks ahead.
        errors: on held-out demonstrations, by steps ahead, root mean square over that of the held state.
    """

    keys: Mapping[str, int]
    n_obs_steps: int
    action_dim: int
    steps: int
    errors: Sequence[float] = ()
    format: Literal[1] = 1

    def __post_init__(self) -> None:
        check_ranges(self, n_obs_steps=(1, 4096), action_dim=(1, 65536), steps=(1, 4096))

    @property
    def inputs(self) -> int:
        """Numbers that the prediction is made from."""
        return self.n_obs_steps * self.outputs + self.steps * self.action_dim

    @property
    def outputs(self) -> int:
        """Numbers that are predicted."""
        return sum(self.keys.values())


@dataclass
class StatePredictor:
    """Predicts vectors of the observation.

    Attributes:
        options: its sizes.
        weight: (steps, inputs, outputs): change within 1, 2, ... steps; rows of later actions are zero.
        bias: (steps, outputs).
    """

    options: PredictorOptions
    weight: Tensor
    bias: Tensor

    def predict(self, frames: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Return the vectors (N, outputs) after these actions.

        Args:
            frames: (N, To, outputs) the last frames, the newest last, as `joined` makes them.
            actions: (N, d, D) the actions from the newest frame on, in the environment's units.
        """
        count = actions.shape[1]
        given = np.concatenate([frames.reshape(len(frames), -1), actions.reshape(len(actions), -1)], axis=1)
        weight, bias = self.weight[count - 1, : given.shape[1]].numpy(), self.bias[count - 1].numpy()
        return self._unit(frames[:, -1] + given @ weight + bias)

    def advance(self, history: Mapping[str, np.ndarray], committed: Committed) -> dict[str, np.ndarray]:
        """Return the frames {key: (To, ...)} of the step after the committed actions; of more than `steps` of them, of
        the step after the first ones."""
        count = min(committed.count, self.options.steps)
        frames = joined(self.options.keys, {key: np.asarray(history[key])[None] for key in self.options.keys})
        last = self.options.n_obs_steps - 1
        ahead: dict[str, list[np.ndarray]] = {key: [] for key in history}
        for offset in range(count - last, count + 1):
            parts: Mapping[str, np.ndarray] = {}
            if offset > 0:
                parts = self._parts(self.predict(frames, committed.actions[None, :offset])[0])
            for key, values in history.items():
                seen = np.asarray(values)[last + min(offset, 0)]
                ahead[key].append(parts[key].astype(seen.dtype) if key in parts else seen)
        return {key: np.stack(values) for key, values in ahead.items()}

    def save(self, directory: str | Path) -> None:
        """Write the model beside a checkpoint."""
        directory = Path(directory)
        with atomic_path(directory / WEIGHTS) as temporary:
            save_file({"weight": self.weight.contiguous(), "bias": self.bias.contiguous()}, temporary)
        settings = {**vars(self.options), "keys": dict(self.options.keys), "errors": list(self.options.errors)}
        write_text(directory / SETTINGS, json.dumps(settings, indent=1) + "\n")

    def _parts(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        ends = np.cumsum(list(self.options.keys.values()))[:-1]
        return dict(zip(self.options.keys, np.split(vector, ends), strict=True))

    def _unit(self, vectors: np.ndarray) -> np.ndarray:
        """Return the vectors with quaternions of length one."""
        for start, end in quaternions(self.options.keys):
            vectors[:, start:end] /= np.linalg.norm(vectors[:, start:end], axis=1, keepdims=True).clip(1e-6)
        return vectors


def joined(keys: Mapping[str, int], history: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the frames (N, To, outputs) of {key: (N, To, D)}. A rotation has two quaternions: all frames have the one
    nearest to the newest frame's."""
    frames = np.concatenate([np.asarray(history[key], np.float32) for key in keys], axis=-1)
    for start, end in quaternions(keys):
        part = frames[..., start:end]
        frames[..., start:end] = np.where((part * part[:, -1:]).sum(axis=-1, keepdims=True) < 0, -part, part)
    return frames


def quaternions(keys: Mapping[str, int]) -> list[tuple[int, int]]:
    """Return the places of the quaternions among the numbers of all keys: robosuite's names of them end in "quat"."""
    found, start = [], 0
    for key, size in keys.items():
        if size == 4 and key.endswith("quat"):
            found.append((start, start + size))
        start += size
    return found


def read_predictor(
    directory: str | Path, shapes: Mapping[str, Any], n_obs_steps: int, action_dim: int
) -> StatePredictor | None:
    """Read the predictor beside a checkpoint; None without one.

    Args:
        directory: the checkpoint.
        shapes: what its policy observes, by key.
        n_obs_steps: frames that it sees.
        action_dim: numbers of an action.

    Raises:
        SpecpolicyError: a damaged file, or one for a policy that observes or does something else.
    """
    directory = Path(directory)
    if not os.path.lexists(directory / SETTINGS):
        return None
    try:
        options = parse(PredictorOptions, read_json(directory / SETTINGS), directory / SETTINGS)
        if options.n_obs_steps != n_obs_steps or any(shapes.get(key) != size for key, size in options.keys.items()):
            raise SpecpolicyError("it belongs to a policy that observes something else")
        if options.action_dim != action_dim:
            raise SpecpolicyError(f"its actions have {options.action_dim} numbers, those of this policy {action_dim}")
        with torch.device("meta"):
            expected = {
                "weight": torch.empty(options.steps, options.inputs, options.outputs),
                "bias": torch.empty(options.steps, options.outputs),
            }
        weights = read_tensors(directory / WEIGHTS, expected)
        check_finite(weights, {})
    except SpecpolicyError as error:
        raise SpecpolicyError(f"the predictor in {directory} cannot be read ({error}): {REMEDY}") from None
    return StatePredictor(options, weights["weight"].float(), weights["bias"].float())


def looks_ahead(committed: Any) -> bool:
    """Whether chunks are planned from a predicted observation; `committed`: see `Policy.predict`."""
    rows = committed if isinstance(committed, Sequence) else [committed]
    return any(isinstance(one, Committed) and one.way == PREDICTED for one in rows)


def advanced(
    predictor: StatePredictor,
    observation: Mapping[str, Any],
    frame_shapes: Mapping[str, tuple[int, ...]],
    committed: Sequence[Committed | None],
) -> dict[str, np.ndarray]:
    """Return the observations {key: (B, To, ...)}, each of the step after what is committed for it."""
    frames = {key: checked_frames(key, observation[key], shape).cpu().numpy() for key, shape in frame_shapes.items()}
    rows: list[dict[str, np.ndarray]] = []
    for row, one in enumerate(committed):
        history = {key: values[row] for key, values in frames.items()}
        rows.append(history if one is None else predictor.advance(history, one))
    return {key: np.stack([one[key] for one in rows]) for key in frames}


def moved(actions: Tensor, committed: Sequence[Committed | None], first: int, steps: int) -> Tensor:
    """Return chunks (B, H, D) that were planned for the step after the committed actions as chunks for the step of the
    observation: there is room for these actions, and as many at the end are dropped."""
    found = actions.clone()
    for row, one in enumerate(committed):
        if one is not None:
            count = min(one.count, steps, actions.shape[1] - first)
            found[row, first + count :] = actions[row, first : actions.shape[1] - count]
    return found
