"""The rules of evaluation on real physics, with the scripted experts."""

import contextlib

import pytest

from specpolicy.evaluation.conditions import Condition
from specpolicy.evaluation.player import Job, Player, Setup
from specpolicy.evaluation.viewer import has_physics
from specpolicy.tasks import make_task_env

TASKS = {"lift": "specpolicy/Lift-v0", "push_t": "specpolicy/PushT-v0"}


@pytest.mark.parametrize("name", TASKS)
def test_an_episode_depends_on_its_seed_alone(name, tmp_path):
    """Neither the episodes before it nor the camera changes the physics."""
    task = {"name": name, "id": TASKS[name], "kwargs": {}}
    setup = Setup(task, "unused", {"expert": {"name": "expert"}}, max_seconds=4.0, video_size=(64, 64))

    def outcome(played):
        episode = played.episode
        actions = b"".join(chunk.actions.tobytes() for chunk in episode.chunks)  # they react to every observation
        return episode.max_coverage, episode.success, episode.length, episode.total_reward, actions

    with contextlib.closing(Player(setup)) as player:
        first, other = outcome(player(Job(Condition("expert"), 5))), outcome(player(Job(Condition("expert"), 6)))
        filmed = player(Job(Condition("expert"), 5, str(tmp_path / "film.mp4")))
        assert outcome(player(Job(Condition("expert"), 5))) == first == outcome(filmed) != other
    assert (first[0] is None) == (name == "lift")
    assert (tmp_path / "film.mp4").exists() == (filmed.no_video is None)


@pytest.mark.parametrize("name", TASKS)
def test_mujocos_viewer_can_show_the_shipped_tasks(name):
    with contextlib.closing(make_task_env({"id": TASKS[name]})) as env:
        assert has_physics(env)
        env.reset(seed=0)
        assert len(env.unwrapped.data.qpos) == env.unwrapped.model.nq
