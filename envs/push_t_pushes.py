"""Effects of straight pushes on the T, for every contact and direction: a table simulated once in MuJoCo.

The T's motion is heavily damped and the same in all directions, so a push has the same effect in the T's own frame at
any pose of the T. One table therefore serves all poses and all goals.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import mujoco
import numpy as np

from specpolicy_envs import push_t_geometry as geometry
from specpolicy_envs.push_t_geometry import ASSET, PUSHER_RADIUS

SPACING = 0.005  # between neighbouring contacts, metres
GAP = 0.002  # a push begins this far from the T's side
DIRECTIONS = np.radians(np.arange(-40, 41, 10))  # from the inward normal
LENGTHS = np.arange(1, 51) * 0.004  # of the pusher's way, metres
_SPEED = 0.15
_RECORD_EVERY = 4  # physics steps


@dataclass(frozen=True)
class Pushes:
    """Table of pushes, all in the T's frame at the start of the push; C contacts, D directions, L lengths.

    Attributes:
        start: (C, 2) pusher positions before the push.
        outward: (C, 2) unit normals of the touched side.
        direction: (C, D, 2) unit vectors of the pusher's way.
        motion: (C, D, L, 3) the T's displacement (x, y, yaw) once the pusher has gone LENGTHS.
    """

    start: np.ndarray
    outward: np.ndarray
    direction: np.ndarray
    motion: np.ndarray


def outline(clearance: float, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Return points (N, 2) all round the T at this distance from it, counter-clockwise, and their outward normals (N,
    2)."""
    corners = _corners()
    points, normals = [], []
    for index, corner in enumerate(corners):
        following = corners[(index + 1) % len(corners)]
        along = following - corner
        length = float(np.hypot(*along))
        normal = np.array([along[1], -along[0]]) / length
        before = corner - corners[index - 1]
        previous = np.array([before[1], -before[0]]) / np.hypot(*before)
        if before[0] * along[1] - before[1] * along[0] > 0:  # a convex corner: go round it on an arc
            first = math.atan2(previous[1], previous[0])
            count = max(2, math.ceil(clearance * math.pi / 2 / spacing))
            angles = first + math.pi / 2 * np.arange(count) / count
            arc = np.stack([np.cos(angles), np.sin(angles)], axis=1)
            points.append(corner + clearance * arc)
            normals.append(arc)
        count = max(1, round(length / spacing))
        share = (np.arange(count) + 0.5) / count
        points.append(corner + share[:, None] * along + clearance * normal)
        normals.append(np.repeat(normal[None], count, axis=0))
    everything, outward = np.concatenate(points), np.concatenate(normals)
    free = geometry.distance(everything) > clearance - 1e-6  # inner corners: drop points too near the other side
    return everything[free], outward[free]


@lru_cache(maxsize=1)
def push_table() -> Pushes:
    """Simulate every push once. It takes about a second; the process keeps the result."""
    start, outward = _contacts()
    inward = -outward[:, None]
    cos, sin = np.cos(DIRECTIONS), np.sin(DIRECTIONS)
    direction = np.stack(
        [cos * inward[..., 0] - sin * inward[..., 1], sin * inward[..., 0] + cos * inward[..., 1]], axis=-1
    )
    model = mujoco.MjModel.from_xml_path(str(ASSET))
    model.jnt_limited[:] = 0
    model.actuator_ctrllimited[:] = 0
    data = mujoco.MjData(model)
    motion = np.array(
        [[_simulate(model, data, start[c], direction[c, d]) for d in range(len(DIRECTIONS))] for c in range(len(start))]
    )
    return Pushes(start, outward, direction, motion)


def _corners() -> np.ndarray:
    """Return the (8, 2) corners of the T's outline, counter-clockwise."""
    bar, stem = (np.array(corners) for corners in geometry.RECTANGLES)
    inner = bar[0, 1]
    return np.array([bar[0], [stem[0, 0], inner], stem[0], stem[1], [stem[1, 0], inner], bar[1], bar[2], bar[3]])


def _contacts() -> tuple[np.ndarray, np.ndarray]:
    """Return push starts (C, 2) along the straight sides, and their outward normals (C, 2)."""
    points, normals = outline(PUSHER_RADIUS + GAP, SPACING)
    straight = np.abs(normals).max(axis=1) > 1 - 1e-9
    touched = points - normals * (PUSHER_RADIUS + GAP)
    from_corner = np.linalg.norm(touched[:, None] - _corners(), axis=-1).min(axis=1)
    keep = straight & (from_corner > 0.4 * SPACING)
    return points[keep], normals[keep]


def _simulate(model: mujoco.MjModel, data: mujoco.MjData, start: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Return the (L, 3) displacement of the T when the pusher goes LENGTHS from `start` along `direction`."""
    mujoco.mj_resetData(model, data)
    data.qpos[3:5] = start
    gone, poses, way = [0.0], [np.zeros(3)], 0.0
    while gone[-1] < LENGTHS[-1]:
        way += _SPEED * _RECORD_EVERY * model.opt.timestep
        data.ctrl[:] = start + way * direction
        mujoco.mj_step(model, data, nstep=_RECORD_EVERY)
        gone.append(float((data.qpos[3:5] - start) @ direction))
        poses.append(data.qpos[:3].copy())
    recorded = np.array(poses)
    return np.stack([np.interp(LENGTHS, gone, recorded[:, axis]) for axis in range(3)], axis=1)
