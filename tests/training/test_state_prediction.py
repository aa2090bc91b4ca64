"""The predictor of the observation after committed actions: its fit, its file, and chunks that are planned with it."""

import numpy as np
import pytest
import torch

from specpolicy import Committed, SpecpolicyError, load_policy
from specpolicy.data.episodes import Episode
from specpolicy.policy.prediction import StatePredictor, read_predictor
from specpolicy.training.prediction import check_predictable, fit_predictor, predicted_keys, relative_error

KEYS = {"eef_pos": 2, "eef_quat": 4, "object": 2}


def episode(seed, length=40, noise=0.3):
    """An arm that moves by what is executed, a hand that turns at a constant rate, an object relative to the arm."""
    source = np.random.default_rng(seed)
    action = np.cumsum(0.1 * source.normal(size=(length, 2)), axis=0)
    executed = action + noise * source.normal(size=action.shape)
    position = np.concatenate([np.zeros((1, 2)), np.cumsum(0.5 * executed[:-1], axis=0)]) + source.normal(size=2)
    angle = 0.02 * np.arange(length) + source.uniform(0, 6)
    turn = np.stack([np.zeros(length), np.zeros(length), np.sin(angle / 2), np.cos(angle / 2)], axis=1)
    turn *= source.choice([-1, 1], size=(length, 1))  # a rotation has two quaternions
    thing = source.normal(size=2)
    observation = {"eef_pos": position, "eef_quat": turn, "object": thing - position}
    arrays = {key: values.astype(np.float32) for key, values in observation.items()}
    return Episode(action.astype(np.float32), arrays, executed.astype(np.float32))


@pytest.fixture(scope="module")
def fitted():
    return fit_predictor([episode(seed) for seed in range(12)], [episode(50)], KEYS, 2, 4)


def test_it_predicts_what_is_executed_to_do(fitted):
    assert len(fitted.options.errors) == 4 and max(fitted.options.errors) < 0.01  # 1: holding the state
    unseen = [episode(100), episode(101)]
    assert relative_error(fitted, unseen, 4) < 0.01
    # Labels in the place of executed actions, and the actions of other steps, predict far worse.
    labels = [Episode(one.action, one.observation) for one in unseen]
    later = [Episode(one.action, one.observation, np.roll(one.executed, 3, axis=0)) for one in unseen]
    assert min(relative_error(fitted, wrong, 4) for wrong in (labels, later)) > 0.1


def test_frames_move_to_the_step_after_the_actions(fitted):
    one, step = episode(200), 10
    history = {key: values[step - 1 : step + 1] for key, values in one.observation.items()}
    history["camera"] = np.arange(2 * 3).reshape(2, 3)
    for count in (1, 2, 4, 6):
        ahead = fitted.advance(history, Committed(one.executed[step : step + 7], count, "predicted"))
        there = step + min(count, 4)
        for key in ("eef_pos", "object"):
            expected = one.observation[key][there - 1 : there + 1]
            np.testing.assert_allclose(ahead[key], expected, atol=0.05)
        cosines = np.abs((ahead["eef_quat"] * one.observation["eef_quat"][there - 1 : there + 1]).sum(axis=1))
        np.testing.assert_allclose(cosines, 1, atol=1e-3)
        np.testing.assert_allclose(np.linalg.norm(ahead["eef_quat"], axis=1), 1, atol=1e-5)
        # What is not predicted stays that of the newest frames.
        np.testing.assert_array_equal(ahead["camera"], history["camera"][[1, 1]])
    first = fitted.advance(history, Committed(one.executed[step : step + 1], 1, "predicted"))
    np.testing.assert_array_equal(first["eef_pos"][0], history["eef_pos"][1])  # this frame is seen, not predicted


def test_the_file_comes_back_and_has_to_fit(fitted, tmp_path):
    assert read_predictor(tmp_path, KEYS, 2, 2) is None
    fitted.save(tmp_path)
    again = read_predictor(tmp_path, {**KEYS, "camera": (3, 8, 8)}, 2, 2)
    torch.testing.assert_close(again.weight, fitted.weight)
    assert again.options == fitted.options
    for shapes, frames in (({**KEYS, "object": 3}, 2), (KEYS, 3), ({}, 2)):
        with pytest.raises(SpecpolicyError, match="observes something else"):
            read_predictor(tmp_path, shapes, frames, 2)
    with pytest.raises(SpecpolicyError, match="its actions have 2 numbers, those of this policy 3"):
        read_predictor(tmp_path, KEYS, 2, 3)
    (tmp_path / "prediction.safetensors").write_bytes(b"damaged")
    with pytest.raises(SpecpolicyError, match="cannot be read"):
        read_predictor(tmp_path, KEYS, 2, 2)
    assert predicted_keys({"a": 2, "camera": (3, 8, 8)}) == {"a": 2}


def test_a_policy_plans_from_the_predicted_observation(small_policy, tmp_path):
    source = torch.Generator().manual_seed(0)
    options = fit_predictor([_toy()], [], {"position": 2, "object": 3}, 2, 3)
    small_policy.save(tmp_path)
    options.save(tmp_path)
    policy = load_policy(tmp_path)
    assert "predicted" in policy.ways and "predicted" not in small_policy.ways
    seen = {"position": torch.randn(3, 2, 2, generator=source), "object": torch.randn(3, 2, 3, generator=source)}
    actions = np.random.default_rng(1).normal(size=(5, 2)).astype(np.float32)
    rows = [None, Committed(actions, 2, "predicted"), Committed(actions, 5, "predicted")]
    found = policy.predict(seen, "ddpm", _generators(), committed=rows).actions
    plain = policy.predict(seen, "ddpm", _generators()).actions
    torch.testing.assert_close(found[0], plain[0], rtol=0, atol=0)
    later = {key: values.numpy().copy() for key, values in seen.items()}
    for row in (1, 2):
        history = {key: values[row].numpy() for key, values in seen.items()}
        for key, values in policy.predictor.advance(history, rows[row]).items():
            later[key][row] = values
    drawn = policy.predict(later, "ddpm", _generators()).actions
    for row, count, ahead in ((1, 2, 2), (2, 5, 3)):  # it looks three steps ahead at most
        torch.testing.assert_close(found[row, 1 : 1 + count], torch.as_tensor(actions[:count]))
        torch.testing.assert_close(found[row, 1 + count :], drawn[row, 1 + count - ahead : 8 - ahead])
    with pytest.raises(SpecpolicyError, match="return_states"):
        policy.predict(seen, "ddpm", _generators(), True, committed=rows)
    with pytest.raises(SpecpolicyError, match="train it with predict=8"):
        small_policy.predict(seen, committed=rows)


def _toy():
    source = np.random.default_rng(0)
    observation = {"position": source.normal(size=(30, 2)), "object": source.normal(size=(30, 3))}
    return Episode(source.normal(size=(30, 2)).astype(np.float32), observation)


def _generators():
    return [torch.Generator().manual_seed(row) for row in range(3)]


def test_demonstrations_that_are_too_short(fitted):
    assert isinstance(fitted, StatePredictor)
    with pytest.raises(SpecpolicyError, match="predict=2"):
        fit_predictor([episode(0, length=3)], [], KEYS, 2, 4)


def test_what_cannot_be_predicted_is_known_before_the_training():
    check_predictable([episode(0, length=5), episode(1, length=3)], KEYS, 4)
    for episodes, keys, steps, message in (
        ([episode(0, length=5)], KEYS, 5, "use predict=4"),
        ([episode(0, length=5)], {}, 2, "sees images alone"),
        ([episode(0, length=5000)], KEYS, 4097, "predict=4097: .* 4096"),
    ):
        with pytest.raises(SpecpolicyError, match=message):
            check_predictable(episodes, keys, steps)
