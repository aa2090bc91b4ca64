"""How the guard of a run sleeps: to the nearest deadline, and no longer."""

import math
import threading

import pytest

from specpolicy.control.waiting import LONGEST_SECONDS, Bell, Latch, Watch


class CountedBell(Bell):
    """Remembers how long it was slept on, and does not sleep."""

    def __init__(self):
        super().__init__()
        self.sleeps, self.rings = [], 0

    def wait(self, seconds=LONGEST_SECONDS):
        self.sleeps.append(seconds)

    def ring(self):
        self.rings += 1


@pytest.fixture
def watch():
    """A watch whose time stands still at 100 s, with its bell."""
    bell = CountedBell()
    return Watch(now=lambda: 100.0, bell=bell), bell


def test_the_sleeper_is_woken_by_a_nearer_deadline_and_by_no_other(watch):
    watch, bell = watch
    watch.begins("inference", 60.0, 0.5)
    watch.sleep()
    bell.rings = 0
    watch.begins("robot.observe()", 0.0, 61.0)  # later than the sleeper wakes anyway
    assert bell.rings == 0
    watch.begins("robot.act()", 0.0, 0.05)
    assert bell.rings == 1
    watch.sleep()
    watch.begins("inference", 60.0, 0.5)
    watch.begins("robot.act()", 0.0, 0.05)
    assert bell.rings == 1  # it will wake in time
    assert bell.sleeps == pytest.approx([60.5, 0.05])


def test_a_deadline_that_comes_up_while_the_sleeper_lies_down_is_seen(watch):
    watch, bell = watch
    watch.begins("inference", 60.0, 0.5)
    now = watch._now

    def late():  # between the sleeper's look at its deadline and its sleep
        watch._now = now
        watch.begins("robot.act()", 0.0, 0.05)
        return now()

    watch._now = late
    watch.sleep()
    assert bell.rings == 2


def test_what_has_lapsed_and_what_has_not(watch):
    watch, _ = watch
    assert watch.lapsed is None
    watch.begins("robot.act()", 0.0, math.inf)
    assert watch.lapsed is None
    watch.begins("robot.act()", 0.0, 0.05)
    assert watch.lapsed is None
    watch._now = lambda: 100.05
    assert watch.lapsed.name == "robot.act()" and watch.lapsed.deadline == 100.05 and watch.lapsed.patience == 0.05


def test_a_thread_that_sleeps_for_an_hour_wakes_for_a_nearer_deadline(monkeypatch):
    monkeypatch.setattr("specpolicy.control.waiting.LONGEST_SECONDS", 3600.0)
    watch, found = Watch(), []
    watch.begins("inference", 3600.0, 0.5)

    def sleep():
        while (lapsed := watch.lapsed) is None:
            watch.sleep()
        found.append(lapsed.name)

    sleeper = threading.Thread(target=sleep, daemon=True)
    sleeper.start()
    while watch._wakes == math.inf:
        pass
    watch.begins("robot.act()", 0.0, 0.01)
    sleeper.join(60)
    assert found == ["robot.act()"]


def test_a_latch_lets_all_pass_who_wait():
    latch, passed = Latch(), []
    assert not latch.wait(0.0) and not latch.wait(-1.0)
    threads = [threading.Thread(target=lambda: passed.append(latch.wait(60))) for _ in range(5)]
    for thread in threads:
        thread.start()
    latch.set()
    latch.set()
    for thread in threads:
        thread.join()
    assert passed == [True] * 5 and latch.wait(0.0)
