"""Scripted expert for Push-T: choose the push that leaves the least work, walk round the T to it, push, look again.

It sees observations only. `push_t_pushes` simulates the effect of every push in a separate MuJoCo model, and pushes are
chosen two ahead. Among about equally good pushes and ways round the T it chooses at random, so that demonstrations have
several modes. A chosen push is carried through.
"""

import math
from dataclasses import dataclass

import numpy as np

from specpolicy_envs import push_t_geometry as geometry
from specpolicy_envs.push_t_geometry import ARENA
from specpolicy_envs.push_t_paths import Paths
from specpolicy_envs.push_t_pushes import LENGTHS, push_table

CONTROL_SECONDS = 0.1
TRAVEL_REACH = 0.04  # largest distance from the pusher to its target while it walks, metres
PUSH_REACH = 0.018  # the same while it pushes
TRAVEL_GAIN = 0.7  # share of the reach covered in one control step, walking and pushing
PUSH_GAIN = 0.65
TURN_RADIUS = 0.07  # metres of error that count as much as one radian, about the T's radius of gyration
TOLERANCE = 0.0015  # metres: a smaller error is not worth a push
STEPS_PER_FOLD = 20.0  # control steps that reducing the error by a factor e is worth, near the goal
STEPS_PER_METRE = 500.0  # control steps that reducing the error by a metre is worth, far from the goal
STEPS_PER_PUSH = 6.0  # cost of beginning another push, beyond its way
AT_START = 0.006  # a push begins when the pusher is this near to its start, metres
LOST = 0.012  # a push is given up when the pusher is farther than this from every contact
DONE = 0.0012  # a push is over when it can bring the T no nearer than this to its intended end
ARENA_USED = ARENA - 0.005  # the pusher stays within this
MAX_BLOCK = 0.155  # the T's centre stays within this on both axes
FOREVER = 1e3


@dataclass
class Plan:
    """The next push.

    Attributes:
        contact: index of its contact in the table.
        direction: index of its direction.
        result: (3,) intended pose of the T after it, in the frame of the goal.
        side: the way round the T, +1 counter-clockwise.
        pushing: whether the push has begun.
    """

    contact: int
    direction: int
    result: np.ndarray
    side: int
    pushing: bool = False


class PushTExpert:
    """Acts on Push-T observations; `reset` draws a new random stream for its choices.

    Args:
        seed: of the random choices until the first `reset`.
        push_temperature: control steps by which a push may be worse than the best and still be chosen often.
        side_temperature: the same for the two ways round the T.
    """

    def __init__(self, seed: int = 0, push_temperature: float = 0.2, side_temperature: float = 3.0) -> None:
        self.push_temperature = push_temperature
        self.side_temperature = side_temperature
        self._pushes = push_table()
        self._paths = Paths(self._pushes.start)
        count, directions, lengths = self._pushes.motion.shape[:3]
        coarse = np.meshgrid(
            np.arange(1, count, 4), np.arange(1, directions, 3), [5, 14, 26, lengths - 6], indexing="ij"
        )
        self._coarse = tuple(index.ravel() for index in coarse)
        self._coarse_motion = self._pushes.motion[self._coarse]
        self._coarse_end = self._end(*self._coarse)
        self.reset(seed)

    def reset(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._plan: Plan | None = None
        self._goal = np.full(3, np.nan)
        self._goal_velocity = np.zeros(3)

    def act(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        """Return the pusher's next target (2,) float32 in metres, from one observation."""
        pusher = np.asarray(observation["agent_pos"], dtype=np.float64)
        block = _pose(observation["block_pose"])
        self._follow_goal(_pose(observation["goal_pose"]))
        local = geometry.to_local(block, pusher)
        for _ in range(2):  # after a push ends, the next one begins in the same step
            if self._plan is None:
                self._plan = self._choose(local, block)
            plan = self._plan
            plan.pushing |= bool(np.linalg.norm(self._pushes.start[plan.contact] - local) < AT_START)
            if not plan.pushing:
                break
            target = self._push(pusher, local, block, plan)
            if target is not None:
                return target
            self._plan = None
        if self._plan is None or not self._still_good(local, block, self._plan):
            self._plan = self._choose(local, block)
        waypoint = self._paths.waypoint(local, self._plan.contact, self._plan.side)
        return _towards(pusher, geometry.transform(block, waypoint), TRAVEL_REACH, TRAVEL_GAIN)

    # Choosing: scores are control steps ---------------------------------------------------------------------------

    def _choose(self, local: np.ndarray, block: np.ndarray) -> Plan:
        ways = self._paths.lengths(local)
        steps = _steps(ways.min(axis=1)[:, None, None], LENGTHS)
        steps = steps + FOREVER * self._leaves_arena(block)
        after = geometry.compose(block, self._pushes.motion)
        single = steps + self._work(after, steps)
        # Evaluate two ahead: the best lengths of the best contacts and directions, and a coarse grid of all pushes.
        length = single.argmin(axis=2)
        best = np.argsort(single.min(axis=2), axis=None)[:48]
        contact, direction = np.unravel_index(best, length.shape)
        firsts = tuple(
            np.concatenate(pair)
            for pair in zip((contact, direction, length[contact, direction]), self._coarse, strict=True)
        )
        scores = np.minimum(single[firsts], self._second(firsts, after[firsts], steps[firsts]))
        chance = np.exp(-(scores - scores.min()) / self.push_temperature)
        index = int(self._random.choice(len(chance), p=chance / chance.sum()))
        chosen = tuple(int(axis[index]) for axis in firsts)
        result = geometry.relative(self._goal_after(steps[chosen]), after[chosen])
        return Plan(chosen[0], chosen[1], result, self._choose_side(ways[chosen[0]]))

    def _second(self, firsts: tuple[np.ndarray, ...], after: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Return (N,) steps until done when the best coarse second push follows each first one, which ends in
        `after`."""
        between = self._paths.between[firsts[0][:, None], self._coarse[0][None]]
        total = steps[:, None] + _steps(between, LENGTHS[self._coarse[2]]) + STEPS_PER_PUSH
        total = total + FOREVER * _outside(geometry.transform(after[:, None], self._coarse_end[None]), ARENA_USED)
        return (total + self._work(geometry.compose(after[:, None], self._coarse_motion[None]), total)).min(axis=1)

    def _choose_side(self, ways: np.ndarray) -> int:
        longer = (ways[0] - ways[1]) / (TRAVEL_REACH * TRAVEL_GAIN * self.side_temperature)
        counter_clockwise = 1.0 / (1.0 + math.exp(np.clip(longer, -50.0, 50.0)))
        return 1 if self._random.random() < counter_clockwise else -1

    def _still_good(self, local: np.ndarray, block: np.ndarray, plan: Plan) -> bool:
        """Whether the planned push still brings the T about where it should (the T or the goal may have moved)."""
        after = geometry.compose(block, self._pushes.motion[plan.contact, plan.direction])
        wanted = geometry.compose(self._goal, plan.result)
        return bool(_error(after, wanted).min() < max(0.01, 0.4 * _error(block, wanted)))

    def _work(self, block: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Return (...) steps of work that remain when the T is at `block` (..., 3) after `steps` (...)."""
        error = _error(block, self._goal_after(steps))
        near = STEPS_PER_FOLD * np.log(np.maximum(error, TOLERANCE) / TOLERANCE)
        return near + STEPS_PER_METRE * error + FOREVER * _outside(block, MAX_BLOCK)

    def _leaves_arena(self, block: np.ndarray) -> np.ndarray:
        """Return (C, D, L) whether the pusher would have to leave the arena."""
        everything = np.ix_(*(np.arange(size) for size in self._pushes.motion.shape[:3]))
        start = geometry.transform(block, self._pushes.start)[:, None, None]
        return _outside(start, ARENA_USED) | _outside(geometry.transform(block, self._end(*everything)), ARENA_USED)

    def _end(self, contact: np.ndarray, direction: np.ndarray, length: np.ndarray) -> np.ndarray:
        """Return (..., 2) the pusher's position after these pushes, in the frame of the T before them."""
        return self._pushes.start[contact] + self._pushes.direction[contact, direction] * LENGTHS[length][..., None]

    # Pushing ------------------------------------------------------------------------------------------------------

    def _push(self, pusher: np.ndarray, local: np.ndarray, block: np.ndarray, plan: Plan) -> np.ndarray | None:
        """Return the next target of the present push, steered by the T's motion; None when the push is done."""
        wanted = geometry.compose(self._goal_after(2.0), plan.result)
        offset = np.linalg.norm(self._pushes.start - local, axis=1)
        contacts = np.flatnonzero(offset < LOST)
        if len(contacts) == 0:
            return None
        # Prefer the pusher's own contact: for the others the effect from here is only a guess.
        errors = _error(geometry.compose(block, self._pushes.motion[contacts]), wanted)
        errors = errors + 0.3 * offset[contacts][:, None, None]
        row, direction, length = (int(i) for i in np.unravel_index(errors.argmin(), errors.shape))
        if errors[row, direction, length] > _error(block, wanted) - DONE:
            return None
        plan.contact, plan.direction = int(contacts[row]), direction
        end = self._end(*(np.array(index) for index in (plan.contact, direction, length)))
        return _towards(pusher, geometry.transform(block, end), PUSH_REACH, PUSH_GAIN)

    def _follow_goal(self, goal: np.ndarray) -> None:
        """Estimate the goal's velocity (3,) from its last poses."""
        if np.isfinite(self._goal).all():
            change = goal - self._goal
            change[2] = geometry.wrap(change[2])
            self._goal_velocity += 0.5 * (change / CONTROL_SECONDS - self._goal_velocity)
        self._goal = goal

    def _goal_after(self, steps: np.ndarray | float) -> np.ndarray:
        """Return (..., 3) the goal's pose after `steps` (...), if it goes on for at most three seconds."""
        ahead = np.minimum(steps, 30.0) * CONTROL_SECONDS
        return self._goal + np.asarray(ahead)[..., None] * self._goal_velocity


def _steps(travel: np.ndarray, length: np.ndarray) -> np.ndarray:
    return travel / (TRAVEL_REACH * TRAVEL_GAIN) + length / (PUSH_REACH * PUSH_GAIN)


def _outside(points: np.ndarray, limit: float) -> np.ndarray:
    """Return (...) whether points or poses (..., 2 or 3) are outside a square of half-width `limit`."""
    return (np.abs(points[..., 0]) > limit) | (np.abs(points[..., 1]) > limit)


def _error(block: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return (...) metres between poses (..., 3): the approximate distance of the T's points."""
    off = block - wanted
    turn = np.remainder(off[..., 2] + np.pi, 2 * np.pi) - np.pi
    return np.sqrt(off[..., 0] ** 2 + off[..., 1] ** 2 + (TURN_RADIUS * turn) ** 2)


def _pose(observed: np.ndarray) -> np.ndarray:
    x, y, cos, sin = (float(value) for value in observed)
    return np.array([x, y, math.atan2(sin, cos)])


def _towards(pusher: np.ndarray, point: np.ndarray, reach: float, gain: float) -> np.ndarray:
    """Return a target beyond `point` by the pusher's expected lag, but no farther than `reach` from the pusher."""
    way = point - pusher
    distance = float(np.hypot(*way))
    step = min(distance / gain, reach)
    target = pusher + way / max(distance, 1e-9) * step
    return np.clip(target, -ARENA, ARENA).astype(np.float32)
