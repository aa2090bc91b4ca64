"""The pilot in simulated worlds: which observation is behind which action, for every stitching and miss policy."""

import numpy as np
import pytest
from flying import fly, observation
from scripted import Numbered, Steps, Trace

from specpolicy.committed import WAYS
from specpolicy.control.clock import ChargedClock, DelayClock, PausedClock, WallClock
from specpolicy.control.execution import ON_MISS, STITCHING, DeadlineMissed, Execution
from specpolicy.control.limits import Limits
from specpolicy.control.pilot import Pilot
from specpolicy.control.worker import InlineWorker
from specpolicy.errors import SpecpolicyError


def ages(log):
    """Steps from the observation behind each action to it; None where it was held."""
    return [None if tick.age is None else round(10 * tick.age) for tick in log.ticks]


def requests(log):
    return [chunk.step for chunk in log.chunks]


def test_a_waiting_world_replans_at_the_end_of_what_it_executes():
    actions, sent, log = fly(Steps(), PausedClock())
    assert actions == list(range(16)) and all(sent)
    assert ages(log) == 4 * [0, 1, 2, 3] and requests(log) == [0, 4, 8, 12]


@pytest.mark.parametrize("delay", (0, 1, 2, 4))
def test_actions_keep_their_control_steps_however_old_their_observation(delay):
    """A perfect forecast is executed without a gap or a repetition, whatever the delay."""
    actions, _, log = fly(Steps(), DelayClock(delay))
    assert actions == list(range(16))
    # The first chunk has nothing to wait for; from the second on, each is used for four steps when it comes.
    assert ages(log)[4:] == 3 * list(range(delay, delay + 4))
    assert log.misses == log.starved_ticks == 0 and log.lead == delay


def test_a_chunk_is_asked_for_while_the_one_before_is_executed():
    _, _, log = fly(Steps(), DelayClock(3), steps=14)
    assert requests(log) == [0, 1, 5, 9, 13] and [chunk.due for chunk in log.chunks[1:]] == [4, 8, 12, 16]


def test_the_history_holds_the_newest_frames():
    planner = Steps(n_obs_steps=3)
    fly(planner, DelayClock(1))
    assert [history["step"].tolist() for history in planner.histories[:3]] == [[0, 0, 0], [1, 2, 3], [5, 6, 7]]


def test_replanning_more_often_makes_observations_fresher():
    _, _, log = fly(Steps(), DelayClock(1), execute_steps=1)
    assert ages(log)[1:] == 15 * [1] and requests(log) == [0, *range(16)]


def test_inference_slower_than_the_plan_is_asked_again_when_it_is_done():
    """Replanning every 2 steps with a delay of 5: requests every 5 steps, and every chunk is late by 4."""
    actions, _, log = fly(Steps(length=12), DelayClock(5), steps=17, execute_steps=2, lead=1)
    assert requests(log) == [0, 1, 6, 11, 16] and actions == list(range(17))
    assert [chunk.late_steps for chunk in log.chunks[1:4]] == [4, 4, 4] and log.misses == 3


def test_continuing_a_chunk_and_then_holding():
    """The second chunk is due at step 4 and there at step 10; the first one reaches to step 8."""
    actions, sent, log = fly(Steps(), ChargedClock(10), steps=4)
    planner = Steps(length=8, seconds=0.7)
    actions, sent, log = fly(planner, ChargedClock(10), steps=12, lead=1)
    assert actions == [0, 1, 2, 3, 4, 5, 6, 7, 7, 7, 10, 10] and all(sent)
    assert log.chunks[1].missed and log.chunks[1].late_steps == 6 and log.starved_ticks == 3
    assert [tick.chunk for tick in log.ticks[8:]] == [None, None, 1, None]


def test_holding_the_last_action():
    actions, sent, log = fly(Steps(), DelayClock(3), steps=12, lead=1, on_miss="hold_last")
    assert actions == [0, 1, 2, 3, 3, 3, 6, 7, 7, 7, 10, 11] and all(sent)
    assert log.starved_ticks == 4 and log.misses == 2


def test_blocking_sends_nothing_until_the_chunk_is_there():
    actions, sent, _ = fly(Steps(), DelayClock(3), steps=8, lead=1, on_miss="block")
    assert actions == [0, 1, 2, 3, 3, 3, 6, 7] and sent == [True] * 4 + [False] * 2 + [True] * 2


def test_stopping_at_a_missed_deadline():
    with pytest.raises(DeadlineMissed, match="control step 4"):
        fly(Steps(), DelayClock(3), lead=1, on_miss="stop")
    actions, _, _ = fly(Steps(), DelayClock(3), on_miss="stop")
    assert actions == list(range(16))
    with pytest.raises(DeadlineMissed, match="control step 6"):  # on time, but too short
        fly(Steps(length=6), DelayClock(6), execute_steps=6, on_miss="stop")


def test_what_is_held_can_be_chosen_per_dimension():
    planner = Steps()
    worker = InlineWorker(planner)
    worker.reset(0)
    pilot = Pilot(worker, DelayClock(3), 10, Execution(lead=1, on_miss="hold_last", hold=(0.0, None)))
    pilot.begin(observation(0))
    actions = [pilot.tick(step, step / 10, observation(step)).action.tolist() for step in range(7)]
    assert actions[3:] == [[3, 3], [0, 3], [0, 3], [6, 6]]


def test_a_naive_switch_begins_each_chunk_with_its_first_action():
    actions, _, log = fly(Steps(), DelayClock(2), steps=12, stitching="naive_switch")
    # Asked for at step 2, there at step 4, and then executed from its beginning: for step 2.
    assert actions == [0, 1, 2, 3, 2, 3, 4, 5, 6, 7, 8, 9]
    assert requests(log) == [0, 2, 6, 10] and ages(log)[4:] == 2 * [2, 3, 4, 5]
    assert log.boundary_jumps == pytest.approx([np.sqrt(2), np.sqrt(2)])


def test_a_synchronous_pause_holds_while_it_plans():
    actions, sent, log = fly(Steps(), DelayClock(2), steps=14, stitching="sync_pause")
    assert actions == [0, 1, 2, 3, 3, 3, 4, 5, 6, 7, 7, 7, 10, 11] and all(sent)
    assert requests(log) == [0, 4, 10] and log.misses == 0 and log.starved_ticks == 4
    assert log.boundary_jumps == pytest.approx([np.sqrt(2), 3 * np.sqrt(2)])  # from 3, held, to 4; from 7 to 10


def test_temporal_ensembling_blends_all_chunks_that_know_a_step():
    class Counted(Steps):
        def plan(self, history):
            chunk = super().plan(history)
            chunk.actions[:] = 100.0 * (len(self.histories) - 1)
            return chunk

    options = {"execute_steps": 2, "stitching": "temporal_ensembling", "ensemble_decay": 0.5}
    actions, _, log = fly(Counted(length=6), DelayClock(1), steps=10, **options)
    # Chunk k >= 1 is of step 2 k - 1, there at step 2 k, and reaches to step 2 k + 4.
    weights = np.exp(-0.5 * np.arange(3))
    assert actions[:2] == [0, 0]
    assert actions[2] == pytest.approx(100 * weights[1] / weights[:2].sum())
    assert actions[7] == pytest.approx(weights[:2] @ [200, 300] / weights[:2].sum())
    assert actions[8] == pytest.approx(weights @ [200, 300, 400] / weights.sum())
    assert log.ticks[8].age == pytest.approx(0.1 * weights @ [5, 3, 1] / weights.sum())


@pytest.mark.parametrize("on_miss", [name for name in ON_MISS if name != "stop"])
@pytest.mark.parametrize("stitching", STITCHING)
@pytest.mark.parametrize("hold", (None, (0.0, 0.0)))
def test_every_combination_acts_in_every_step_within_the_limits(stitching, on_miss, hold):
    trace = [0.05, 0.4, 0.1, 1.3, 0.0]
    planner = Numbered(length=6) if stitching in WAYS else Steps(length=6)
    limits = Limits(low=0, high=12, rate=15)
    clock = DelayClock(trace=trace, hz=10)
    actions, _, log = fly(planner, clock, steps=60, limits=limits, stitching=stitching, on_miss=on_miss, hold=hold)
    assert len(log.ticks) == 60 and np.isfinite(actions).all() and max(actions) <= 12
    assert np.abs(np.diff(actions)).max() <= 1.5 + 1e-9
    assert log.starved_ticks > 0 and any(tick.limited for tick in log.ticks)
    again, _, _ = fly(planner, clock, steps=60, limits=limits, stitching=stitching, on_miss=on_miss, hold=hold)
    assert actions == again  # a trace is reproducible


class Silent(InlineWorker):
    """A worker whose second chunk comes ten control steps late."""

    def submit(self, history):
        self.asked = getattr(self, "asked", 0) + 1
        self.waits = 10 if self.asked == 2 else 0
        super().submit(history)

    def result(self, seconds=0.0):
        self.waits -= 1
        return None if self.waits >= 0 else super().result(seconds)


def test_the_rate_limit_holds_from_one_action_that_was_sent_to_the_next():
    """While nothing is sent the robot stays where it is, whatever would have been held."""
    worker = Silent(Steps(length=4))
    worker.reset(0)
    pilot = Pilot(worker, WallClock(10), 10, Execution(on_miss="block", hold=(0.0, 0.0), lead=0), Limits(rate=10.0))
    pilot.begin(observation(0))
    commands = [pilot.tick(step, step / 10, observation(step)) for step in range(30)]
    sent = [command.action[0] for command in commands if command.send]
    assert 5 < len(sent) < 30 and np.abs(np.diff(sent)).max() <= 1.0 + 1e-9


def test_a_robot_may_fill_the_same_observation_again():
    planner, worker = Steps(n_obs_steps=3), None
    worker = InlineWorker(planner)
    worker.reset(0)
    pilot = Pilot(worker, PausedClock(), 10, Execution(execute_steps=1))
    frame = observation(0)
    pilot.begin(frame)
    for step in range(4):
        frame["step"][...] = step
        pilot.tick(step, step / 10, frame)
    assert planner.histories[-1]["step"].tolist() == [1, 2, 3]


def test_a_robot_may_change_the_action_it_is_given():
    worker = InlineWorker(Steps(length=2))
    worker.reset(0)
    pilot = Pilot(worker, DelayClock(6), 10, Execution())
    pilot.begin(observation(0))
    held = []
    for step in range(5):
        command = pilot.tick(step, step / 10, observation(step))
        held.append(command.action[0])
        command.action[:] *= 0.1
    assert held == [0, 1, 1, 1, 1]


def test_a_chunk_that_comes_after_its_last_action_is_counted():
    _, _, log = fly(Steps(length=6), DelayClock(9), steps=12, lead=3)
    assert log.chunks[1].expired and not log.chunks[0].expired


@pytest.mark.parametrize(
    "options, message",
    (
        ({"on_miss": "panic"}, "unknown on_miss 'panic'"),
        ({"stitching": "glue"}, "unknown stitching 'glue'"),
        ({"execute_steps": 0}, "execute_steps=0"),
        ({"lead": -1}, "lead=-1"),
        ({"ensemble_decay": -1.0}, "ensemble_decay"),
        ({"hold": (0.0,)}, "hold has 1 entries, an action has 2"),
        ({"hold": (0.0, float("inf"))}, "finite"),
        ({"limits": Limits(low=[0, 0, 0])}, "low has 3 entries"),
    ),
)
def test_settings_that_cannot_be_meant(options, message):
    with pytest.raises(SpecpolicyError, match=message):
        fly(Steps(), PausedClock(), **options)


def test_chunks_in_flight_side_by_side_make_observations_fresher():
    """With two places a delay of four steps is asked for every two; no action is repeated, none is missing."""
    actions, _, log = fly(Steps(), DelayClock(4), steps=18, execute_steps=2, in_flight=2)
    assert actions == list(range(18)) and requests(log) == [0, *range(0, 18, 2)]
    assert ages(log)[4:] == 7 * [4, 5] and log.misses == 0
    _, _, alone = fly(Steps(), DelayClock(4), steps=18, execute_steps=2)
    assert ages(alone)[8:12] == [4, 5, 6, 7]  # it waits for the one place


def test_an_overtaken_chunk_is_dropped():
    actions, _, log = fly(Steps(), Trace([6, 1, 2, 2, 2, 2]), steps=10, execute_steps=2, in_flight=2, lead=2)
    assert actions == list(range(10))
    assert log.chunks[1].expired and not log.chunks[2].expired
    assert [tick.chunk for tick in log.ticks[:4]] == [0, 0, 0, 2]  # the second request, number 1, is never used


@pytest.mark.parametrize("options", ({"in_flight": 0}, {"in_flight": 1.5}, {"in_flight": 2, "stitching": "sync_pause"}))
def test_chunks_in_flight_are_refused_where_they_mean_nothing(options):
    with pytest.raises(SpecpolicyError, match="in_flight"):
        Execution(**options)


def test_a_live_loop_computes_one_chunk_at_a_time():
    with pytest.raises(SpecpolicyError, match="one chunk at a time"):
        Pilot(InlineWorker(Steps()), WallClock(10), 10, Execution(in_flight=2))


class Later(InlineWorker):
    """A worker whose chunks come after `seconds` of a clock that the test moves."""

    def __init__(self, planner, now, seconds):
        super().__init__(planner)
        self.now, self.seconds, self.comes = now, seconds, 0.0

    def submit(self, history):
        self.comes = self.now() + self.seconds
        super().submit(history)

    def result(self, seconds=0.0):
        self.comes -= seconds
        return super().result(seconds) if self.now() >= self.comes else None


@pytest.mark.parametrize("on_miss", ("stop", "hold_last", "continue_chunk"))
def test_a_chunk_that_has_come_fills_its_step_however_long_the_robot_observed(on_miss):
    """`observe` ends when the next step is due already: the chunk, there in time, is no miss."""
    time = [0.0]
    clock = WallClock(20, now=lambda: time[0], sleep=lambda seconds: None)
    worker = Later(Steps(length=16), lambda: time[0], 0.06)
    worker.reset(0)
    pilot = Pilot(worker, clock, 20, Execution(on_miss=on_miss, lead=2))
    pilot.begin(observation(0))
    clock.reset()
    actions = []
    for step in range(12):
        time[0] = max(time[0], step / 20) + (0.06 if step == 4 else 0.005)
        actions.append(pilot.tick(step, step / 20, observation(step)).action[0])
    assert actions == list(range(12))
    assert pilot.log.misses == pilot.log.starved_ticks == 0
    assert [round(20 * tick.age) for tick in pilot.log.ticks][:6] == [0, 1, 2, 3, 2, 3]


@pytest.mark.parametrize("options", ({}, {"in_flight": 2, "on_miss": "hold_last"}))
def test_only_requests_that_are_awaited_are_kept_as_objects(options):
    """Of days of chunks as objects the garbage collector would make a pause."""
    _, _, log = fly(Steps(), Trace([6, 1] * 60), steps=200, lead=2, **options)
    kept = [number for number, chunk in enumerate(log.chunks) if chunk is log.chunks[number]]
    assert len(log.chunks) > 20 and kept == list(range(len(log.chunks)))[len(log.chunks) - len(kept) :]
    assert len(kept) <= options.get("in_flight", 1)
    assert all(chunk.calls == 3 for chunk in log.chunks[:-2])
