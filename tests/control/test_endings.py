"""Every way in which a run can end, in programs of their own: what the robot is told, and how the program ends.

docs/control.md has the same table for readers.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("endings.py")
ASKING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
BY_DEFAULT = ("SIGUSR1", "SIGUSR2", "SIGALRM", "SIGXCPU", "SIGTSTP")
WORKING = ("start", "warm-up", "observe", "plan", "act", "until", "stop", "close")
HANGING = ("start hangs", "warm-up hangs", "observe hangs", "plan hangs", "act hangs", "until hangs")


def played(cases, directory):
    """What became of each case (see endings.py)."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(directory)],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        env=environment,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def expected_code(name):
    """Python ends a program by Ctrl-C as the signal would have; others leave with what a shell makes of theirs."""
    number = int(getattr(signal, name))
    return -number if name == "SIGINT" else 128 + number


def check_stopped(case, found):
    """The robot was stopped to the end, once, or again after an action that came too late for a busy machine."""
    record = found["record"]
    stop = record.index("stop")
    late = "act" in record[stop:]
    assert record.count("stop") == record.count("stopped") == 1 + late, (case, found)
    assert "act" not in record[len(record) - 1 - record[::-1].index("stop") :], (case, found)
    assert found["code"] == expected_code(case["first"]), (case, found)
    assert record[-1] == "closed", (case, found)  # the run raised: the program's own end was not reached


def test_no_signal_at_any_moment_keeps_the_robot_from_being_stopped(tmp_path):
    """Every moment with every signal, and further ones during a slow stop and while inference is ended."""
    moments, turns = (*WORKING, *HANGING), itertools.cycle(ASKING)
    cases = [
        {"at": at, "first": first, "then": [next(turns), next(turns)]}
        for at, first in itertools.product(moments, ("SIGINT", "SIGTERM", "SIGHUP"))
    ]
    cases += [
        {"at": "act hangs", "first": first, "then": [then] * 3} for first, then in itertools.product(ASKING, ASKING)
    ]
    cases += [{"at": "act", "first": first, "then": ["SIGTERM"]} for first in ("SIGQUIT", *BY_DEFAULT)]
    for case, found in zip(cases, played(cases, tmp_path), strict=True):
        check_stopped(case, found)
        assert not found["errors"] or case["first"] == "SIGINT", (case, found)


def test_a_call_that_never_ends_keeps_no_program_from_ending(tmp_path):
    cases = [
        {"at": at, "first": first, "then": ["SIGTERM", "SIGINT"], "options": {"stop_timeout": 0.5}}
        for at, first in itertools.product(("stop hangs", "close hangs"), ("SIGINT", "SIGTERM", "SIGHUP"))
    ]
    for case, found in zip(cases, played(cases, tmp_path), strict=True):
        assert found["code"] == expected_code(case["first"]), (case, found)
        assert found["record"].count("stop") == 1, (case, found)
        complaint = (
            "robot.stop() has not come back" if case["at"] == "stop hangs" else "worker.close() has not come back"
        )
        assert complaint in found["errors"], (case, found)


def test_an_action_that_comes_back_after_the_stop_is_followed_by_another_stop(tmp_path):
    cases = [{"at": "act late", "first": first, "then": ["SIGTERM"]} for first in ASKING for _ in range(3)]
    cases.append({"at": "act late", "options": {"watchdog": 0.2}})
    for case, found in zip(cases, played(cases, tmp_path), strict=True):
        record = found["record"]
        assert record.count("stop") == 2 and record[-3:] == ["stop", "stopped", "closed"], (case, found)
        assert record.index("stop") < len(record) - 1 - record[::-1].index("act") < len(record) - 3, (case, found)
        assert found["code"] == (expected_code(case["first"]) if "first" in case else 1), (case, found)


def test_a_stop_behind_a_late_action_has_its_time_too(tmp_path):
    """The program ends only when the robot is at rest again."""
    cases = [{"at": "act late", "first": first, "again": 3.0} for first in ("SIGINT", "SIGTERM")]
    for found in played(cases, tmp_path):
        assert found["record"].count("stop") == found["record"].count("stopped") == 2, found


def test_what_ends_all_processes_of_a_program_leaves_inference_to_its_controller(tmp_path):
    """Ctrl-C, a lost terminal, `timeout` and the like: nobody complains, and no process is left."""
    cases = [
        {"at": at, "first": first, "then": ["SIGHUP"], "group": True, "process": True}
        for at, first in (("act", "SIGHUP"), ("act", "SIGTERM"), ("start", "SIGINT"))
    ]
    for case, found in zip(cases, played(cases, tmp_path), strict=True):
        process = next(int(line.split()[1]) for line in found["record"] if line.startswith("process"))
        check_stopped(case, found)
        assert found["errors"].count("Traceback") == (case["first"] == "SIGINT"), (case, found)
        assert "inference" not in found["errors"] and not Path(f"/proc/{process}").exists(), (case, found)


def test_signals_mean_what_the_program_says_they_mean(tmp_path):
    cases = [
        {"first": "SIGHUP", "at": "act", "handler": "ignored"},  # nohup
        {"first": "SIGINT", "at": "act", "handler": "ignored"},  # a job in the background of a shell
        {"first": "SIGTERM", "at": "act hangs", "then": ["SIGTERM"], "handler": "own"},
        {"first": "SIGUSR1", "at": "act", "handler": "own"},  # nothing about an end
    ]
    hangup, interrupt, term, user = played(cases, tmp_path)
    for found in (hangup, interrupt, term, user):
        assert found["code"] == 0 and found["record"][-1] == "end" and not found["errors"], found
        assert found["record"].count("stopped") == 1, found
    for found in (hangup, interrupt, user):  # it went on to the end of its time
        assert found["record"].count("act") > 4, found
    # Its handler was called once for all, after the robot had come to rest, and did not end the program.
    assert term["record"][-4:] == ["stopped", "closed", f"handled {int(signal.SIGTERM)}", "end"]
    handled = user["record"].index(f"handled {int(signal.SIGUSR1)}")
    assert handled < user["record"].index("stop")


@pytest.mark.parametrize("raised", ("SystemExit", "KeyboardInterrupt"))
def test_calls_that_want_to_leave_the_program(tmp_path, raised):
    cases = [{"at": at, "raises": raised} for at in WORKING]
    for case, found in zip(cases, played(cases, tmp_path), strict=True):
        record = found["record"]
        assert found["code"] == 1 and f"failed: {raised}" in found["errors"], (case, found)
        assert record.count("stop") == 1 and "act" not in record[record.index("stop") :], (case, found)


def test_the_end_of_a_program_whose_controller_is_in_another_thread(tmp_path):
    cases = [
        {"thread": "daemon", "seconds": None},
        {"thread": "daemon", "seconds": None, "at": "observe hangs"},
        {"thread": "its own", "seconds": 0.5},  # Python waits for such threads
    ]
    for case, found in zip(cases, played(cases, tmp_path), strict=True):
        assert found["code"] == 0, (case, found)
        assert found["record"].count("stop") == found["record"].count("stopped") == 1, (case, found)
        assert "act" not in found["record"][found["record"].index("stop") :], (case, found)
        assert "not in the main thread" in found["errors"]
