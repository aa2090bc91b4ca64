"""Gymnasium environments as robots, in simulated time and on the wall clock."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from specpolicy.control import Controller, Execution, GymRobot
from specpolicy.control.chunk import Chunk
from specpolicy.errors import SpecpolicyError


class Counter(gymnasium.Env):
    """Observes the number of its steps; succeeds after `goal` of them."""

    def __init__(self, goal=1000, dictionary=True):
        self.goal, self.dictionary = goal, dictionary
        box = spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.observation_space = spaces.Dict({"count": box}) if dictionary else box
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed, self.actions = seed, []
        return self._observe(), {}

    def step(self, action):
        assert action.dtype == np.float32
        self.actions.append(action.tolist())
        return self._observe(), 0.5, False, False, {"is_success": len(self.actions) >= self.goal}

    def _observe(self):
        count = np.array([len(self.actions)], np.float32)
        return {"count": count} if self.dictionary else count


class Time:
    seconds = 50.0

    def __call__(self):
        return self.seconds


def count(robot):
    return int(next(iter(robot.observe().values()))[0])


def test_in_simulated_time_the_world_waits():
    robot = GymRobot(Counter(), seed=4)
    assert robot.env.seed == 4 and count(robot) == count(robot) == 0
    robot.act([0.5, 7.0])
    assert robot.env.actions == [[0.5, 1.0]] and count(robot) == 1  # clipped to the action space
    assert (robot.steps, robot.held_steps, robot.total_reward, robot.done) == (1, 0, 0.5, False)


def test_on_the_wall_clock_the_world_goes_on_with_the_last_action():
    time = Time()
    env = Counter()
    robot = GymRobot(env, hz=10, hold=Execution(hold=(0.0, None)).held, now=time)
    time.seconds += 5.0
    assert count(robot) == 0  # it stands until its first action
    robot.act([0.1, 0.2])
    start = time.seconds
    for step, jitter in ((1, 0.0), (2, 0.02), (3, -0.01)):
        time.seconds = start + step / 10 + jitter
        assert count(robot) == step
        robot.act([0.1 * (step + 1), 0.5])
    time.seconds = start + 0.6  # nobody has acted at steps 4 and 5
    assert count(robot) == 6 and robot.held_steps == 2
    robot.act([0.7, 0.5])
    np.testing.assert_allclose(np.array(env.actions)[:, 0], [0.1, 0.2, 0.3, 0.4, 0.0, 0.0, 0.7], rtol=1e-6)
    np.testing.assert_allclose(np.array(env.actions)[4:6, 1], 0.5)


def test_a_finished_or_stopped_world_is_left_alone():
    robot = GymRobot(Counter(goal=2))
    for _ in range(4):
        robot.act([0.0, 0.0])
    assert robot.done and robot.success and robot.steps == 2
    robot = GymRobot(Counter(), hz=10, now=(time := Time()))
    robot.act([0.0, 0.0])
    robot.stop()
    time.seconds += 3
    assert count(robot) == 1 and not robot.success


def test_another_run_goes_on_where_the_world_stands():
    robot = GymRobot(Counter(), hz=10, now=(time := Time()))
    robot.observe()
    robot.act([0.0, 0.0])
    robot.stop()
    robot.act([0.0, 0.0])  # too late for this run
    time.seconds += 3  # of which the world knows nothing
    assert count(robot) == 1 and robot.steps == 1
    robot.act([0.5, 0.5])
    time.seconds += 0.3
    assert count(robot) == 4 and robot.held_steps == 2


def test_two_runs_of_a_controller_move_an_environment_twice_as_far():
    class Still:
        n_obs_steps, n_action_steps = 1, 3

        def reset(self, seed):
            pass

        def plan(self, history):
            return Chunk(np.zeros((8, 2)))

    robot = GymRobot(Counter())
    controller = Controller(Still(), robot, hz=10, clock="paused")
    for steps in (5, 10):
        assert len(controller.run(seconds=0.5).ticks) == 5 and robot.steps == steps and robot.stopped


def test_an_array_is_seen_as_the_state():
    assert list(GymRobot(Counter(dictionary=False)).observe()) == ["state"]


def test_actions_of_another_shape_are_refused():
    with pytest.raises(SpecpolicyError, match=r"shape \(3,\): the robot takes \(2,\)"):
        GymRobot(Counter()).act(np.zeros(3))
    with pytest.raises(SpecpolicyError, match="hz=0"):
        GymRobot(Counter(), hz=0)


@pytest.mark.parametrize("clock, hz", (("paused", None), ("wall", 50)))
def test_a_controller_runs_an_environment_to_its_end(clock, hz):
    class Still:
        n_obs_steps, n_action_steps = 2, 3

        def reset(self, seed):
            pass

        def plan(self, history):
            assert history["count"].shape == (2, 1)
            return Chunk(np.zeros((20, 2)))

    robot = GymRobot(Counter(goal=10), hz=hz)
    log = Controller(Still(), robot, hz=50, clock=clock, worker="thread").run(until=lambda: robot.done)
    assert robot.success and robot.steps == 10 and robot.stopped
    assert len(log.ticks) + robot.held_steps >= 10


class Resting(Counter):
    def resting_action(self):
        return np.array([0.25, -0.25])


@pytest.mark.parametrize(
    "make, expected",
    (
        (Resting, [0.25, -0.25]),
        (Counter, None),
        (lambda: gymnasium.wrappers.TimeLimit(Resting(), 9), [0.25, -0.25]),
        (lambda: gymnasium.wrappers.RescaleAction(Resting(), -3.0, 3.0), None),  # its units are others
    ),
)
def test_where_it_stands_as_far_as_the_environment_says(make, expected):
    robot = GymRobot(make())
    told = robot.position()
    assert (told is None and expected is None) or told.tolist() == expected
    robot.act(np.array([0.5, 0.75]))
    assert robot.position().tolist() == [0.5, 0.75]


@pytest.mark.parametrize("task", ("PushT", "Lift"))
def test_the_shipped_tasks_say_where_their_robots_stand(task):
    robot = GymRobot(gymnasium.make(f"specpolicy_envs:specpolicy/{task}-v0"), seed=3)
    before = {key: np.array(value) for key, value in robot.observe().items()}
    rest = robot.position()
    for _ in range(5):
        robot.act(rest)
    robot.env.close()
    key = {"PushT": "agent_pos", "Lift": "robot0_eef_pos"}[task]
    np.testing.assert_allclose(robot.observe()[key], before[key], atol=2e-3)
