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
def thawed():
    """`thawed()` unfreezes for good what runs have frozen. Meanwhile it stays so: each run collects garbage first, and
    a walk through all that these tests have imported takes longer than most of them."""
    with pytest.MonkeyPatch.context() as patch:
        unfreeze = gc.unfreeze
        patch.setattr(gc, "unfreeze", lambda: None)
        yield unfreeze
    gc.unfreeze()
