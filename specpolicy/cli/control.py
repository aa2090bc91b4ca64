"""Run a policy live: a control loop on the wall clock moves a task's simulated robot, or a real one, and reports its
timing.

Inference runs beside the loop, and the world does not wait for it. The run ends with the episode, or with its time. If
something else ends it, the robot is stopped first: an action that is not finite, an exception or a hang in inference,
a lost observation, Ctrl-C, `kill`, a lost terminal. A real robot is disconnected at the end (docs/robots.md). The
report is printed and saved as timing.json, beside config.yaml.

Examples:
  specpolicy control task=lift policy=checkpoints/lift hz=20
  specpolicy control task=lift_conveyor policy=checkpoints/lift_conveyor sampler=ddpm on_miss=hold_last
  specpolicy control task=lift policy=checkpoints/lift clock=delay delay=4 stitching=temporal_ensembling
  specpolicy control robot=lerobot:so101_follower +robot.config.port=/dev/ttyACM0 policy=checkpoints/mine limits.rate=60
  specpolicy control task=lift policy=ws://192.168.0.2:8000 reconnect=10 inference_timeout=45
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from specpolicy.cli.samplers import plain
from specpolicy.errors import SpecpolicyError

if TYPE_CHECKING:
    from specpolicy.cli.live_robots import Live
    from specpolicy.control import Controller, Planner
    from specpolicy.control.clock import Clock

API_KEY = "SPECPOLICY_API_KEY"  # environment variable with the key of a policy server
REPORT = "timing.json"
FORMAT = 1


def run(config: DictConfig) -> None:
    """Control the robot as `config` (configs/control.yaml) says."""
    from specpolicy.cli.configuration import save_config
    from specpolicy.cli.live_robots import live_robot, moved
    from specpolicy.cli.own_outputs import check_own
    from specpolicy.cli.policies import pin
    from specpolicy.control import timing_report
    from specpolicy.control.signals import EndingSignals, ending_raises
    from specpolicy.outputs import claim, default_name, file_name

    if config.seed < 0 or config.max_seconds <= 0:
        raise SpecpolicyError("max_seconds must be positive and seed not negative (specpolicy control --help)")
    name = file_name(moved(config))
    pin(config)
    output = Path(config.output or f"outputs/control/{name}-{default_name(config.policy)}")
    with claim(output, "control"), ending_raises(), live_robot(config) as live:
        check_own(output, "control", [REPORT, "config.yaml"])
        planner = _planner(config, live)
        hz = live.hz(getattr(planner, "control_hz", None))
        controller = _controller(config, planner, live, hz)
        (output / REPORT).unlink(missing_ok=True)  # of an earlier run: this one may end without a step
        save_config(config, output, "control")
        live.connect()
        error: BaseException | None = None
        try:
            controller.run(seconds=float(config.max_seconds), until=live.done)
        except BaseException as raised:
            error = raised
            raise
        finally:
            if controller.log.ticks:
                with EndingSignals():  # a second Ctrl-C waits until the report is on the disk
                    summary = controller.log.summary()
                    facts = {**_drawn_by(config, planner), **live.facts(), "error": _line(controller, error)}
                    path = _save(config, facts, summary, output)
                    _print(f"{live.outcome(hz)}\n{timing_report(summary)}\nreport: {path}")


def _planner(config: DictConfig, live: Live) -> Planner:
    import torch

    from specpolicy.cli.engines import on_engine
    from specpolicy.cli.live_robots import check_policy
    from specpolicy.cli.samplers import given_sampler, name_best_sampler
    from specpolicy.control import PolicyPlanner
    from specpolicy.evaluation.planners import ExpertPlanner
    from specpolicy.evaluation.player import EXPERT
    from specpolicy.policy import load_policy

    if config.threads < 1:
        raise SpecpolicyError(f"threads={config.threads}: expected at least one")
    torch.set_num_threads(config.threads)
    if config.policy == EXPERT:
        if config.task is None:
            raise SpecpolicyError("policy=expert: the shipped tasks have experts, a robot has none")
        return ExpertPlanner(plain(config.task))
    if str(config.policy).startswith(("ws://", "wss://")):
        return _remote_planner(config, live)
    sampler = given_sampler(config)
    policy = load_policy(str(config.policy), config.device)
    name_best_sampler(config, policy)
    check_policy(live, policy)
    return PolicyPlanner(on_engine(policy, config.engine), sampler)


def _remote_planner(config: DictConfig, live: Live) -> Planner:
    """Connect to a policy server and return its planner; the server chooses the sampler."""
    from specpolicy.serving.client import RemotePlanner

    planner = RemotePlanner(
        str(config.policy),
        os.environ.get(API_KEY),
        reconnect=float(config.reconnect),
        n_action_steps=config.execute_steps,
    )
    told = planner.metadata
    live.check(told.observation or {}, told.action_dim, told.control_hz)
    return planner


def _controller(config: DictConfig, planner: Planner, live: Live, hz: float) -> Controller:
    from specpolicy.control import Controller, Limits
    from specpolicy.control.process_worker import ProcessWorker

    limits = Limits(**plain(config.limits))
    beside = config.clock == "wall"  # else the world waits and inference runs in the loop
    return Controller(
        planner,
        live.begin(hz),
        hz=hz,
        clock=_clock(config, hz),
        worker=ProcessWorker(planner, config.threads) if beside and config.worker == "process" else str(config.worker),
        execute_steps=config.execute_steps,
        lead=config.lead,
        on_miss=config.on_miss,
        stitching=config.stitching,
        ensemble_decay=float(config.ensemble_decay),
        hold=live.hold(),
        in_flight=config.in_flight,
        limits=limits if any(value is not None for value in config.limits.values()) else None,
        start=plain(config.start),
        watchdog=config.watchdog,
        inference_timeout=config.inference_timeout,
        warm_up=config.warm_up,
        seed=config.seed,
        any_rate=config.any_rate,
    )


def _clock(config: DictConfig, hz: float) -> Clock:
    from specpolicy.control.clock import make_clock
    from specpolicy.control.trace import read_trace

    trace = None if config.trace is None else read_trace(config.trace, config.trace_sampler)
    return make_clock(config.clock, hz, delay=config.delay, trace=trace, scale=float(config.time_scale))


def _print(text: str) -> None:
    """Print a text that is also saved to a file: a lost terminal must not change how the run ends."""
    try:
        print(text, flush=True)
    except OSError:
        with contextlib.suppress(OSError):  # nor must Python's own flush at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _drawn_by(config: DictConfig, planner: Any) -> dict[str, str | None]:
    """Return the sampler and engine behind the chunks; None if there is none or the server does not say."""
    if hasattr(planner, "metadata"):
        return {name: planner.metadata.more.get(name) for name in ("sampler", "engine")}
    sampler = None if config.sampler is None or config.policy == "expert" else str(config.sampler.name)
    return {"sampler": sampler, "engine": planner.policy.engine_name if hasattr(planner, "policy") else None}


def _save(config: DictConfig, facts: dict[str, Any], summary: dict[str, Any], output: Path) -> Path:
    """Write timing.json: the report, the outcome of the episode, and the provenance of the figures."""
    from specpolicy.evaluation.provenance import hardware, load
    from specpolicy.files import write_text
    from specpolicy.machine import versions

    report = {
        "format": FORMAT,
        **facts,
        "timing": summary,
        "machine": hardware(),
        "load": load(),
        "versions": versions(),
        "command": shlex.join(["specpolicy", *sys.argv[1:]]),
        "config": plain(config),
    }
    path = output / REPORT
    write_text(path, json.dumps(report, indent=2) + "\n")
    return path


def _line(controller: Controller, error: BaseException | None) -> str | None:
    """Return the error in one line; an exception raised by a signal has no text of its own."""
    if error is None or isinstance(error, Exception):
        return None if error is None else str(error)
    cause = "" if controller.log.end is None else controller.log.end.cause
    return "; ".join(filter(None, [cause, str(error.__cause__ or "")])) or type(error).__name__
