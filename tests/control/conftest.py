"""What the tests of the loop share."""

import gc

import pytest
from scripted import Recorder


@pytest.fixture
def robots():
    """Makes robots whose hanging calls are let go in the end, so that their threads end."""
    made = []

    def make(*arguments, **options):
        made.append(Recorder(*arguments, **options))
        return made[-1]

    yield make
    for robot in made:
        robot.released.set()


@pytest.fixture(autouse=True, scope="module")
def frozen():
    """Else each run collects garbage first, and a walk through all that is imported takes longer than most tests."""
    gc.freeze()
    yield
    gc.unfreeze()
