"""A policy meets no loop of another rate than it was trained at, unless its user says that this is meant."""

import json
from pathlib import Path

import pytest

from specpolicy import SpecpolicyError, load_policy
from specpolicy.cli import main
from specpolicy.control import Controller, GymRobot
from specpolicy.evaluation.recording import record_histories
from specpolicy.serving import PolicyServer, RemotePlanner, in_background
from specpolicy.serving.service import PolicyService
from specpolicy.tasks import make_task_env

pytestmark = pytest.mark.usefixtures("without_plots")
TASK = ["task=gym", "task.name=drift", "task.id=drift_env:Drift-v0"]  # 10 control steps per second
LIVE = ["warm_up=1", "worker=thread", "max_seconds=0.5", "watchdog=60", "inference_timeout=60"]
SHORT = ["max_seconds=0.2", "engine=eager"]
VERBS = {
    "evaluate": [*TASK, "samplers=[ddim-4]", "episodes=1", "workers=0", "videos=0", *SHORT],
    "rollout": [*TASK, "sampler=ddim", "sampler.steps=4", "viewer=false", "video=false", *SHORT],
    "control": [*TASK, "sampler=ddim", "sampler.steps=4", "clock=paused", *LIVE, *SHORT],
    # A single observation is recorded in this process.
    "benchmark": ["+task.id=drift_env:Drift-v0", "samplers=[ddim-4]", "count=1", "threads=1", "engine=eager"],
}


def with_rate(path, hz):
    file = Path(path) / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "control_hz": hz}))
    return path


def arguments(verb, policy, tmp_path):
    return [f"policy={policy}", f"output={tmp_path / verb}", *VERBS[verb]]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_compares(verb, drift_policy, drift_task, tmp_path, capsys):
    """Which rates are the same is tested in tests/test_rates.py."""

    def told(hz):
        return [verb, *arguments(verb, with_rate(drift_policy, hz), tmp_path / f"{hz}")]

    for hz in (None, 10):
        assert main(told(hz)) == 0
    for hz in (5, 20):
        capsys.readouterr()
        assert main(told(hz)) == 2
        error = capsys.readouterr().err
        assert f"trained at {hz} control steps per second and drift_env:Drift-v0 has 10" in error
        assert "any_rate=true" in error.splitlines()[-1]
    assert main([*told(20), "any_rate=true"]) == 0


def test_an_evaluation_goes_on_with_the_key_or_without(drift_policy, drift_task, tmp_path):
    told = arguments("evaluate", drift_policy, tmp_path)
    assert main(["evaluate", *told]) == 0
    assert main(["evaluate", *told, "any_rate=true", "episodes=2"]) == 0


@pytest.mark.parametrize("clock", ["wall", "paused"])
def test_control_compares_the_loop_too(clock, drift_policy, drift_task, tmp_path, capsys):
    # However slow a busy machine is: a chunk is due before its actions are over.
    told = [*arguments("control", with_rate(drift_policy, 10), tmp_path), "lead=1"]
    assert main(["control", *told, f"clock={clock}", "hz=40"]) == 2
    error = capsys.readouterr().err
    assert "trained at 10 control steps per second and the control loop has 40" in error and "give hz=10" in error
    assert main(["control", *told, f"clock={clock}", "hz=40", "any_rate=true"]) == 0


@pytest.mark.parametrize("hz, fits", [(None, True), (10, True), (20, False)])
def test_recorded_observations_are_of_the_policys_rate(hz, fits, drift_policy, drift_task):
    path = with_rate(drift_policy, hz)
    if fits:
        record_histories(path, drift_task, 4, 0, episodes=1)
    else:
        with pytest.raises(SpecpolicyError, match="trained at 20"):
            record_histories(path, drift_task, 4, 0, episodes=1)
        record_histories(path, drift_task, 4, 0, episodes=1, any_rate=True)


@pytest.mark.parametrize("remote", [False, True])
def test_a_controller_compares_wherever_the_policy_runs(remote, drift_policy, drift_task):
    policy = load_policy(with_rate(drift_policy, 10))
    robot = GymRobot(make_task_env(drift_task), seed=0)
    with in_background(PolicyServer(PolicyService(policy, "ddim-4"), port=0)) as server:
        planner = RemotePlanner(f"ws://127.0.0.1:{server.port}") if remote else policy
        assert planner.control_hz == 10
        with pytest.raises(SpecpolicyError, match=r"the control loop has 20: .*give hz=10"):
            Controller(planner, robot, hz=20, worker="thread")
        for options in ({"hz": 10}, {"hz": 20, "any_rate": True}):
            made = Controller(planner, robot, sampler="ddim-4", worker="thread", watchdog=60, warm_up=1, **options)
            assert made.run(seconds=0.1).ticks


def test_a_server_tells_the_rate(drift_policy, drift_task, tmp_path, capsys):
    policy = load_policy(with_rate(drift_policy, 20))
    with in_background(PolicyServer(PolicyService(policy, "ddim-4"), port=0)) as server:
        address = f"ws://127.0.0.1:{server.port}"
        assert RemotePlanner(address).metadata.control_hz == 20
        told = arguments("control", address, tmp_path)
        assert main(["control", *told]) == 2
        assert "trained at 20 control steps per second and drift_env:Drift-v0 has 10" in capsys.readouterr().err
        assert main(["control", *told, "any_rate=true"]) == 0
