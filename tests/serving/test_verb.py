"""The verb serve, as a user types it: started, asked, killed, started again, and driven by the verb control."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from specpolicy.cli import main
from specpolicy.integrations.openpi_client import WebsocketClientPolicy
from specpolicy.serving import RemotePlanner

ENVS = Path(__file__).parents[1] / "evaluation"  # drift_env.py: a point that moves as it is told
HISTORY = {"position": np.zeros((2, 2)), "object": np.zeros((2, 3))}


@pytest.fixture
def serve(small_policy, tmp_path):
    """Starts `specpolicy serve` on a port and returns the process and its address."""
    checkpoint = small_policy.save(tmp_path / "policy")
    processes = []

    def start(*arguments, port=0):
        command = [sys.executable, "-m", "specpolicy", "serve", f"policy={checkpoint}", f"port={port}", *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "SPECPOLICY_API_KEY": "from the environment"}
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=tmp_path
        )
        processes.append(process)
        line = process.stdout.readline()
        found = re.search(r"serving .* at (ws://127\.0\.0\.1:\d+)", line)
        assert found, line + process.stdout.read()
        return process, found[1]

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_served_policy_answers_and_ends_with_the_signal(serve, tmp_path):
    process, address = serve("sampler=ddim", "sampler.steps=3", "max_batch=2", "threads=1")
    client = WebsocketClientPolicy(address, api_key="from the environment")
    told = client.get_server_metadata()
    assert (
        told["sampler"] == "ddim"
        and told["engine"] in ("eager", "openvino")
        and told["n_action_steps"] == 4
        and len(told["fingerprint"]) == 16
    )
    answer = client.infer({key: value[0] for key, value in HISTORY.items()})
    assert answer["actions"].shape == (7, 2) and answer["policy_timing"]["calls"] == 3
    client.reset()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0 and "the server has ended" in process.stdout.read()
    assert 'specpolicy_requests_total{outcome="answered"} 1.0' in (tmp_path / "outputs/serve/metrics.txt").read_text()


def test_a_server_that_is_killed_and_started_again_is_found_again(serve, tmp_path):
    process, address = serve("api_key=given")
    planner = RemotePlanner(address, "given", reconnect=120.0)
    planner.reset(0)
    first = planner.plan(HISTORY).actions
    process.kill()
    process.wait()
    again, _ = serve("api_key=given", port=address.rpartition(":")[2])
    planner.reset(0)
    np.testing.assert_array_equal(planner.plan(HISTORY).actions, first)
    again.send_signal(signal.SIGINT)  # Ctrl-C
    assert again.wait(30) == 0
    saved = (tmp_path / "outputs/serve/config.yaml").read_text()
    assert "max_batch: 8" in saved and "given" not in saved  # the key is nowhere


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["port=99999"], "port=99999"),
        (["max_clients=0"], "max_clients=0"),
        (["threads=0"], "threads=0"),
        (["max_message_mb=0.0"], "max_message_mb=0.0: expected a positive number"),
        (["engine=warp"], "unknown engine 'warp'"),
        (["device=cuda:7"], "device=cuda:7 cannot be used here"),
        (["sampler=nothing"], "unknown sampler 'nothing'"),
        (["host=256.1.1.1", "port=0"], "cannot listen on 256.1.1.1"),
        (["prot=1"], "did you mean 'port'"),
    ],
)
def test_bad_settings_are_one_line(arguments, complaint, small_policy, tmp_path, capsys):
    own = [f"policy={small_policy.save(tmp_path / 'p')}", f"output={tmp_path / 'out'}", "max_batch=1"]
    assert main(["serve", *own, *arguments]) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1


def test_a_port_that_is_taken_leaves_what_is_in_the_output(small_policy, tmp_path, capsys):
    output = tmp_path / "out"
    output.mkdir()
    (output / "config.yaml").write_text("of the server that runs\n")
    (output / "metrics.txt").write_text("its figures\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        own = [f"policy={small_policy.save(tmp_path / 'p')}", f"output={output}", "max_batch=1"]
        assert main(["serve", *own, f"port={taken.getsockname()[1]}"]) == 2
    error = capsys.readouterr().err
    assert "cannot listen on" in error and error.endswith(": choose another host or port\n")
    assert (output / "config.yaml").read_text() == "of the server that runs\n"
    assert sorted(path.name for path in output.iterdir()) == ["config.yaml", "metrics.txt"]


@pytest.fixture
def control(monkeypatch, tmp_path):
    """Runs the verb control against an address, with a point in the plane for a robot."""
    monkeypatch.syspath_prepend(str(ENVS))
    monkeypatch.setenv("SPECPOLICY_API_KEY", "from the environment")
    task = ["task=gym", "task.name=drift", "task.id=drift_env:Drift-v0", "+task.kwargs.max_steps=100000"]
    fast = ["+task.kwargs.radius=99", "warm_up=1", "worker=thread", "hz=40", "watchdog=60"]
    return lambda address, *more: main(
        ["control", *task, *fast, f"policy={address}", f"output={tmp_path / 'out'}", *more]
    )


def test_control_runs_on_a_served_policy(serve, control, tmp_path, capsys):
    process, address = serve("sampler=ddim", "sampler.steps=3")
    assert control(address, "max_seconds=0.5", "inference_timeout=60") == 0
    report = json.loads((tmp_path / "out" / "timing.json").read_text())
    assert report["sampler"] == "ddim" and report["engine"] in ("eager", "openvino") and report["error"] is None
    assert report["timing"]["calls"] == 3 and report["timing"]["ticks"] >= 1
    process.kill()
    process.wait()
    assert control(address) == 2
    assert "no policy server answers at" in capsys.readouterr().err
