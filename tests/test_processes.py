"""Jobs over processes: order, failures, deaths."""

import os
import time

import pytest

from specpolicy import SpecpolicyError
from specpolicy.processes import run_jobs


class Worker:
    """Made once in each process."""

    def __init__(self, setup):
        self.setup = setup
        if setup == "bad setup":
            raise SpecpolicyError("the setup is bad")

    def __call__(self, job):
        if job == "refuse":
            raise SpecpolicyError("the job is bad")
        if job == "fail":
            raise ZeroDivisionError("a defect")
        if job == "die":
            os._exit(7)
        if job == "hang":
            time.sleep(1e6)  # who waits for it, waits until the test run is stopped
        return job, os.getpid(), os.environ.get("OMP_NUM_THREADS")


@pytest.mark.parametrize("workers", (0, 2))
def test_every_job_is_done_once(workers):
    results = list(run_jobs(Worker, "setup", range(7), workers))
    assert sorted(job for job, _, _ in results) == list(range(7))
    processes = {pid for _, pid, _ in results}
    assert processes == {os.getpid()} if workers == 0 else os.getpid() not in processes and len(processes) <= 2
    if workers:
        assert {threads for _, _, threads in results} == {"1"}


@pytest.mark.parametrize(
    "setup, job, error, message",
    (
        ("bad setup", 1, SpecpolicyError, "the setup is bad"),
        ("setup", "refuse", SpecpolicyError, "the job is bad"),
        ("setup", "fail", RuntimeError, "a defect"),
    ),
)
def test_a_failure_reaches_the_caller(setup, job, error, message):
    with pytest.raises(error, match=message):
        list(run_jobs(Worker, setup, [job], 1))


def test_a_dead_worker_is_noticed_and_ends_the_others():
    with pytest.raises(SpecpolicyError, match="a worker process died"):
        list(run_jobs(Worker, "setup", ["die", "hang"], 2))


def test_an_abandoned_run_ends_its_workers():
    jobs = run_jobs(Worker, "setup", [1, "hang"], 2)
    _, pid, _ = next(jobs)
    jobs.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
