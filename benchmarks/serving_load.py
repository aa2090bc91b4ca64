"""A policy server under load: clients that each request a chunk at a fixed rate.

    python benchmarks/serving_load.py --clients 8 --hz 10 --minutes 5

Starts `specpolicy serve` on a free port and sends requests from one process with a thread for each client. Reports the
time from request to answer as clients see it, the share of answers within their period, and the errors. A client
without an answer within its period requests again once it has one and skips the missed requests; these are counted.
Writes a JSON file and a Markdown table. With --kill SECONDS the server is killed once after this time and restarted,
with clients that are set to wait for it.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from specpolicy.control.timing import quantiles
from specpolicy.errors import SpecpolicyError
from specpolicy.evaluation.provenance import hardware, load
from specpolicy.files import write_text
from specpolicy.machine import versions
from specpolicy.serving import RemotePlanner

READY_SECONDS = 300.0


@dataclass
class Seen:
    """One client's observations: seconds of each answered request, and the errors."""

    seconds: list[float] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    skipped: int = 0


def start_server(arguments: list[str], port: int) -> tuple[subprocess.Popen[str], int]:
    """Return the server's process and its port, once it listens."""
    command = [sys.executable, "-m", "specpolicy", "serve", f"port={port}", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"at ws://\S+:(\d+)", line)
    if not found:
        process.wait()
        raise SystemExit(f"the server has not started: {shlex.join(command)}")
    return process, int(found[1])


def ask(address: str, number: int, hz: float, begin: float, seconds: float, reconnect: float, seen: Seen) -> None:
    """Run one client; its number decides where in the period its requests are sent."""
    rng = np.random.default_rng(number)
    try:
        planner = RemotePlanner(address, reconnect=reconnect)
        shapes = planner.metadata.observation or {}
        planner.reset(number)
        step = 0
        while (due := begin + step / hz) < begin + seconds:
            time.sleep(max(0.0, due - time.perf_counter()))
            history = {
                key: rng.normal(size=(planner.n_obs_steps, *shape)).astype(np.float32) for key, shape in shapes.items()
            }
            asked = time.perf_counter()
            try:
                chunk = planner.plan(history)
                seen.seconds.append(time.perf_counter() - asked)
                seen.calls.append(chunk.calls)
            except SpecpolicyError as error:
                seen.errors.append(str(error))
            following = max(step + 1, math.ceil((time.perf_counter() - begin) * hz))
            seen.skipped += following - step - 1
            step = following
        planner.close()
    except SpecpolicyError as error:
        seen.errors.append(str(error))


def measure(arguments: argparse.Namespace, server_arguments: list[str]) -> dict[str, Any]:
    """Run server and clients; return the figures."""
    process, port = start_server(server_arguments, 0)
    address, seconds = f"ws://127.0.0.1:{port}", 60 * arguments.minutes
    reconnect = READY_SECONDS if arguments.kill else 0.0
    everyone = [Seen() for _ in range(arguments.clients)]
    begin = time.perf_counter() + 1.0
    threads = []
    for number, seen in enumerate(everyone):
        offset = begin + number / arguments.hz / arguments.clients
        settings = (address, number, arguments.hz, offset, seconds, reconnect, seen)
        threads.append(threading.Thread(target=ask, args=settings))
        threads[-1].start()
    try:
        if arguments.kill:
            time.sleep(arguments.kill)
            process.kill()
            process.wait()
            process, _ = start_server(server_arguments, port)
        for thread in threads:
            thread.join()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            metrics = answer.read().decode()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
    period, latency = 1 / arguments.hz, [one for seen in everyone for one in seen.seconds]
    errors = [error for seen in everyone for error in seen.errors]
    return {
        "clients": arguments.clients,
        "hz": arguments.hz,
        "seconds": seconds,
        "answers": len(latency),
        "answers_per_second": len(latency) / seconds,
        "latency": quantiles(latency),
        "within_period": float(np.mean([one <= period for one in latency])) if latency else None,
        "skipped": sum(seen.skipped for seen in everyone),
        "calls": float(np.mean([one for seen in everyone for one in seen.calls])) if latency else None,
        "mean_batch": _ratio(metrics, "specpolicy_batch_size_sum", "specpolicy_batch_size_count"),
        "errors": len(errors),
        "error_texts": sorted(set(errors))[:10],
    }


def _ratio(metrics: str, above: str, below: str) -> float | None:
    values = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if not line.startswith("#"))
    count = float(values.get(below, 0))
    return float(values[above]) / count if count else None


def table(report: dict[str, Any]) -> str:
    """Return the Markdown table beside the JSON."""
    result, machine = report["result"], report["machine"]
    latency = result["latency"] or {}
    times = " | ".join(f"{1e3 * latency.get(name, math.nan):.0f}" for name in ("p50", "p95", "p99", "max"))
    share = f"{100 * (result['within_period'] or 0):.1f} %"
    computer = f"{machine['cpu']}, {machine['cores']} cores, GPU {machine['gpu'] or 'none'}"
    killed = f", the server killed and started again after {report['kill']:g} s" if report["kill"] else ""
    errors = "".join(f"\n- {text}" for text in result["error_texts"])
    return (
        f"# A policy server under load\n\n"
        f"{result['clients']} clients at {result['hz']:g} Hz for {result['seconds']:g} s{killed}. "
        f"`{report['command']}`\n\n"
        "| requests answered | errors | p50 ms | p95 ms | p99 ms | max ms | within the period | skipped | "
        "network calls | mean batch |\n|---|---|---|---|---|---|---|---|---|---|\n"
        f"| {result['answers']} | {result['errors']} | {times} | {share} | {result['skipped']} | "
        f"{result['calls'] or 0:.1f} | {result['mean_batch'] or 0:.1f} |\n{errors}\n"
        f"Server: `specpolicy serve {shlex.join(report['server'])}`. Times are those the clients saw, on "
        f"the server's machine: {computer}; load average "
        f"{report['load']} when it began. A client whose answer takes longer than its period skips the requests that "
        "it was to send meanwhile.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="checkpoints/lift")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--hz", type=float, default=10.0, help="requests per second of each client")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--kill", type=float, default=0.0, help="seconds after which the server is killed once")
    parser.add_argument("--output", type=Path, default=Path("docs/results/serving.json"))
    parser.add_argument("server", nargs="*", help="more settings of `specpolicy serve`, such as sampler=ddim")
    arguments = parser.parse_args()

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    server_arguments = [f"policy={arguments.policy}", *arguments.server]
    report = {
        "command": shlex.join(["python", *sys.argv]),
        "server": server_arguments,
        "kill": arguments.kill,
        "machine": hardware(),
        "load": load(),
        "versions": versions(),
    }
    report["result"] = measure(arguments, server_arguments)
    write_text(arguments.output, json.dumps(report, indent=2) + "\n")
    write_text(arguments.output.with_suffix(".md"), table(report))
    print(table(report))
    sys.exit(1 if report["result"]["errors"] else 0)


if __name__ == "__main__":
    main()
