"""Programs that run a controller into their end, each with its own signals: python endings.py DIRECTORY, cases as JSON
on stdin.

A case is forked from here, so that importing is paid for once, and ends as a program of its own: its exit code is what
a shell would see. Each line of its record is one thing that its robot was told.
"""

import gc
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

from specpolicy.control import Chunk, Controller
from specpolicy.control.process_worker import ProcessWorker
from specpolicy.control.worker import ThreadWorker

AT_ONCE = 12  # programs beside each other: nearly all of their time they sleep
PATIENCE = 120.0  # for one of them, on a busy machine
HZ = 20


class Story:
    """A robot, its planner and its inference in one, which at one moment does what the case says.

    Args:
        record: where each call is written down.
        at: the call of a case, such as "act" or "act hangs"; each is at its best for a while first.
        first, then: signals that the program sends itself, at that moment, and while it stops and closes.
        raises: what it raises at that moment.
        group: the signals go to all processes of the program, as those of a terminal do.
        again: seconds that `stop` takes when it is called once more.
    """

    n_obs_steps, n_action_steps = 1, 4

    def __init__(self, record, at="", first=None, then=(), raises=None, group=False, again=0.1):
        self.record, (self.at, _, self.hangs) = os.open(record, os.O_WRONLY | os.O_APPEND), at.partition(" ")
        self.first, self.then, self.raises, self.begun = first, then, raises, False
        self.group, self.again = group, again
        self.calls, self.open, self.late = {}, threading.Event(), threading.Event()

    def note(self, text):
        os.write(self.record, f"{text}\n".encode())

    def send(self, name):
        os.kill(0 if self.group else os.getpid(), getattr(signal, name))
        time.sleep(0.02)  # the main thread takes note of it

    def passes(self, call, after=0):
        """Do what the case says of this call, if it has been made often enough."""
        self.calls[call] = self.calls.get(call, 0) + 1
        now = call == self.at and self.calls[call] == after + 1
        if now and self.first:
            self.begun = True
            self.send(self.first)
        if self.begun and (call == "stop" or (call == "close" and self.calls[call] == 1)):
            for name in self.then:
                self.send(name)
        if now and self.hangs == "hangs":
            threading.Event().wait()
        if now and self.hangs == "late":
            self.open.wait()
        if now and self.raises:
            raise {"SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt}[self.raises](0)

    def reset(self, seed):
        self.passes("start")

    def plan(self, history):
        self.passes("warm-up")
        self.passes("plan", after=2)
        return Chunk(np.zeros((40, 1)))

    def observe(self):
        self.passes("observe", after=4)
        return {"state": np.zeros(1)}

    def until(self):
        self.passes("until", after=3)
        return False

    def act(self, action):
        if self.at == "act":
            self.passes("act", after=3)
        self.note("act")
        self.late.set()

    def stop(self):
        self.note("stop")
        self.passes("stop")
        time.sleep(0.1 if self.calls["stop"] == 1 else self.again)
        self.open.set()  # an action that was late comes back only now
        self.note("stopped")


class Still:
    """What plans in a process."""

    n_obs_steps, n_action_steps = 1, 4

    def reset(self, seed):
        pass

    def plan(self, history):
        return Chunk(np.zeros((40, 1)))


class Process(ProcessWorker):
    """Inference in a process, whose signals come when it is not yet up, too."""

    def __init__(self, story):
        super().__init__(Still())
        self.story = story

    def _start(self):
        super()._start()
        self.story.note(f"process {self._process.pid}")
        self.story.passes("start")

    def close(self):
        super().close()
        self.story.note("closed")


class Worker(ThreadWorker):
    """Inference in a thread, whose end takes its time, too."""

    def __init__(self, story):
        super().__init__(story)
        self.story = story

    def close(self):
        self.story.passes("close")
        super().close()
        self.story.note("closed")


def run(record, thread=None, handler=None, seconds=0.5, process=False, options=None, first=None, **story_options):
    """One case. `thread`: how the controller's thread is made, if it is not the main one."""
    os.setpgrp()
    if handler == "ignored":
        signal.signal(getattr(signal, first), signal.SIG_IGN)
    if handler == "own":
        signal.signal(getattr(signal, first), lambda number, frame: story.note(f"handled {number}"))
    story = Story(record, first=first, **story_options)
    options = {"warm_up": 1, "watchdog": 60.0, "inference_timeout": 60.0, **(options or {})}
    controller = Controller(story, story, hz=HZ, worker=Process(story) if process else Worker(story), **options)
    arguments = {"seconds": seconds, "until": story.until}
    if thread is None:
        controller.run(**arguments)
    else:
        threading.Thread(target=controller.run, kwargs=arguments, daemon=thread == "daemon").start()
        story.late.wait()
    story.note("end")


def outcome(pid, record, errors):
    """What became of a program; one that does not end is killed."""
    deadline = time.monotonic() + PATIENCE
    while (found := os.waitpid(pid, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return {"code": "hangs", "record": record.read_text().split("\n")[:-1], "errors": errors.read_text()}
        time.sleep(0.02)
    code = os.waitstatus_to_exitcode(found[1])
    return {"code": code, "record": record.read_text().split("\n")[:-1], "errors": errors.read_text()}


def main(directory):
    """Run all cases; in one of them, return it."""
    running, outcomes = [], []
    for number, case in enumerate(json.load(sys.stdin)):
        if len(running) == AT_ONCE:
            outcomes.append(outcome(*running.pop(0)))
        record, errors = directory / f"{number}.record", directory / f"{number}.errors"
        record.touch()
        errors.touch()
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open(errors, os.O_WRONLY), sys.stderr.fileno())
            return case, record
        running.append((pid, record, errors))
    outcomes += [outcome(*one) for one in running]
    json.dump(outcomes, sys.stdout)
    return None


if __name__ == "__main__":
    for asking in ("SIGTERM", "SIGHUP", "SIGQUIT"):  # whatever the tests' own shell ignores
        signal.signal(getattr(signal, asking), signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.collect()
    gc.freeze()  # nothing for the collector of each case to walk through
    if (told := main(Path(sys.argv[1]))) is not None:
        case, record = told
        run(record, **case)
