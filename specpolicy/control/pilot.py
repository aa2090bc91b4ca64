"""One action per control step: the observation history, the requests for chunks, and the queue of their actions.

The same pilot serves the live loop, whose worker computes beside it, and simulated worlds, whose clock says when a
chunk that was computed at once may be used.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from specpolicy.control.checks import check_chunk
from specpolicy.control.chunk import Chunk, history_of
from specpolicy.control.chunk_times import ChunkTiming
from specpolicy.control.clock import Clock
from specpolicy.control.execution import DeadlineMissed, Execution
from specpolicy.control.foresight import Bounds, Foresight
from specpolicy.control.limits import Limits
from specpolicy.control.queue import ChunkQueue
from specpolicy.control.ticks import Tick
from specpolicy.control.timing import TimingLog
from specpolicy.control.worker import Worker
from specpolicy.errors import SpecpolicyError
from specpolicy.images import kept


@dataclass(frozen=True)
class Command:
    """Decision for one control step. `send` is False if a robot gets no new action."""

    action: np.ndarray
    send: bool = True


@dataclass(eq=False)
class _Request:
    step: int
    observed: float
    number: int
    timing: ChunkTiming
    chunk: Chunk | None = None
    usable: int = 0


class Pilot:
    """Decides what to do in each control step of one episode.

    Args:
        worker: computes the chunks; already reset.
        clock: says from which step on a chunk can be used; already reset.
        hz: control steps per second.
        execution: see `Execution`.
        limits: of the actions; None for none.
        action_shape: of one action, if known; else taken from the first chunk.
        timeout: longest wait for a chunk in seconds, for the first one and for all in a simulated world; may be
            changed.
        log: records the times.
        on_chunk: called with each chunk when it has been computed.
        bounds: between which the robot clips its actions, as far as known; a planner is told of committed actions as
            they will be executed.

    Raises:
        SpecpolicyError: chunks shall continue committed actions, and the planner does not take them.
    """

    def __init__(
        self,
        worker: Worker,
        clock: Clock,
        hz: float,
        execution: Execution | None = None,
        limits: Limits | None = None,
        action_shape: tuple[int, ...] | None = None,
        timeout: float = 60.0,
        log: TimingLog | None = None,
        on_chunk: Callable[[Chunk], object] = lambda chunk: None,
        bounds: Bounds | None = None,
    ):
        self.log = log or TimingLog(hz, clock.name, worker.name)
        self._worker, self._clock, self._period = worker, clock, 1.0 / hz
        self._execution, self._limits = execution or Execution(), limits
        self._execution.check(getattr(worker, "continues", False), clock.simulated)
        self._foresight = Foresight(self._execution, limits, bounds, self._period, clock.simulated)
        self._action_shape, self.timeout, self._on_chunk = action_shape, timeout, on_chunk
        self._every = self._execution.execute_steps or worker.n_action_steps
        self._frames: deque[Mapping[str, np.ndarray]] = deque(maxlen=worker.n_obs_steps)
        ensembling = self._execution.stitching == "temporal_ensembling"
        self._queue = ChunkQueue(self._execution.ensemble_decay if ensembling else None)
        self._pending: list[_Request] = []  # in the order of their steps
        self._next_request = 0
        self._last: np.ndarray | None = None

    @property
    def pending_since(self) -> float | None:
        """Time of the first request that is being computed, in seconds from the beginning of step 0."""
        return next((request.observed for request in self._pending if request.chunk is None), None)

    def begin(self, observation: Mapping[str, np.ndarray], slowest: float = 0.0) -> None:
        """Plan the first chunk, before control step 0, so that an episode begins with something to execute.

        The observation stands for the whole history.

        Args:
            observation: the first one.
            slowest: seconds of the slowest call so far, which the lead allows for.

        Raises:
            SpecpolicyError: the chunk is late or cannot be executed; `hold`, the limits or the lead do not fit it.
        """
        self._frames.extend([_copied(observation)] * self._worker.n_obs_steps)
        request = self._ask(0, 0.0)
        chunk = request.chunk = self._wait_for_chunk(request)
        execution, length = self._execution, len(chunk.actions)
        lead = self._clock.delay_steps(max(slowest, chunk.seconds)) if execution.lead is None else execution.lead
        self.log.lead = 0 if execution.pauses else lead
        if not self._clock.simulated and not execution.readdresses and lead >= length:
            raise SpecpolicyError(
                f"a chunk is due {lead} control steps after its observation and has only {length} actions: "
                "use a faster sampler or fewer control steps per second"
            )
        if self._limits:
            self._limits.check(chunk.actions.shape[1])
        if execution.hold is not None and len(execution.hold) != chunk.actions.shape[1]:
            raise SpecpolicyError(f"hold has {len(execution.hold)} entries, an action has {chunk.actions.shape[1]}")
        if not self._clock.simulated:
            request.observed = -chunk.seconds
        self._accept(request, 0)
        self._next_request = max(0, self._every - self.log.lead)

    def start_at(self, start: np.ndarray) -> None:
        """Count the rate of the first action from the robot's position `start`, (D,) or (), as an action. Call it
        between `begin` and `tick`.

        Raises:
            SpecpolicyError: its number of entries is not that of an action.
        """
        assert self._action_shape is not None
        if start.shape not in ((), self._action_shape):
            raise SpecpolicyError(f"the start pose has {len(start)} entries, an action has {self._action_shape[0]}")
        self._last = np.array(np.broadcast_to(start, self._action_shape))

    def tick(self, step: int, seconds: float, observation: Mapping[str, np.ndarray]) -> Command:
        """Take the observation of control step `step` and decide what to do in it.

        Args:
            step: counted from 0, in order; the wall clock skips some.
            seconds: when the step began, from the beginning of step 0.
            observation: of this step.

        Raises:
            SpecpolicyError: a chunk cannot be executed, or the worker has failed.
            DeadlineMissed: a chunk is late and the miss policy is `stop`.
        """
        self._frames.append(_copied(observation))
        self._collect(step)
        exhausted = self._queue.end <= step and not self._pending
        if len(self._pending) < self._execution.in_flight and (step >= self._next_request or exhausted):
            self._ask(step, seconds)
            self._collect(step)
        planned = None if self._must_wait(step) else self._queue.action(step)
        if planned is None and self._execution.on_miss == "stop" and not self._execution.pauses:
            raise DeadlineMissed(f"no chunk was there for control step {step} when it was due (on_miss=stop)")
        wanted = self._held() if planned is None else planned.action
        action = self._foresight.sent(wanted, self._last)
        if not np.isfinite(action).all():
            raise SpecpolicyError("the action to execute is not finite")
        send = planned is not None or self._execution.on_miss != "block"
        executed = send or self._clock.simulated
        self.log.ticks.append(
            Tick(
                step,
                seconds,
                age=None if planned is None else seconds - planned.observed,
                chunk=None if planned is None else planned.chunk,
                limited=not np.array_equal(action, wanted),
                jump=float(np.linalg.norm(action - self._last)) if executed and self._last is not None else None,
            )
        )
        if executed:  # rate limits count from one action that the robot received to the next
            self._last = action
        return Command(action.copy(), send)  # a driver may scale it in place

    def _ask(self, step: int, seconds: float) -> _Request:
        timing = ChunkTiming(step, step + self.log.lead)
        request = _Request(step, seconds, len(self.log.chunks), timing)
        self.log.chunks.append(timing)
        self._next_request = step + self._every
        frames = list(self._frames)
        history = history_of(frames, getattr(self._worker, "pictures", None))
        # What a chunk in flight will say is not known yet, and one that is late may change the next action already.
        lead = min([self.log.lead, *(max(0, one.timing.due - step) for one in self._pending)])
        committed = self._foresight.committed(self._queue, step, lead, self._last)
        if committed is None:
            self._worker.submit(history)
        else:
            self._worker.submit(history, committed)
        self._pending.append(request)
        return request

    def _receive(self, request: _Request, timeout: float = 0.0) -> Chunk | None:
        """Return the chunk of the newest request, checked and recorded, if it has been computed."""
        chunk = self._worker.result(timeout)
        if chunk is None:
            return None
        check_chunk(chunk, self._action_shape)
        self._action_shape = chunk.actions.shape[1:]
        timing = request.timing
        timing.seconds, timing.network_seconds = chunk.seconds, chunk.network_seconds
        timing.encode_seconds, timing.calls, timing.rows = chunk.encode_seconds, chunk.calls, chunk.rows
        self._on_chunk(chunk)
        return chunk

    def _wait_for_chunk(self, request: _Request) -> Chunk:
        chunk = self._receive(request, self.timeout)
        if chunk is None:
            raise SpecpolicyError(f"inference has not answered for {self.timeout:g} s")
        return chunk

    def _collect(self, step: int) -> None:
        """Put into the queue what has been computed and what the clock allows to use."""
        for request in tuple(self._pending):
            if request.chunk is None:
                simulated = self._clock.simulated
                request.chunk = self._wait_for_chunk(request) if simulated else self._receive(request)
                if request.chunk is None:
                    return
                # On the wall clock it has come already. It may fill the step it is there for, even if `observe` took
                # so long that the next one is due; but not the step it was asked for in, which then waited for it.
                there = not simulated and request.step < step
                request.usable = step if there else self._clock.usable_step(request.step, request.chunk.seconds)
                if self._execution.continues and self._execution.in_flight > 1:
                    # Until it is due, other chunks in flight were told that nothing changes.
                    request.usable = max(request.usable, request.timing.due)
            if step >= request.usable:
                self._accept(request, step)

    def _accept(self, request: _Request, step: int) -> None:
        assert request.chunk is not None
        start = step if self._execution.readdresses else request.step
        self._queue.add(request.chunk.actions, start, request.observed, request.number)
        if self._execution.readdresses:  # all of its actions are still to come
            self._next_request = step + max(0, self._every - self.log.lead)
        timing = request.timing
        timing.expired = start + len(request.chunk.actions) <= step
        if timing.missed:
            timing.late_steps = step - timing.due
        place = self._pending.index(request)
        for older in self._pending[:place]:  # it has been overtaken
            older.timing.expired = True
        for finished in self._pending[: place + 1]:
            self.log.chunks.finish(finished.number)
        del self._pending[: place + 1]

    def _must_wait(self, step: int) -> bool:
        """Whether to wait for the pending chunk, although the previous one may still have actions."""
        if self._execution.pauses:
            return bool(self._pending)
        late = [request for request in self._pending if step >= request.timing.due]
        for request in late:
            request.timing.missed = True
        return bool(late) and self._execution.on_miss != "continue_chunk"

    def _held(self) -> np.ndarray:
        if self._last is None:
            raise SpecpolicyError("the first chunk was over before its first action could be executed")
        return self._execution.held(self._last)


def _copied(observation: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Copy a frame to keep, because a driver may fill the same arrays again."""
    return {key: kept(value) for key, value in observation.items()}
