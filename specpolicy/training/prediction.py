"""Fits a predictor of the observation to demonstrations: see `specpolicy.policy.prediction`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from specpolicy.data.episodes import Episode
from specpolicy.errors import SpecpolicyError
from specpolicy.policy.prediction import PredictorOptions, StatePredictor, joined

RIDGE = 1e-3  # penalty, where inputs and outputs have the variance one
LEAST = 1e-6  # deviation of what never changes


def check_predictable(episodes: Sequence[Episode], keys: Mapping[str, int], steps: int) -> None:
    """Refuse what no predictor can be fitted to, before anything is trained.

    Args:
        episodes: to fit to.
        keys: dimension of each vector to predict.
        steps: most steps to look ahead.

    Raises:
        SpecpolicyError: no vectors; no episode is that long; too many steps.
    """
    if not keys:
        raise SpecpolicyError("predict: this policy sees images alone, and vectors are predicted: use 0")
    longest = max(map(len, episodes)) - 1
    if steps > longest:
        raise SpecpolicyError(f"no episode is long enough to look {longest + 1} steps ahead: use predict={longest}")
    try:
        PredictorOptions(dict(keys), 1, 1, steps)
    except SpecpolicyError as error:
        raise SpecpolicyError(f"predict={steps}: {error}") from None


def fit_predictor(
    training: Sequence[Episode],
    held_out: Sequence[Episode],
    keys: Mapping[str, int],
    n_obs_steps: int,
    steps: int,
) -> StatePredictor:
    """Fit by ridge regression, with the executed actions, or the labels where the data do not say them.

    Args:
        training, held_out: episodes to fit to, and to measure the error on.
        keys: dimension of each vector to predict.
        n_obs_steps: frames that are seen.
        steps: most steps to look ahead.

    Raises:
        SpecpolicyError: see `check_predictable`.
    """
    check_predictable(training, keys, steps)
    action_dim = training[0].action.shape[1]
    options = PredictorOptions(dict(keys), n_obs_steps, action_dim, steps)
    weight = torch.zeros(steps, options.inputs, options.outputs)
    bias = torch.zeros(steps, options.outputs)
    for ahead in range(1, steps + 1):
        frames, actions, later = _examples(training, options, ahead)
        given = np.concatenate([frames.reshape(len(frames), -1), actions.reshape(len(frames), -1)], 1)
        solution, constant = _ridge(given.astype(np.float64), (later - frames[:, -1]).astype(np.float64))
        weight[ahead - 1, : given.shape[1]] = torch.from_numpy(solution)
        bias[ahead - 1] = torch.from_numpy(constant)
    fitted = StatePredictor(options, weight, bias)
    for ahead in range(1, steps + 1):
        # What the regression predicts worse than it is held, on episodes that it has not seen, is held.
        frames, actions, later = _examples(held_out, options, ahead)
        if len(frames):
            error = ((later - fitted.predict(frames, actions)) ** 2).mean(axis=0)
            worse = torch.from_numpy(error > ((later - frames[:, -1]) ** 2).mean(axis=0))
            weight[ahead - 1, :, worse], bias[ahead - 1, worse] = 0, 0
    errors = [relative_error(fitted, held_out, ahead) for ahead in range(1, steps + 1)]
    return StatePredictor(replace(options, errors=tuple(one for one in errors if np.isfinite(one))), weight, bias)


def relative_error(predictor: StatePredictor, episodes: Sequence[Episode], ahead: int) -> float:
    """Return the error of the prediction over that of holding the newest frame, each number in units of how far it
    moves in so many steps; NaN without examples."""
    frames, actions, later = _examples(episodes, predictor.options, ahead)
    if not len(frames):
        return float("nan")
    held = later - frames[:, -1]
    scale = np.sqrt((held**2).mean(axis=0)).clip(LEAST)
    moving = scale > LEAST
    error = (later - predictor.predict(frames, actions)) / scale
    return float(np.sqrt((error[:, moving] ** 2).mean()))


def _examples(episodes: Sequence[Episode], options: PredictorOptions, ahead: int) -> tuple[np.ndarray, ...]:
    """Return frames (N, To, outputs), the next actions (N, ahead, D) and the vectors (N, outputs) after them."""
    found: list[list[np.ndarray]] = [[], [], []]
    for episode in episodes:
        executed = episode.action if episode.executed is None else episode.executed
        steps = np.arange(max(0, len(episode) - ahead))
        seen = np.clip(steps[:, None] + np.arange(1 - options.n_obs_steps, 1), 0, None)
        # One more frame, so that the quaternions of all of them are alike.
        every = np.concatenate([steps[:, None] + ahead, seen], axis=1)
        frames = joined(options.keys, {key: np.asarray(episode.observation[key])[every] for key in options.keys})
        for part, values in zip(
            found, (frames[:, 1:], executed[steps[:, None] + np.arange(ahead)], frames[:, 0]), strict=True
        ):
            part.append(values)
    sizes = (options.n_obs_steps, options.outputs), (ahead, options.action_dim), (options.outputs,)
    nothing = [np.zeros((0, *size), np.float32) for size in sizes]
    return tuple(np.concatenate([none, *part]) for none, part in zip(nothing, found, strict=True))


def _ridge(given: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return weight and bias of wanted = given @ weight + bias."""
    mean, deviation = given.mean(axis=0), given.std(axis=0).clip(LEAST)
    centre, scale = wanted.mean(axis=0), wanted.std(axis=0).clip(LEAST)
    inputs, outputs = (given - mean) / deviation, (wanted - centre) / scale
    gram = inputs.T @ inputs + RIDGE * len(inputs) * np.eye(inputs.shape[1])
    weight = np.linalg.solve(gram, inputs.T @ outputs) * scale / deviation[:, None]
    return weight, centre - mean @ weight


def predicted_keys(shapes: Mapping[str, object]) -> dict[str, int]:
    """Return the vectors among what a policy observes, with their dimensions."""
    return {key: size for key, size in shapes.items() if isinstance(size, int)}
