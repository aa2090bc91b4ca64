"""A policy that sees pictures, in every loop: it sees the same however they are drawn, and only what it looks at is."""

import dataclasses

import gymnasium
import numpy as np
import pytest
import torch

from specpolicy import SpecpolicyError
from specpolicy.cli import main
from specpolicy.cluster import Processes
from specpolicy.control import Controller, GymRobot, PolicyPlanner
from specpolicy.control.clock import PausedClock
from specpolicy.evaluation import runner, settings
from specpolicy.evaluation.conditions import Condition
from specpolicy.evaluation.episode import run_episode
from specpolicy.evaluation.planners import ExpertPlanner
from specpolicy.evaluation.player import Setup
from specpolicy.evaluation.runner import Evaluation
from specpolicy.policy import DiffusionPolicy
from specpolicy.tasks import kept_task, make_task_env

rendering = pytest.importorskip("specpolicy_envs.rendering")
from specpolicy_envs import cameras  # noqa: E402

SIZE = [36, 40]
TASK = {"name": "push_t", "id": "specpolicy/PushT-v0", "kwargs": {}, "observation_keys": ["agent_pos", "top_image"]}
WATCHED = {**TASK, "cameras": ["top"], "camera_size": SIZE}
SECONDS = 2.4  # 24 control steps, 3 chunks


pytestmark = pytest.mark.usefixtures("drawing")


@pytest.fixture(scope="module")
def policy(small_policy_config):
    """It sees two frames, and plans anew every 8 control steps."""
    torch.manual_seed(0)
    one, two = {"scale": [1.0], "offset": [0.0]}, {"scale": [1.0, 1.0], "offset": [0.0, 0.0]}
    return DiffusionPolicy.from_config(
        {
            **small_policy_config,
            "chain": {"train_steps": 2, "steps": 2},
            "observation": {"top_image": [3, *SIZE], "agent_pos": 2},
            "vision": {"kind": "small", "widths": [8, 16], "keypoints": 4, "features": 4},
            "normaliser": {"top_image": one, "agent_pos": two, "action": {"scale": [4.0, 4.0], "offset": [0.0, 0.0]}},
            "horizon": 12,
            "n_action_steps": 8,
            "control_hz": 10.0,
            "task": WATCHED,
        }
    )


@pytest.fixture(scope="module")
def saved(policy, tmp_path_factory):
    """Its checkpoint."""
    return policy.save(tmp_path_factory.mktemp("saved") / "policy")


@pytest.fixture
def drawn(monkeypatch):
    """A list with an entry for each picture that has been drawn."""
    found = []
    draw = cameras.Views.draw
    monkeypatch.setattr(cameras.Views, "draw", lambda self, scene: found.append(scene) or draw(self, scene))
    return found


def chunks(env, policy, seed=100):
    episode = run_episode(env, PolicyPlanner(policy, "ddpm"), PausedClock(), seed, SECONDS)
    env.close()
    assert episode.length == 24
    return np.stack([chunk.actions for chunk in episode.chunks])


def test_a_policy_plans_the_same_chunks_from_pictures_drawn_on_demand(policy, drawn):
    later = chunks(make_task_env(WATCHED), policy)
    # The first frame alone, then two frames of each 8: those between are not drawn.
    assert len(later) == 3 and len(drawn) == 1 + 2 + 2
    drawn.clear()
    at_once = gymnasium.make(TASK["id"], cameras=["top"], camera_size=SIZE)
    np.testing.assert_array_equal(chunks(at_once, policy), later)
    assert len(drawn) == 25
    blind = make_task_env(WATCHED)
    blind.unwrapped._views.draw = lambda scene: np.zeros((*SIZE, 3), np.uint8)
    assert np.abs(chunks(blind, policy) - later).max() > 1e-4  # it does look


def test_the_expert_has_none_drawn(drawn):
    env = make_task_env(WATCHED)
    run_episode(env, ExpertPlanner(TASK), PausedClock(), 7, SECONDS)
    assert not drawn
    env.close()


@pytest.mark.parametrize("worker", ("inline", "thread"))
def test_a_controller_plans_the_same_chunks(policy, drawn, worker):
    """The loop runs in a thread of its own, after the robot was made in this one."""
    actions = []

    class Robot(GymRobot):
        def act(self, action):
            actions.append(action)
            super().act(action)

    env = make_task_env(WATCHED)
    robot = Robot(env, 100)
    planner = PolicyPlanner(policy, "ddpm")
    Controller(planner, robot, hz=10, clock="paused", worker=worker, warm_up=1, seed=100).run(seconds=SECONDS)
    assert len(drawn) == 1 + 2 + 2
    env.close()
    expected = chunks(make_task_env(WATCHED), policy)
    np.testing.assert_array_equal(np.stack(actions), expected[:, :8].reshape(24, 2))


def test_a_runner_keeps_frames_without_drawing_them(policy, drawn):
    env, run = make_task_env(WATCHED), policy.runner("ddpm")
    observation, _ = env.reset(seed=100)
    for _ in range(17):
        observation, *_ = env.step(run(observation))
    assert run.chunks == 3 and len(drawn) == 1 + 2 + 2
    env.close()


@pytest.fixture
def evaluation(saved):
    setup = Setup(WATCHED, str(saved), {"ddpm": {"name": "ddpm"}}, max_seconds=SECONDS)
    return Evaluation(setup, (Condition("ddpm"),), episodes=3, seed=100)


def rows(evaluation, output, workers=0):
    results = settings.claim(evaluation, runner.check(evaluation), output)
    runner.play(evaluation, results, output, Processes(workers))
    return sorted((row["seed"], row["return"], row["length"], row["max_coverage"]) for row in results.episodes.rows)


def test_an_evaluation_is_the_same_in_processes_in_batches_and_filmed(evaluation, tmp_path):
    pytest.importorskip("imageio")
    expected = rows(evaluation, tmp_path / "here")
    assert len({row[1] for row in expected}) == 3
    assert rows(evaluation, tmp_path / "process", workers=1) == expected
    assert rows(dataclasses.replace(evaluation, videos=2), tmp_path / "filmed") == expected
    assert len(list((tmp_path / "filmed" / "videos").glob("*.mp4"))) == 2
    batched = dataclasses.replace(evaluation, setup=dataclasses.replace(evaluation.setup, batch=2))
    for found, row in zip(rows(batched, tmp_path / "batch"), expected, strict=True):
        assert found[0] == row[0] and float(found[1]) == pytest.approx(float(row[1]), abs=1e-3)  # up to rounding


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["task.cameras=[front]"], "there is no camera 'front': there are top"),
        (["task.cameras=[top]", "task.camera_size=[84]"], "expected [height, width]"),
        (["task.cameras=[top]", "task.camera_size=[0,84]"], "camera_size=[0, 84]"),
        (["task.cameras=[top]"], "set task.camera_size=[36,40]"),
        ([], "task.cameras=[top] gives it"),
        (["task=gym", "task.id=Pendulum-v1", "task.cameras=[top]"], "Pendulum-v1 has none to give"),
        (["task=lift", "task.observation_keys=[agentview_image]"], "task.cameras=[agentview] gives it"),
        (["task.observation_keys=[agent_pos]", "task.cameras=[top,top]"], "names one twice"),
    ],
)
@pytest.mark.parametrize("verb", ("rollout", "control"))
def test_what_is_wrong_with_cameras_is_one_line(saved, tmp_path, capsys, verb, changes, words):
    task = [] if any(change.startswith("task=") for change in changes) else ["task=push_t"]
    common = [verb, *task, f"policy={saved}", f"output={tmp_path / 'out'}", *changes]
    common += ["engine=eager", "viewer=false" if verb == "rollout" else "clock=paused"]
    assert main(common) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert words in line


def test_a_renderer_that_is_missing_is_one_line(saved, tmp_path, capsys, monkeypatch):
    def missing(height, width):
        raise RuntimeError("cannot render: no OpenGL library works without a screen")

    monkeypatch.setattr(rendering, "_gl_context", missing)
    size = f"task.camera_size=[{SIZE[0]},{SIZE[1]}]"
    arguments = ["evaluate", "task=push_t", "task.cameras=top", size, f"policy={saved}", "engine=eager"]
    assert main([*arguments, f"output={tmp_path / 'out'}", "episodes=1", "workers=0"]) == 2
    assert "no OpenGL library works" in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_task_without_cameras_is_kept_as_it_always_was():
    assert kept_task({**TASK, "cameras": [], "camera_size": SIZE}) == TASK
    assert kept_task(WATCHED) == WATCHED
    with pytest.raises(SpecpolicyError, match=r"no observation 'top_image'; task.cameras=\[top\] gives it"):
        make_task_env({**TASK, "cameras": []})
