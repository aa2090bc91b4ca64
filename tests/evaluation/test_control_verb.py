"""The verb control, as a user types it: the report, the files, and the exit codes of faults and interruptions."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from specpolicy import load_policy
from specpolicy.cli import main
from specpolicy.control import GymRobot, TimingLog

FAST = ["warm_up=1", "worker=thread", "max_seconds=0.6", "hz=40", "engine=eager", "watchdog=60", "inference_timeout=60"]


@pytest.fixture
def arguments(drift_policy, drift_task, tmp_path):
    return [
        "task=gym",
        "task.name=drift",
        "task.id=drift_env:Drift-v0",
        "+task.kwargs.radius=99",
        "+task.kwargs.max_steps=100000",
        f"policy={drift_policy}",
        f"output={tmp_path / 'out'}",
    ]


def saved(tmp_path):
    return json.loads((tmp_path / "out" / "timing.json").read_text())


@pytest.mark.parametrize("worker", ("thread", "process"))
def test_a_live_run_is_reported_and_saved(arguments, tmp_path, capsys, worker):
    # However slow a busy machine is: a chunk is due before its actions are over.
    settings = [f"worker={worker}", "sampler=ddim", "sampler.steps=3", "lead=1"]
    assert main(["control", *arguments, *FAST, *settings]) == 0
    printed = capsys.readouterr().out
    assert "drift, seed 100000: not solved in" in printed and "4 times as fast" in printed
    assert f"control at 40 Hz, wall clock, inference in a {worker}" in printed
    assert "3 network calls" in printed and f"report: {tmp_path / 'out' / 'timing.json'}" in printed
    report = saved(tmp_path)
    timing = report["timing"]
    assert (timing["clock"], timing["worker"], timing["hz"], timing["calls"]) == ("wall", worker, 40, 3)
    assert 1 <= timing["ticks"] <= 24 and timing["latency"]["p99"] > 0 and report["error"] is None
    assert report["steps"] >= timing["ticks"] and "torch" in report["versions"] and report["machine"]["cores"] >= 1
    assert OmegaConf.load(tmp_path / "out" / "config.yaml").sampler.steps == 3


def test_simulated_clocks_are_reproducible_and_limits_hold(arguments, tmp_path, capsys):
    settings = ["clock=delay", "delay=2", "limits.high=0.1", "limits.rate=1", "hold=[0,null]", "hz=10"]
    assert main(["control", *arguments, *FAST, *settings, "max_seconds=3"]) == 0
    first = saved(tmp_path)
    assert main(["control", *arguments, *FAST, *settings, "max_seconds=3"]) == 0
    assert first["timing"]["ticks"] == first["steps"] == 30 and first["timing"]["lead"] == 2
    assert first["timing"]["limited_actions"] > 0 and first["return"] == saved(tmp_path)["return"]
    assert "delay clock" in capsys.readouterr().out


def test_a_recorded_trace_takes_the_place_of_the_delay(arguments, tmp_path):
    trace = tmp_path / "trace.csv"
    trace.write_text("sampler,seconds\nddpm,0.3\n")
    settings = ["clock=delay", f"trace={trace}", "hz=10", "max_seconds=2", "time_scale=2", "stitching=naive_switch"]
    assert main(["control", *arguments, *FAST, *settings]) == 0
    assert saved(tmp_path)["timing"]["lead"] == 6


def test_the_expert_can_be_run_live(tmp_path):
    arguments = ["task=push_t", "policy=expert", "clock=paused", "max_seconds=0.5", f"output={tmp_path / 'out'}"]
    assert main(["control", *arguments]) == 0
    assert saved(tmp_path)["timing"]["ticks"] == 5


def test_limits_may_be_lists_and_the_network_may_run_on_an_engine(arguments, tmp_path):
    pytest.importorskip("openvino")
    settings = ["limits.low=[-0.1,-0.1]", "limits.high=[0.1,0.1]", "clock=paused", "engine=openvino"]
    assert main(["control", *arguments, *FAST, *settings]) == 0
    assert saved(tmp_path)["timing"]["limited_actions"] > 0


def test_a_rate_counts_from_the_start_that_is_given(arguments, tmp_path):
    assert main(["control", *arguments, *FAST, "limits.rate=1e-3", "start=[0.2,-0.2]", "hz=5", "max_seconds=1"]) == 0
    timing = saved(tmp_path)["timing"]
    assert 0 < timing["limited_actions"] == timing["ticks"]


def test_a_shipped_task_knows_its_start(tmp_path):
    arguments = ["task=push_t", "policy=expert", "max_seconds=0.5", "limits.rate=0.1", f"output={tmp_path / 'out'}"]
    assert main(["control", *arguments, *FAST, "hz=10", "stitching=naive_switch"]) == 0
    assert saved(tmp_path)["timing"]["limited_actions"] > 0


@pytest.mark.parametrize(
    ("engine", "words"),
    (("auto", "the network's output is not finite"), ("eager", "inference failed: ")),
)
def test_a_policy_that_plans_nonsense_exits_with_one_line(engine, words, arguments, tmp_path, drift_policy, capsys):
    policy = load_policy(drift_policy)
    with torch.no_grad():
        next(policy.denoiser.parameters()).fill_(3e38)  # finite, but nothing that it computes is
    broken = policy.save(tmp_path / "broken")
    assert main(["control", *arguments, *FAST, f"policy={broken}", f"engine={engine}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"specpolicy control: {words}") and "not finite" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "extra, message",
    (
        (["clock=sundial"], "unknown clock 'sundial'"),
        (["worker=elf"], "unknown worker 'elf'"),
        (["on_miss=panic"], "unknown on_miss"),
        (["stitching=glue"], "unknown stitching"),
        (["hz=-3"], "hz=-3"),
        (["threads=0"], "threads=0"),
        (["max_seconds=0"], "max_seconds"),
        (["limits.low=2", "limits.high=1"], "limits"),
        (["limits.rate=1"], "start="),
        (["limits.rate=1", "start=[0,0,0]", "hz=5"], "the start pose has 3 entries"),
        (["limits.rate=1", "start=home"], "start=home: expected a number, or a list of them"),
        (["device=abacus"], "device=abacus"),
        (["engine=steam"], "engine"),
        (["sampler=dimm"], "did you mean 'ddim'"),
        (["clock=delay", "trace=nowhere.csv"], "nowhere.csv"),
    ),
)
def test_control_refuses_in_one_line(arguments, capsys, extra, message):
    assert main(["control", *arguments, *FAST, *extra]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1, error


def test_a_run_that_fails_before_its_first_step_leaves_no_report_of_an_earlier_one(arguments, tmp_path, monkeypatch):
    assert main(["control", *arguments, *FAST, "clock=paused", "seed=1"]) == 0
    assert saved(tmp_path)["config"]["seed"] == 1

    def lost(self):
        raise OSError("the camera is gone")

    monkeypatch.setattr(GymRobot, "observe", lost)
    assert main(["control", *arguments, *FAST, "clock=paused", "seed=2"]) == 2
    assert OmegaConf.load(tmp_path / "out" / "config.yaml").seed == 2
    assert not (tmp_path / "out" / "timing.json").exists()


def test_a_run_that_is_refused_leaves_the_earlier_one_as_it_is(arguments, tmp_path):
    assert main(["control", *arguments, *FAST, "clock=paused", "seed=1"]) == 0
    assert main(["control", *arguments, *FAST, "clock=paused", "seed=2", "on_miss=panic"]) == 2
    assert OmegaConf.load(tmp_path / "out" / "config.yaml").seed == saved(tmp_path)["config"]["seed"] == 1


def test_the_report_is_worked_out_once(arguments, tmp_path, monkeypatch):
    """Of a day's run it takes its time, in which signals wait."""
    summary, asked = TimingLog.summary, []
    monkeypatch.setattr(TimingLog, "summary", lambda self: asked.append(self) or summary(self))
    assert main(["control", *arguments, *FAST, "clock=paused"]) == 0
    assert len(asked) == 1 and saved(tmp_path)["timing"] == json.loads(json.dumps(summary(asked[0])))


def test_a_policy_of_another_task_is_refused(drift_policy, tmp_path, capsys):
    assert main(["control", "task=push_t", f"policy={drift_policy}", f"output={tmp_path}"]) == 2
    assert "give the task it was trained on" in capsys.readouterr().err


class LostTerminal:
    """Standard output after an ssh session has gone."""

    def write(self, text):
        raise OSError(errno.EIO, "Input/output error")

    def flush(self):
        raise OSError(errno.EIO, "Input/output error")

    def fileno(self):
        raise OSError(errno.EBADF, "no file")


@pytest.mark.parametrize("name, code", ((None, 0), ("SIGHUP", 129)))
def test_a_terminal_that_has_gone_costs_no_report(arguments, tmp_path, monkeypatch, name, code):
    act = GymRobot.act

    def lose(self, action):
        monkeypatch.setattr(sys, "stdout", LostTerminal())
        if name and self.steps == 3:
            os.kill(os.getpid(), getattr(signal, name))
        act(self, action)

    monkeypatch.setattr(GymRobot, "act", lose)
    before = signal.getsignal(signal.SIGHUP)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        found = main(["control", *arguments, *FAST, "clock=paused", f"max_seconds={60 if name else 1}"])
    except SystemExit as left:
        found = left.code
    finally:
        signal.signal(signal.SIGHUP, before)
    assert found == code and saved(tmp_path)["error"] == name
    assert saved(tmp_path)["timing"]["end"]["cause"] == (name or "the time was over")


@pytest.mark.parametrize("number, code", ((signal.SIGINT, 130), (signal.SIGTERM, 143)))
def test_an_interrupted_run_stops_the_robot_reports_and_says_so(arguments, tmp_path, number, code):
    """The whole program, process worker included. A robot of the test's own tells when it moves and when it stops."""
    marks = tmp_path / "marks"
    program = (
        "import sys; from specpolicy.control import GymRobot; from specpolicy.cli import main\n"
        f"marks = open({str(marks)!r}, 'a', buffering=1)\n"
        "act, stop = GymRobot.act, GymRobot.stop\n"
        "GymRobot.act = lambda self, action: (marks.write('act\\n'), act(self, action))\n"
        "GymRobot.stop = lambda self: (marks.write('stop\\n'), stop(self))\n"
        "if __name__ == '__main__': sys.exit(main(sys.argv[1:]))\n"
    )
    script = tmp_path / "program.py"
    script.write_text(program)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    patient = ["worker=process", "max_seconds=600", "hz=5"]  # a busy machine must not be too slow for it
    command = [sys.executable, str(script), "control", *arguments, *FAST, *patient]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    try:
        while process.poll() is None and (not marks.exists() or marks.read_text().count("act") < 5):
            time.sleep(0.05)
        process.send_signal(number)
        out, error = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == code, error
    assert marks.read_text().splitlines()[-1] == "stop" and marks.read_text().count("stop") == 1
    assert "chunk latency" in out and "Traceback" not in error
    assert saved(tmp_path)["error"] == signal.Signals(number).name
