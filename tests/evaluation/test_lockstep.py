"""Who is asked with whom depends on the jobs alone; every job is done; failures end all seats."""

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specpolicy.evaluation.lockstep import in_lockstep


def play(jobs, seats, pause=lambda seat: None):
    """Jobs are numbers of questions; the groups asked together, and the answers each job got."""
    groups = []

    def work(seat, job, ask):
        answers = []
        for number in range(job):
            pause(seat)
            answers.append(ask((seat, number)))
        return answers

    def answer(questions):
        groups.append(questions)
        return [10 * seat + number for seat, number in questions]

    return in_lockstep(jobs, seats, work, answer), groups


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 4), max_size=12), st.integers(1, 5))
def test_every_question_is_answered_once_and_no_seat_is_left_out(jobs, seats):
    results, groups = play(jobs, seats)
    assert [len(answers) for answers in results] == jobs
    assert sorted(value for answers in results for value in answers) == sorted(
        10 * seat + number for group in groups for seat, number in group
    )
    sizes = [len(group) for group in groups]
    assert sizes == sorted(sizes, reverse=True)  # full until there are no more jobs to begin
    assert all(group == sorted(group) for group in groups)
    # No schedule of whole jobs on so many seats is shorter than its longest job, nor than their mean.
    assert len(groups) >= max([*jobs, -(-sum(jobs) // seats)], default=0)


def test_the_groups_do_not_depend_on_the_speed_of_threads():
    jobs = [3, 1, 0, 2, 4, 1, 2]
    expected = play(jobs, 3)
    for slow in range(3):
        assert play(jobs, 3, lambda seat, slow=slow: time.sleep(0.005 * (seat == slow))) == expected


@pytest.mark.parametrize("where", ("work", "answer"))
def test_a_failure_is_raised_and_ends_all_threads(where):
    def work(seat, job, ask):
        if where == "work" and job == 2:
            raise ValueError("job 2")
        return ask(job)

    def answer(questions):
        if where == "answer":
            raise ValueError("no answer")
        return questions

    before = threading.active_count()
    with pytest.raises(ValueError, match="job 2" if where == "work" else "no answer"):
        in_lockstep([1, 1, 2, 1], 2, work, answer)
    assert threading.active_count() == before


def test_no_jobs_need_no_threads():
    assert play([], 3) == ([], [])
