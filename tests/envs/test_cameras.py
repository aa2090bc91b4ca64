"""Pictures in the observation: what they show, when they are drawn, and that the world does not know of them."""

import threading

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import specpolicy_envs  # noqa: F401
from specpolicy_envs import cameras, rendering
from specpolicy_envs.robosuite_task import import_robosuite

SIZE = (36, 40)
CAMERAS = {
    "specpolicy/PushT-v0": ["top"],
    "specpolicy/PushTMoving-v0": ["top"],
    "specpolicy/Lift-v0": ["agentview", "robot0_eye_in_hand"],
    "specpolicy/LiftConveyor-v0": ["robot0_eye_in_hand"],
}


pytestmark = pytest.mark.usefixtures("drawing")


@pytest.fixture
def make():
    """Makes environments that are closed at the end."""
    made = []

    def one(env_id, **kwargs):
        made.append(gymnasium.make(env_id, disable_env_checker=True, **kwargs))
        return made[-1]

    yield one
    for env in made:
        env.close()


def episode(env, seed=3, steps=6):
    """The observations of some random actions, and the states."""
    source = np.random.default_rng(seed)
    space = env.action_space
    observations, states = [env.reset(seed=seed)[0]], [env.unwrapped.get_state()]
    for _ in range(steps):
        action = source.uniform(space.low, space.high).astype(np.float32)
        observation, reward, *_ = env.step(action)
        observations.append(observation)
        states.append([*env.unwrapped.get_state(), reward])
    return observations, states


@pytest.mark.parametrize(("env_id", "names"), CAMERAS.items())
def test_on_demand_or_at_once_the_pictures_are_the_same_to_the_bit(make, env_id, names):
    """Looked at when the world has moved on, by another thread, in any order, beside frames of another size."""
    at_once, _ = episode(make(env_id, cameras=names, camera_size=SIZE))
    later_env = make(
        env_id,
        cameras=names,
        camera_size=SIZE,
        pictures_on_demand=True,
        render_mode="rgb_array",
        render_size=(48, 64),
    )
    later, _ = episode(later_env)
    assert later_env.render().shape == (48, 64, 3)
    found = {}

    def look():
        for step in reversed(range(len(later))):
            found[step] = {name: np.asarray(later[step][f"{name}_image"]) for name in names}

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    for name in names:
        key = f"{name}_image"
        shown = [observation[key] for observation in at_once]
        assert all(isinstance(picture, np.ndarray) for picture in shown)
        assert shown[0].shape == (*SIZE, 3) == later[0][key].shape and shown[0].dtype == np.uint8 == later[0][key].dtype
        assert len({picture.tobytes() for picture in shown}) == len(shown)  # something moves in all of them
        for step, picture in enumerate(shown):
            np.testing.assert_array_equal(picture, found[step][name], err_msg=f"{key} at step {step}")


@pytest.mark.parametrize(("env_id", "names"), CAMERAS.items())
def test_the_world_does_not_know_that_it_is_watched(make, env_id, names):
    plain, states = episode(make(env_id))
    watched, again = episode(make(env_id, cameras=names, camera_size=SIZE))
    for one, other in zip(states, again, strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(plain, watched, strict=True):
        assert other.keys() - one.keys() == {f"{name}_image" for name in names} and not one.keys() - other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def test_nothing_is_drawn_that_nobody_looks_at(make, monkeypatch):
    drawn = []
    draw = cameras.Views.draw
    monkeypatch.setattr(cameras.Views, "draw", lambda self, scene: drawn.append(scene) or draw(self, scene))
    env = make("specpolicy/PushT-v0", cameras=["top"], pictures_on_demand=True)
    observations, _ = episode(env)
    assert not drawn
    picture = observations[2]["top_image"]
    first = np.asarray(picture)
    assert np.stack([picture, picture]).shape == (2, 84, 84, 3) and np.asarray(picture) is first
    assert len(drawn) == 1  # once, however often it is looked at
    with pytest.raises(ValueError):
        first[0, 0, 0] = 1  # whoever else looks is to see the same
    del observations, picture
    spare = len(env.unwrapped._views.spare)
    episode(env, steps=20)
    assert len(env.unwrapped._views.spare) <= max(spare, 21)  # what a moment is kept in is used again


def test_pictures_are_those_of_robosuite(make):
    """The same as robosuite observes, which counts rows from below; robomimic's data sets have them upright, too."""
    names = ["agentview", "robot0_eye_in_hand"]
    env = make("specpolicy/Lift-v0", cameras=names, camera_size=SIZE).unwrapped
    env.reset(seed=4)
    for _ in range(5):
        observation, *_ = env.step(np.array([0.5, 0.3, -1, 0, 0, 0.2, 1], np.float32))
    arguments = env.env_args()["env_kwargs"]
    assert arguments["camera_names"] == names and (arguments["camera_heights"], arguments["camera_widths"]) == SIZE
    rebuilt = import_robosuite().make("Lift", **arguments)
    rebuilt.reset()
    rebuilt.reset_from_xml_string(env.model_xml())
    # What is drawn are the positions that robosuite's own observations say, of the beginning of a simulation step.
    target = rebuilt.sim.data._data
    drawn_by = ("geom_xpos", "geom_xmat", "site_xpos", "site_xmat", "cam_xpos", "cam_xmat", "light_xpos", "light_xdir")
    for field in drawn_by:
        getattr(target, field)[:] = getattr(env.data, field)
    for name in names:
        theirs = rebuilt.sim.render(camera_name=name, width=SIZE[1], height=SIZE[0])[::-1]
        np.testing.assert_array_equal(observation[f"{name}_image"], theirs)
    rebuilt.close()


def test_an_environment_with_cameras_passes_gymnasiums_checks():
    env = gymnasium.make("specpolicy/PushT-v0", cameras=["top"], camera_size=SIZE)
    check_env(env.unwrapped, skip_render_check=True)
    assert env.observation_space["top_image"].shape == (*SIZE, 3)
    assert env.unwrapped.env_args()["env_kwargs"] == {"max_seconds": 30.0, "cameras": ["top"], "camera_size": [36, 40]}
    env.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"cameras": ["front"]}, "there is no camera 'front': there are top"),
        ({"cameras": ["top", "top"]}, "names one twice"),
        ({"camera_size": [84]}, r"camera_size=\[84\]: expected \[height, width\]"),
        ({"camera_size": [84, 0]}, "camera_size"),
        ({"camera_size": [84, 84.5]}, "camera_size"),
        ({"camera_size": [True, 84]}, "camera_size"),
        ({"camera_size": [84, 5000]}, "1 to 4096 pixels"),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        gymnasium.make("specpolicy/PushT-v0", **{"cameras": ["top"], **arguments})


def test_a_renderer_that_is_missing_is_missed_at_once(monkeypatch):
    def missing(height, width):
        raise RuntimeError("cannot render: no OpenGL library works without a screen")

    monkeypatch.setattr(rendering, "_gl_context", missing)
    gymnasium.make("specpolicy/PushT-v0").close()  # without cameras none is needed
    with pytest.raises(RuntimeError, match="no OpenGL library works"):
        gymnasium.make("specpolicy/PushT-v0", cameras=["top"], pictures_on_demand=True)
