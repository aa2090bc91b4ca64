"""The geometry of the Push-T tasks in the plane: the T, its keypoints, poses and exact coverage.

A pose is (x, y, yaw) in metres and radians. The T's frame sits in its centre of mass, the bar along x, the stem
towards -y. The sizes are those of `assets/push_t.xml`.
"""

import math
from pathlib import Path

import numpy as np

ASSET = Path(__file__).parent / "assets" / "push_t.xml"
ARENA = 0.32  # the pusher stays within +-ARENA (metres) of the centre on both axes
PUSHER_RADIUS = 0.015

UNIT = 0.05  # the T is four units wide and four high, one unit thick
_BAR_Y = 6 / 7 * UNIT  # centre of the bar above the centre of mass: areas 4 and 3, centres 2 units apart
_STEM_Y = _BAR_Y - 2 * UNIT
AREA = 7 * UNIT**2


def _rectangle(centre_y: float, half_width: float, half_height: float) -> list[tuple[float, float]]:
    low, high = centre_y - half_height, centre_y + half_height
    return [(-half_width, low), (half_width, low), (half_width, high), (-half_width, high)]


RECTANGLES = (_rectangle(_BAR_Y, 2 * UNIT, UNIT / 2), _rectangle(_STEM_Y, UNIT / 2, 1.5 * UNIT))
"""Bar and stem, corners counter-clockwise in the T's frame. They share an edge, so areas add up."""

KEYPOINTS = np.array(
    [
        *RECTANGLES[0],
        *RECTANGLES[1][:2],
        (-UNIT / 2, _BAR_Y - UNIT / 2),
        (UNIT / 2, _BAR_Y - UNIT / 2),
        (0.0, 0.0),
    ]
)
"""(9, 2): the eight corners of the T and its centre of mass, in the T's frame."""


def transform(pose: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return points (..., 2) of the T's frame in the world, for one pose (3,) or several (..., 3) that broadcast."""
    cos, sin = np.cos(pose[..., 2]), np.sin(pose[..., 2])
    x, y = points[..., 0], points[..., 1]
    return np.stack([pose[..., 0] + cos * x - sin * y, pose[..., 1] + sin * x + cos * y], axis=-1)


def to_local(pose: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return world points (..., 2) in the frame of one pose (3,): the inverse of `transform`."""
    cos, sin = math.cos(pose[2]), math.sin(pose[2])
    x, y = points[..., 0] - pose[0], points[..., 1] - pose[1]
    return np.stack([cos * x + sin * y, -sin * x + cos * y], axis=-1)


def compose(pose: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """Return poses (..., 3) after motions (..., 3) given in the frame of `pose` (..., 3); the two broadcast."""
    moved = transform(pose, motion[..., :2])
    return np.concatenate([moved, pose[..., 2:] + motion[..., 2:]], axis=-1)


def relative(origin: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Return the motion (3,) that takes pose `origin` (3,) to `pose` (3,): the inverse of `compose`."""
    return np.append(to_local(origin, pose[:2]), wrap(pose[2] - origin[2]))


def wrap(angle: float) -> float:
    """Return the same angle within [-pi, pi)."""
    return (angle + math.pi) % (2 * math.pi) - math.pi


def coverage(block: np.ndarray, goal: np.ndarray) -> float:
    """Return the share of the T's area, in [0, 1], that the T at pose `block` (3,) shares with the T at `goal` (3,)."""
    if math.hypot(block[0] - goal[0], block[1] - goal[1]) > 6 * UNIT:  # out of each other's reach
        return 0.0
    blocks, goals = _world_rectangles(block), _world_rectangles(goal)
    area = sum(_intersection_area(first, second) for first in blocks for second in goals)
    return min(1.0, area / AREA)


def _world_rectangles(pose: np.ndarray) -> list[list[tuple[float, float]]]:
    x, y, yaw = (float(value) for value in pose)
    cos, sin = math.cos(yaw), math.sin(yaw)
    return [[(x + cos * u - sin * v, y + sin * u + cos * v) for u, v in corners] for corners in RECTANGLES]


def _intersection_area(subject: list[tuple[float, float]], clip: list[tuple[float, float]]) -> float:
    """Return the common area of two convex counter-clockwise polygons (Sutherland-Hodgman clipping, then the
    shoelace)."""
    for (ax, ay), (bx, by) in zip(clip, clip[1:] + clip[:1], strict=True):
        ex, ey = bx - ax, by - ay
        sides = [ex * (y - ay) - ey * (x - ax) for x, y in subject]  # positive: inside of this edge
        clipped = []
        for i, (x, y) in enumerate(subject):
            before, here = sides[i - 1], sides[i]
            if (before >= 0) != (here >= 0):
                share = before / (before - here)
                px, py = subject[i - 1]
                clipped.append((px + share * (x - px), py + share * (y - py)))
            if here >= 0:
                clipped.append((x, y))
        if len(clipped) < 3:
            return 0.0
        subject = clipped
    return 0.5 * sum(px * y - x * py for (px, py), (x, y) in zip(subject, subject[1:] + subject[:1], strict=True))


def distance(points: np.ndarray) -> np.ndarray:
    """Return the distance (...,) of points (..., 2) in the T's frame to the T; negative inside."""
    signed = []
    for corners in RECTANGLES:
        (left, low), (right, high) = corners[0], corners[2]
        offset = np.abs(points - np.array([(left + right) / 2, (low + high) / 2]))
        offset = offset - np.array([(right - left) / 2, (high - low) / 2])
        outside = np.linalg.norm(np.maximum(offset, 0.0), axis=-1)
        signed.append(outside + np.minimum(offset.max(axis=-1), 0.0))
    return np.minimum(*signed)
