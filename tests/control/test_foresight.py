"""Committed actions: a planner is told of those that are executed before its chunk comes, each in its place."""

import numpy as np
import pytest
from scripted import Numbered, Recorder, Steps, Trace, controller

from specpolicy.committed import WAYS, Committed, rows_of
from specpolicy.control import Controller
from specpolicy.control.clock import ChargedClock, DelayClock, PausedClock
from specpolicy.control.execution import Execution
from specpolicy.control.limits import Limits
from specpolicy.control.pilot import Pilot
from specpolicy.control.process_worker import ProcessWorker
from specpolicy.control.worker import InlineWorker, ThreadWorker
from specpolicy.errors import SpecpolicyError


def observation(step):
    return {"step": np.array(float(step))}


def fly(planner, clock, steps=40, limits=None, bounds=None, **options):
    """The actions of `steps` control steps as a robot with `bounds` executes them, and the log."""
    worker = InlineWorker(planner)
    worker.reset(0)
    clock.reset(0)
    execution = Execution(**{"stitching": "inpaint", **options})
    pilot = Pilot(worker, clock, 10, execution, limits, bounds=bounds)
    pilot.begin(observation(0))
    actions = np.stack([pilot.tick(step, step / 10, observation(step)).action for step in range(steps)])
    return (actions if bounds is None else np.clip(actions, *bounds)), pilot.log


def check_told(planner, actions):
    """Every committed action is the one that was executed in its control step; return the counts."""
    counts = []
    for step, committed in planner.told:
        count = 0 if committed is None else committed.count
        known = min(count, len(actions) - step)
        if known > 0:
            np.testing.assert_array_equal(committed.actions[:known], actions[step : step + known])
        counts.append(count)
    return counts


@pytest.mark.parametrize("n_obs_steps", (1, 2, 3, 4))
@pytest.mark.parametrize("delay", (1, 2, 4))
@pytest.mark.parametrize("execute_steps", (4, 6))
def test_what_is_committed_is_executed(n_obs_steps, delay, execute_steps):
    """Also where the delay is as long as what is executed of a chunk."""
    planner = Numbered(n_obs_steps=n_obs_steps, length=12)
    actions, _ = fly(planner, DelayClock(delay), execute_steps=execute_steps)
    counts = check_told(planner, actions)
    assert counts[0] == 0 and set(counts[1:]) == {delay} and len(counts) > 4


def test_times_that_are_charged_decide_how_many_are_committed():
    planner = Numbered(seconds=0.25, length=12)
    actions, _ = fly(planner, ChargedClock(10))
    assert set(check_told(planner, actions)[1:]) == {3}


@pytest.mark.parametrize("make", (InlineWorker, ThreadWorker))
def test_what_is_committed_is_executed_on_the_wall_clock(make):
    """By a robot that observes how many actions it has received: one in each control step that was not skipped."""
    planner, robot = Numbered(obeys=True, length=40, sleep=0.03), Recorder(at=1000)
    log = controller(robot, planner, worker=make(planner), stitching="inpaint", execute_steps=4).run(seconds=1.0)
    steps = [tick.step for tick in log.ticks]
    executed = dict(zip(steps, robot.actions, strict=True))
    compared = 0
    for number, committed in planner.told:
        for place in range(0 if committed is None else committed.count):
            if (step := steps[number] + place) in executed:
                np.testing.assert_array_equal(committed.actions[place], executed[step])
                compared += 1
    assert log.lead > 0 and compared > 2


def test_all_that_is_left_of_the_previous_plan_is_known():
    planner = Numbered(length=12)
    fly(planner, DelayClock(2), steps=10)
    assert planner.told[0] == (0, None)  # nothing was planned before
    step, committed = planner.told[1]
    assert step == 2 and committed.count == 2 and committed.way == "inpaint"
    assert committed.actions[:, 0].tolist() == list(range(2, 12))
    step, committed = planner.told[2]  # the newest chunk came at step 4
    assert step == 6 and committed.actions[:, 0].tolist() == list(range(1006, 1014))


@pytest.mark.parametrize("clock", (PausedClock(), DelayClock(0), ChargedClock(10)))
def test_without_a_delay_nothing_is_committed(clock):
    planner = Numbered()
    actions, _ = fly(planner, clock)
    assert set(check_told(planner, actions)) == {0}
    plain, _ = fly(Numbered(), clock, stitching="continue_chunk")
    np.testing.assert_array_equal(actions, plain)


@pytest.mark.parametrize("stitching", ("continue_chunk", "naive_switch", "sync_pause", "temporal_ensembling"))
def test_other_ways_of_stitching_commit_nothing(stitching):
    planner = Numbered()
    fly(planner, DelayClock(2), stitching=stitching)
    assert all(committed is None for _, committed in planner.told) and len(planner.told) > 4


@pytest.mark.parametrize("hold", (None, (0.0, None)))
@pytest.mark.parametrize("on_miss", ("continue_chunk", "hold_last", "block"))
def test_an_action_that_will_be_held_is_committed(hold, on_miss):
    """The delay is longer than a chunk: its last part is held."""
    planner = Numbered(length=6)
    actions, log = fly(planner, DelayClock(9), hold=hold, on_miss=on_miss, execute_steps=4)
    assert set(check_told(planner, actions)[1:]) == {9} and log.starved_ticks > 0


def test_what_will_be_missing_is_not_committed():
    """A run that stops where no action is planned holds none."""
    planner = Numbered(length=6)
    with pytest.raises(SpecpolicyError, match="control step 6"):
        fly(planner, DelayClock(9), on_miss="stop", execute_steps=4)
    assert planner.told[1][1].count == 6


@pytest.mark.parametrize("on_miss", ("continue_chunk", "hold_last", "block"))
def test_chunks_that_come_late_or_early(on_miss):
    """One that comes early begins with what was committed; until one that is late was due, the old plan held."""
    planner = Numbered(obeys=True, length=10)
    clock = DelayClock(trace=[0.05, 0.4, 0.1, 1.3, 0.0, 0.25], hz=10)
    actions, log = fly(planner, clock, steps=80, on_miss=on_miss, lead=3)
    counts = check_told(planner, actions)
    assert set(counts[1:]) == {3} and log.misses > 0 and log.starved_ticks > 0


@pytest.mark.parametrize("in_flight", (2, 3))
@pytest.mark.parametrize("execute_steps", (1, 2, 3, 4))
@pytest.mark.parametrize("on_miss", ("continue_chunk", "hold_last", "block"))
def test_chunks_in_flight_that_come_late_or_early(on_miss, execute_steps, in_flight):
    """What the others in flight were told is executed, although they were told of fewer actions than it takes."""
    trace = [0.6, 0.6, 0.6, 0.4, 0.6, 0.1, 0.6, 0.5, 0.9]
    for seed in range(3):
        planner = Numbered(obeys=True, length=16)
        clock = DelayClock(trace=trace[seed:] + trace[:seed], hz=10)
        options = {"execute_steps": execute_steps, "in_flight": in_flight, "on_miss": on_miss, "lead": 6}
        actions, log = fly(planner, clock, steps=60, **options)
        assert max(check_told(planner, actions)) == 6 and log.misses > 0


def test_what_a_chunk_in_flight_will_say_is_not_committed():
    planner = Numbered(obeys=True)
    actions, _ = fly(planner, DelayClock(4), steps=12, execute_steps=2, in_flight=2)
    assert check_told(planner, actions) == [0, 4, 2, 2, 2, 2, 2]
    assert [one.actions[0][0] % 1000 for _, one in planner.told[1:]] == [0, 2, 4, 6, 8, 10]


def test_nothing_is_committed_while_a_chunk_in_flight_is_late():
    """The second chunk is due at step 3 and there at step 8: in between it may change any action."""
    planner = Numbered(obeys=True, length=12)
    clock = Trace([7, 7, 2, 2, 2])
    actions, log = fly(planner, clock, steps=9, execute_steps=3, in_flight=2, lead=2)
    assert [chunk.step for chunk in log.chunks][:3] == [0, 1, 4]
    assert check_told(planner, actions)[:3] == [0, 2, 0] and log.chunks[1].late_steps == 5


@pytest.mark.parametrize("limits", (Limits(rate=5), Limits(low=0, high=20, rate=40), Limits(high=8)))
def test_actions_are_committed_within_the_limits(limits):
    planner = Numbered(obeys=True, length=6)
    actions, log = fly(planner, DelayClock(4), limits=limits)
    check_told(planner, actions)
    assert any(tick.limited for tick in log.ticks)


def test_actions_are_committed_as_the_robot_clips_them():
    planner = Numbered()
    actions, _ = fly(planner, DelayClock(2), bounds=(np.array([0.0, -1.0]), np.array([2000.0, 5.0])))
    check_told(planner, actions)
    assert planner.told[-1][1].actions.max(0).tolist() == [2000.0, 5.0]


def test_a_new_episode_commits_nothing_of_the_last():
    planner = Numbered()
    for _ in range(2):
        actions, _ = fly(planner, DelayClock(3))
        assert check_told(planner, actions)[0] == 0


class Untouched:
    """A robot that nobody shall call."""

    def observe(self):
        raise AssertionError("the robot was touched")

    act = stop = observe


def test_a_way_that_the_planner_lacks_is_refused_before_the_robot_is_touched(small_policy):
    class Picky(Numbered):
        def check_way(self, way):
            raise SpecpolicyError(f"not {way}")

    for planner, message in ((small_policy, "stitching=trained: .*prefix=8"), (Picky(), "not trained")):
        with pytest.raises(SpecpolicyError, match=message):
            Controller(planner, Untouched(), hz=10, stitching="trained", warm_up=0)
        Controller(planner, Untouched(), hz=10, worker="inline")
    Controller(Numbered(), Untouched(), hz=10, stitching="trained", worker="inline")


def test_what_a_planner_or_a_clock_cannot_do_is_refused_before_the_robot_is_touched():
    """Also before the warm-up, which would hand the actions to a planner that knows no such argument."""
    for options, message in (
        ({"policy": Steps(), "stitching": "rtc"}, "stitching=rtc: this policy takes no committed actions"),
        ({"policy": Steps(), "stitching": "rtc", "clock": "delay"}, "takes no committed actions: use continue_chunk"),
        ({"policy": Numbered(), "in_flight": 2}, "in_flight=2: a worker computes one chunk at a time"),
    ):
        with pytest.raises(SpecpolicyError, match=message):
            Controller(robot=Untouched(), hz=10, worker="inline", **options)


def test_a_planner_that_takes_no_committed_actions_is_refused():
    with pytest.raises(SpecpolicyError, match="stitching=rtc: this policy takes no committed actions: use continue"):
        fly(Steps(), DelayClock(2), stitching="rtc")
    stubborn = Numbered()
    stubborn.continues = False
    with pytest.raises(SpecpolicyError, match="takes no committed actions"):
        fly(stubborn, DelayClock(2))


@pytest.mark.parametrize("make", (InlineWorker, ThreadWorker, ProcessWorker))
def test_workers_hand_on_what_is_committed(make):
    worker = make(Numbered(obeys=True))
    committed = Committed(np.array([[5.0, 6.0], [7.0, 8.0]]), 1, "rtc")
    try:
        worker.reset(0)
        assert worker.continues
        for given, expected in ((committed, [[5, 6], [4, 4]]), (None, [[1003, 1003], [1004, 1004]])):
            worker.submit({"step": np.array([3.0])}, *([] if given is None else [given]))
            assert worker.result(60).actions[:2].tolist() == expected
    finally:
        worker.close()


@pytest.mark.parametrize(
    "options, message",
    (
        ({"actions": np.zeros(3)}, r"array \(n, D\)"),
        ({"actions": np.full((2, 2), np.nan)}, "finite"),
        ({"actions": [["a", "b"]]}, "finite numbers"),
        ({"actions": [[1, 2], [3]]}, r"array \(n, D\) of finite numbers, got no array"),
        ({"count": 0}, "0 of 3 known actions"),
        ({"count": 4}, "4 of 3 known actions"),
        ({"count": 1.5}, "whole number"),
        ({"count": True}, "whole number"),
        ({"way": "glue"}, "unknown way 'glue'"),
        ({"way": "linear-x"}, "way 'linear-x' .*: linear- goes with a number, 0 or more"),
        ({"way": "guided--1"}, "guided- goes with a number"),
        ({"way": "linear-inf"}, "linear- goes with a number"),
        ({"way": "linear-"}, "linear- goes with a number"),
    ),
)
def test_what_cannot_be_committed(options, message):
    with pytest.raises(SpecpolicyError, match=message):
        Committed(**{"actions": np.zeros((3, 2)), "count": 1, "way": WAYS[0], **options})


def test_rows_of_a_batch_have_their_own():
    one, other = Committed(np.zeros((3, 2)), 1), Committed(np.zeros((3, 2)), 2)
    assert rows_of(None, 2, 2) == [None, None] and rows_of(one, 2, 2) == [one, one]
    assert rows_of([one, None, other], 3, 2) == [one, None, other]
    for wrong, message in (
        ([one], "1 entries, there are 2"),
        ("text", "committed is a str: give a specpolicy.Committed"),
        (np.zeros((3, 2)), "committed is a ndarray: give a specpolicy.Committed"),
        ([one, 3], "committed is a list of Committed, int: give a specpolicy.Committed"),
        ([one, Committed(np.zeros((3, 2)), 1, "rtc")], "one way, here are inpaint, rtc"),
        (Committed(np.zeros((3, 5)), 1), "have 5 numbers, those of this policy 2"),
    ):
        with pytest.raises(SpecpolicyError, match=message):
            rows_of(wrong, 2, 2)
