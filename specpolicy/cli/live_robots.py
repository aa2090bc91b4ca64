"""What `specpolicy control` moves: the simulated robot of a task, or a real one of another project."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from omegaconf import DictConfig

from specpolicy.cli.groups import option_names
from specpolicy.cli.samplers import plain
from specpolicy.errors import SpecpolicyError

if TYPE_CHECKING:
    import gymnasium

    from specpolicy.policy import Policy

REAL = "specpolicy.integrations.{}.registry"  # by name: no package imports the integrations


class Live(Protocol):
    """A robot with what the verb has to know of it."""

    def hz(self, trained: float | None) -> float:
        """Return the control steps per second; `trained` are the policy's, if known."""
        ...

    def check(self, shapes: Mapping[str, Any], action_dim: int | None, trained: float | None) -> None:
        """Refuse a policy whose observations, actions or rate do not fit."""

    def hold(self) -> tuple[float | None, ...] | None:
        """Return the action that holds the robot still, see `specpolicy.control.Execution`."""
        ...

    def begin(self, hz: float) -> Any:
        """Return the robot; it need not be connected yet."""
        ...

    def connect(self) -> None:
        """Make the robot ready to move."""

    def done(self) -> bool:
        """Whether the run is over."""
        ...

    def outcome(self, hz: float) -> str:
        """Return a line about the run."""
        ...

    def facts(self) -> dict[str, Any]:
        """Return what the report has about the run."""
        ...


def moved(config: DictConfig) -> str:
    """Return the name of what a configuration moves.

    Raises:
        SpecpolicyError: neither a task nor a robot is named, or both.
    """
    if (config.task is None) == (config.robot is None):
        tasks, robots = ", ".join(option_names("task")), ", ".join(option_names("robot"))
        which = "both are given" if config.task else "neither is given"
        raise SpecpolicyError(f"task or robot: {which}; write task=<one of {tasks}>, or robot=<one of {robots}>:TYPE")
    return str(config.task.name) if config.robot is None else f"{config.robot.name}:{config.robot.type}"


@contextlib.contextmanager
def live_robot(config: DictConfig) -> Iterator[Live]:
    """Have the robot that a configuration names, see `moved`. It is disconnected afterwards, or its environment closed.

    Raises:
        SpecpolicyError: a robot or a task that cannot be made.
    """
    if config.robot is not None:
        real = RealRobot(config)
        try:
            yield real
        except BaseException:
            with contextlib.suppress(SpecpolicyError):  # the run has reported that it could not be stopped
                real.robot.stop()
            raise
        real.robot.stop()
        return
    from specpolicy.tasks import make_task_env

    with contextlib.closing(make_task_env(plain(config.task))) as env:
        yield SimulatedRobot(config, env)


class SimulatedRobot:
    """The robot of a task's environment."""

    def __init__(self, config: DictConfig, env: gymnasium.Env):
        from specpolicy.tasks import control_hz

        self._config, self._env, self._own_hz = config, env, control_hz(env)
        self.name, self._id = moved(config), str(config.task.id)
        self.robot: Any = None

    def hz(self, trained: float | None) -> float:
        """See `Live`: the task's own rate, unless another is given."""
        hz = self._own_hz if self._config.hz is None else float(self._config.hz)
        if self._config.clock == "wall" and abs(hz - self._own_hz) > 1e-6 * self._own_hz:
            told = f"the task has {self._own_hz:g} control steps per second"
            print(f"{told}: its world runs {hz / self._own_hz:.2g} times as fast")
        return hz

    def check(self, shapes: Mapping[str, Any], action_dim: int | None, trained: float | None) -> None:
        """See `Live`."""
        from specpolicy.evaluation.planners import check_rate_fits, check_shapes_fit

        check_shapes_fit(shapes, action_dim, self._env, self._id)
        check_rate_fits(trained, self._env, self._id, self._config.any_rate)

    def hold(self) -> tuple[float | None, ...] | None:
        """See `Live`."""
        from specpolicy.evaluation.tracks import held_action

        return held_action(plain(self._config.hold), plain(self._config.task))

    def begin(self, hz: float) -> Any:
        """See `Live`: begin the episode."""
        from specpolicy.control import Execution, GymRobot

        held = Execution(hold=self.hold()).held
        self.robot = GymRobot(self._env, self._config.seed, hz if self._config.clock == "wall" else None, held)
        return self.robot

    def connect(self) -> None:
        """See `Live`: nothing to do."""

    def done(self) -> bool:
        """See `Live`: the episode has ended."""
        return bool(self.robot.done)

    def outcome(self, hz: float) -> str:
        """See `Live`."""
        robot = self.robot
        outcome = "solved" if robot.success else "not solved"
        steps = f"{robot.steps} steps ({robot.steps / hz:.1f} s)"
        return f"{self.name}, seed {self._config.seed}: {outcome} in {steps}, return {robot.total_reward:.3g}"

    def facts(self) -> dict[str, Any]:
        """See `Live`."""
        robot = self.robot
        outcome = {"success": robot.success, "steps": robot.steps, "held_steps": robot.held_steps}
        return {"task": self.name, **outcome, "return": robot.total_reward}


class RealRobot:
    """A robot of another project, connected for one run."""

    def __init__(self, config: DictConfig):
        settings = plain(config.robot)
        project = str(settings["name"])
        where = REAL.format(project)
        if not project.isidentifier() or importlib.util.find_spec(where) is None:
            raise SpecpolicyError(f"robot.name={project}: robots are known of {', '.join(option_names('robot'))}")
        if config.clock != "wall":
            raise SpecpolicyError(f"clock={config.clock}: the time of a real robot is that of the clock on the wall")
        self.robot = importlib.import_module(where).make_adapter(settings)
        self._config, self.name = config, moved(config)

    def hz(self, trained: float | None) -> float:
        """See `Live`: the policy's rate, unless another is given."""
        hz = trained if self._config.hz is None else self._config.hz
        if hz is None:
            raise SpecpolicyError(
                "hz is required: neither the policy nor the robot says how many control steps a second"
            )
        return float(hz)

    def check(self, shapes: Mapping[str, Any], action_dim: int | None, trained: float | None) -> None:
        """See `Live`; `Controller` compares the rates."""
        self.robot.check(shapes, action_dim)

    def hold(self) -> tuple[float | None, ...] | None:
        """See `Live`."""
        from specpolicy.evaluation.tracks import held_action

        told = plain(self._config.hold)
        return self.robot.hold if told is None else held_action(told, {})

    def begin(self, hz: float) -> Any:
        """See `Live`."""
        return self.robot

    def connect(self) -> None:
        """See `Live`."""
        self.robot.connect()

    def done(self) -> bool:
        """See `Live`: only its time ends the run."""
        return False

    def outcome(self, hz: float) -> str:
        """See `Live`."""
        changed = f", {self.robot.changed} of them changed by the robot" if self.robot.changed else ""
        return f"{self.name}: {self.robot.actions} actions sent{changed}"

    def facts(self) -> dict[str, Any]:
        """See `Live`."""
        return {"robot": self.name, "actions": self.robot.actions, "changed_actions": self.robot.changed}


def check_policy(live: Live, policy: Policy) -> None:
    """Refuse a policy that does not fit a robot."""
    shapes = {key: tuple(policy.frame_shape(key)[1:]) for key in policy.observation_keys}
    live.check(shapes, policy.action_dim, policy.control_hz)
