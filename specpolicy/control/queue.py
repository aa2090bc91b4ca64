"""The queue of planned actions, addressed by absolute control step."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PlannedAction:
    """The planned action of one control step.

    Attributes:
        action: (D,).
        observed: time of the observation behind it, in seconds since step 0; a mean over blended chunks.
        chunk: number of the newest chunk in it.
    """

    action: np.ndarray
    observed: float
    chunk: int


@dataclass(frozen=True)
class _Segment:
    actions: np.ndarray
    start: int
    observed: float
    chunk: int

    def __contains__(self, step: int) -> bool:
        return self.start <= step < self.start + len(self.actions)


class ChunkQueue:
    """Chunks by the control steps of their actions. The newest chunk with an action for a step decides.

    An action that was not used at its step is gone: a late chunk loses its first entries.

    Args:
        ensemble_decay: blend all chunks with an action for a step instead, with weights exp(-ensemble_decay * i), i = 0
            for the oldest of them (temporal ensembling: Zhao et al. 2023, arXiv:2304.13705, section IV.A).
    """

    def __init__(self, ensemble_decay: float | None = None):
        self._decay = ensemble_decay
        self._segments: list[_Segment] = []

    def add(self, actions: np.ndarray, start: int, observed: float, chunk: int) -> None:
        """Add a chunk (T, D) whose first action belongs to step `start`.

        Args:
            actions: the chunk.
            start: step of its first action.
            observed: see `PlannedAction`.
            chunk: its number among all that were requested, of which some may never be added.
        """
        self._segments.append(_Segment(np.asarray(actions), start, observed, chunk))

    def action(self, step: int) -> PlannedAction | None:
        """Return the action for `step`, None if no chunk has one. Call it with rising steps; older ones are
        forgotten."""
        self._segments = [one for one in self._segments if step < one.start + len(one.actions)]
        return self._planned(step)

    def upcoming(self, step: int) -> Iterator[np.ndarray]:
        """Yield the actions (D,) from `step` on, as they stand now, up to the first step for which no chunk has one."""
        while (planned := self._planned(step)) is not None:
            yield planned.action
            step += 1

    def _planned(self, step: int) -> PlannedAction | None:
        known = [one for one in self._segments if step in one]
        if not known:
            return None
        newest = known[-1]
        if self._decay is None:
            return PlannedAction(newest.actions[step - newest.start], newest.observed, newest.chunk)
        weights = np.exp(-self._decay * np.arange(len(known)))
        weights /= weights.sum()
        action = weights @ np.stack([one.actions[step - one.start] for one in known])
        return PlannedAction(action, float(weights @ [one.observed for one in known]), newest.chunk)

    @property
    def end(self) -> int:
        """The first step that no chunk reaches."""
        return max((one.start + len(one.actions) for one in self._segments), default=0)
