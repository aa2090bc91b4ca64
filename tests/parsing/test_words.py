"""Words for messages."""

import pytest

from specpolicy.parsing import closest


@pytest.mark.parametrize(
    ("word", "near"),
    (
        ("task.idd", "task.id"),  # beside keys of its own parent
        ("shoulder_pam.pos", "shoulder_pan.pos"),  # what is wrong stands before the last point
        ("taks.id", "task.id"),
        ("task.zzz", None),
    ),
)
def test_the_nearest_name_is_told(word, near):
    known = ["task.id", "task.seed", "shoulder_pan.pos", "shoulder_lift.pos", "id"]
    assert closest(word, known) == ("" if near is None else f"; did you mean '{near}'?")
