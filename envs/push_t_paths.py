"""Ways of the pusher round the T without touching it, in the T's frame."""

import numpy as np

from specpolicy_envs import push_t_geometry as geometry
from specpolicy_envs.push_t_geometry import PUSHER_RADIUS
from specpolicy_envs.push_t_pushes import outline

CLEARANCE = PUSHER_RADIUS + 0.012  # between the pusher's centre and the T on the way round
_TOLERANCE = 0.0015


class Paths:
    """Ways to fixed points close to the T: straight where nothing is between, else along a ring round the T.

    Args:
        ends: (C, 2) possible ends of ways.
    """

    def __init__(self, ends: np.ndarray) -> None:
        self.ends = ends
        self._ring, _ = outline(CLEARANCE, 0.01)
        gaps = np.linalg.norm(np.diff(self._ring, axis=0, append=self._ring[:1]), axis=1)
        self._total = float(gaps.sum())
        self._along = np.concatenate([[0.0], np.cumsum(gaps)[:-1]])
        to_ring = np.linalg.norm(self._ring - ends[:, None], axis=-1)
        self._exit = to_ring.argmin(axis=1)
        self._exit_length = to_ring.min(axis=1)
        self.between = np.stack([self.lengths(end).min(axis=1) for end in ends])
        """(C, C) metres of the shortest way from each end to each other."""

    def lengths(self, start: np.ndarray) -> np.ndarray:
        """Return (C, 2) metres from `start` (2,) to each end, counter-clockwise and clockwise; equal where the way is
        straight."""
        entry = int(np.linalg.norm(self._ring - start, axis=1).argmin())
        arc = (self._along[self._exit] - self._along[entry]) % self._total
        round_about = np.stack([arc, (self._total - arc) % self._total], axis=1)
        round_about += (np.linalg.norm(self._ring[entry] - start) + self._exit_length)[:, None]
        straight = np.linalg.norm(self.ends - start, axis=1)
        return np.where(_visible(start, self.ends)[:, None], straight[:, None], round_about)

    def waypoint(self, start: np.ndarray, end: int, side: int) -> np.ndarray:
        """Return (2,) the farthest point on the way to an end that a straight line reaches; side +1 is
        counter-clockwise."""
        entry = int(np.linalg.norm(self._ring - start, axis=1).argmin())
        count = ((int(self._exit[end]) - entry) * side) % len(self._ring)
        way = self._ring[(entry + side * np.arange(count + 1)) % len(self._ring)]
        way = np.concatenate([way, self.ends[end][None]])
        visible = np.flatnonzero(_visible(start, way))
        return way[visible[-1]] if len(visible) else way[0]


def _visible(start: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return (N,) whether the pusher at `start` (2,) can go straight to each of `points` (N, 2) without touching the
    T."""
    share = np.linspace(0.0, 1.0, 24)[1:, None]
    line = start + share * (points[:, None] - start)
    # Ends may be close to the T, so the line may come as close as its ends do.
    ends = np.minimum(geometry.distance(points), geometry.distance(start))
    return (geometry.distance(line) >= np.minimum(ends, CLEARANCE)[:, None] - _TOLERANCE).all(axis=1)
