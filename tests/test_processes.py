"""Jobs over processes: order, failures, deaths."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from specpolicy import SpecpolicyError
from specpolicy.cluster.jobs import run_jobs
from specpolicy.cluster.limits import Limit
from specpolicy.processes import check_main_guard, start_process, start_worker


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
        if job == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
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
        ("setup", "fail", RuntimeError, r"in a worker process at fail:\n(.*\n)*.*a defect"),
    ),
)
def test_a_failure_reaches_the_caller(setup, job, error, message):
    with pytest.raises(error, match=message):
        list(run_jobs(Worker, setup, [job], 1))


@pytest.mark.parametrize("how, why", (("die", "exit code 7"), ("kill", "killed by SIGKILL; out of memory?")))
def test_a_dead_worker_is_noticed_and_ends_the_others(how, why):
    with pytest.raises(SpecpolicyError) as caught:
        list(run_jobs(Worker, "setup", [how, "hang"], 2))
    assert f"a worker process died at {how} ({why})" in str(caught.value)


def test_a_worker_that_dies_or_hangs_is_named_with_its_job():
    with pytest.raises(SpecpolicyError, match=r"a worker process died at job die \(exit code 7\)"):
        list(run_jobs(Worker, "setup", ["die"], 1, Limit(name=lambda job: f"job {job}")))
    limit = Limit()
    jobs = run_jobs(Worker, "setup", [1, "hang"], 1, limit)
    _, pid, _ = next(jobs)
    limit.seconds = 0.1  # from the second job on: no start of a process is short enough to be tested
    with pytest.raises(
        SpecpolicyError, match=r"hang: not ended in 0.1 s \(cluster.timeout\); what is finished is kept"
    ):
        next(jobs)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_an_abandoned_run_ends_its_workers():
    jobs = run_jobs(Worker, "setup", [1, "hang"], 2)
    _, pid, _ = next(jobs)
    jobs.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


GUARDED = 'if __name__ == "__main__":\n    start()\n'


@pytest.mark.parametrize(
    "source, refused",
    (
        ("start()\n", True),
        ("import logging\nlogging.getLogger(__name__)\nrobot = 3\nstart()\n", True),
        ("try:\n    start()\nfinally:\n    pass\n", True),
        ("def main():\n    start()\n\nmain()\n", True),
        ("for _ in range(1):\n    if True:\n        start()\n", True),
        (f"start()\n{GUARDED}", True),
        (GUARDED, False),
        (f"def main():\n    start()\n\n{GUARDED.replace('start', 'main')}", False),
        ("if '__main__' == __name__ and True:\n    start()\n", False),
        ("import multiprocessing\nif multiprocessing.parent_process() is None:\n    start()\n", False),
        ("import multiprocessing as m\nif m.current_process().name == 'MainProcess':\n    start()\n", False),
    ),
)
@pytest.mark.parametrize("spec, again", ((None, True), ("package.script", True), ("package.__main__", False)))
def test_a_script_without_a_guard_is_refused(tmp_path, monkeypatch, source, refused, spec, again):
    """Before a process is started, and with its line; `python -m package` is not imported again."""
    script = tmp_path / "script.py"
    script.write_text(source)
    main = types.ModuleType("__main__")
    main.__file__, started = str(script), []
    main.__spec__ = None if spec is None else types.SimpleNamespace(name=spec)
    main.start = lambda: started.append(check_main_guard())
    monkeypatch.setitem(sys.modules, "__main__", main)
    code = compile(source, str(script), "exec")
    if refused and again:
        with pytest.raises(SpecpolicyError) as caught:
            exec(code, vars(main))
        message = str(caught.value)
        assert message.startswith(f"{script}, line ") and 'if __name__ == "__main__":' in message
        assert "memory" not in message and "\n" not in message and not started
    else:
        exec(code, vars(main))
        assert started


@pytest.mark.parametrize("path", ("<stdin>", "/nowhere/script.py"))
def test_a_script_that_no_process_can_import_is_refused(monkeypatch, path):
    main = types.ModuleType("__main__")  # python - < script.py
    main.__file__ = path
    monkeypatch.setitem(sys.modules, "__main__", main)
    with pytest.raises(SpecpolicyError, match=f"and {path} is no file: write it into one, or do without processes"):
        check_main_guard()


def test_no_guard_is_needed_where_no_script_is_imported_again(monkeypatch, tmp_path):
    main = types.ModuleType("__main__")  # of an interactive session, or python -c
    monkeypatch.setitem(sys.modules, "__main__", main)
    exec(compile("import specpolicy.processes as p\np.check_main_guard()", "<stdin>", "exec"), vars(main))
    script = tmp_path / "script.py"
    script.touch()
    main.__file__ = str(script)  # python -i script.py
    exec(compile("p.check_main_guard()", "<stdin>", "exec"), vars(main))


ROBOT = """
import sys
import numpy as np
from specpolicy import SpecpolicyError
from specpolicy.control import Chunk, Controller
from specpolicy.cluster.jobs import run_jobs

open(sys.argv[1], "a").write("connected ")

class Robot:
    def observe(self): return {"step": np.zeros(1)}
    def act(self, action): open(sys.argv[1], "a").write("act ")
    def stop(self): pass

class Planner:
    n_obs_steps, n_action_steps = 1, 4
    def reset(self, seed): pass
    def plan(self, history): return Chunk(np.zeros((8, 2)))

def control(): Controller(Planner(), Robot(), hz=20).run(seconds=1)
def jobs(): list(run_jobs(str, None, [1, 2], 1))
"""


@pytest.mark.parametrize(
    "ending, connections",
    (
        ("control()", 1),
        ("jobs()", 1),
        ("if __name__ != 'of another': control()", 2),  # looks like a guard: the process itself must find out
    ),
)
def test_a_process_never_moves_the_robot_of_an_unguarded_script(tmp_path, ending, connections):
    script, marks = tmp_path / "robot.py", tmp_path / "marks"
    script.write_text(f"{ROBOT}\ntry:\n    {ending}\nexcept SpecpolicyError as error:\n    sys.exit(str(error))\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, str(script), str(marks)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1 and 'under `if __name__ == "__main__":`' in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1 and "memory" not in done.stderr and "Traceback" not in done.stderr
    assert marks.read_text() == "connected " * connections


def test_what_ends_a_whole_group_of_processes_is_left_to_the_main_one():
    """From the first moment of a process on: whether it is up already cannot be known outside."""
    names = ("SIGINT", "SIGHUP", "SIGQUIT")
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=answer_signals, args=(theirs, names))
    start_process(process)
    for name in names:
        os.kill(process.pid, getattr(signal, name))
    assert ours.poll(60) and ours.recv() == "here"
    for name in (*names, "SIGTERM"):
        os.kill(process.pid, getattr(signal, name))
    process.join(60)
    assert process.exitcode == 1  # by SIGTERM, in order


def answer_signals(connection, names):
    start_worker()
    for name in names:
        os.kill(os.getpid(), getattr(signal, name))
    connection.send("here")
    time.sleep(600)


def test_a_process_that_is_asked_to_end_gives_its_main_one_some_time():
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=answer_later, args=(theirs,))
    start_process(process)
    assert ours.poll(60) and ours.recv() == "here"
    for _ in range(3):
        os.kill(process.pid, signal.SIGTERM)
    assert ours.poll(60) and ours.recv() == "still here"
    process.join(60)
    assert process.exitcode == 1


def answer_later(connection):
    start_worker(grace=1.0)
    told = []
    handler = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *arguments: (handler(*arguments), told.append(1)))
    connection.send("here")
    while not told:
        time.sleep(0.01)
    connection.send("still here")
    time.sleep(600)


PARENT = """
import os, sys, time
from specpolicy.cluster.jobs import run_jobs

class Pid:
    def __init__(self, setup): pass
    def __call__(self, job): return os.getpid()

if __name__ == "__main__":
    for pid in run_jobs(Pid, None, [1], 1):
        print(pid, flush=True)
        time.sleep(600)
"""


def test_a_stopped_worker_ends_with_a_killed_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    try:
        os.kill(child, signal.SIGSTOP)
        parent.kill()
        deadline = time.monotonic() + 20
        while (stopped := is_there(child)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not stopped
    finally:
        parent.kill()
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        parent.communicate()


def is_there(pid):
    """Whether a process runs or is stopped; one that has ended may wait to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
