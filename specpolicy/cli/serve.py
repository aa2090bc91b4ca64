"""Serve a policy over the network: websocket and msgpack in openpi's protocol, for openpi's clients and ours.

A client sends observations and receives chunks of actions. Requests of several clients are planned together. The same
port answers /healthz (is the server alive) and /metrics (latency, calls, rows and the queue, for Prometheus). Only this
machine can connect unless host= says otherwise. Ctrl-C ends the server. If the policy can no longer be run, it exits
with code 1, so that a supervisor can restart it. The protocol is described in docs/serving.md.

Examples:
  specpolicy serve policy=checkpoints/lift
  SPECPOLICY_API_KEY=secret specpolicy serve policy=checkpoints/lift sampler=ddim host=0.0.0.0 port=8000
  specpolicy control task=lift policy=ws://localhost:8000
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from specpolicy.errors import SpecpolicyError

if TYPE_CHECKING:
    from specpolicy.serving.service import PolicyService

OUTPUT = Path("outputs/serve")  # the default in configs/serve.yaml


def run(config: DictConfig) -> None:
    """Serve as `config` (configs/serve.yaml) says, until Ctrl-C or SIGTERM."""
    with contextlib.ExitStack() as stack:
        output = _hold(stack, Path(config.output))
        _serve(config, output)


def _serve(config: DictConfig, output: Path) -> None:
    """Serve the policy; this server holds `output`."""
    from specpolicy.cli.configuration import save_config
    from specpolicy.cli.control import API_KEY
    from specpolicy.cli.own_outputs import check_own
    from specpolicy.files import write_text
    from specpolicy.serving.inference import InferenceEnded
    from specpolicy.serving.server import PolicyServer

    service = _service(config)
    key = os.environ.get(API_KEY) if config.api_key is None else str(config.api_key)
    server = PolicyServer(
        service,
        str(config.host),
        config.port,
        api_key=key,
        max_message=None if config.max_message_mb is None else max(1, round(config.max_message_mb * 2**20)),
        max_clients=config.max_clients,
        max_batch=config.max_batch,
        idle_seconds=config.idle_seconds,
        seed=config.seed,
    )
    service.warm_up(config.max_batch)

    shown = config.copy()
    shown.api_key = None if config.api_key is None else "..."

    def ready() -> None:
        # Only once the port is ours: until then the directory may belong to a running server.
        check_own(output, "serve", ["metrics.txt", "config.yaml"])
        save_config(shown, output, "serve")
        name = f"[{server.host}]" if ":" in server.host else server.host
        how = f"{service.metadata.more['sampler']}, engine {service.metadata.more['engine']}"
        print(f"serving {config.policy} ({how}) at ws://{name}:{server.port}", flush=True)
        if key is None and server.host not in ("localhost", "127.0.0.1", "::1"):
            print(f"whoever reaches this address can use it: set {API_KEY} to ask for a key", flush=True)

    ended: InferenceEnded | None = None
    try:
        server.run(ready)
    except InferenceEnded as error:
        ended = error
    write_text(output / "metrics.txt", server.metrics.text().decode())
    print(f"the server has ended; its figures: {output / 'metrics.txt'}")
    if ended is not None:  # not the user's mistake, and this process cannot repair it: a supervisor restarts it
        print(f"specpolicy serve: {ended}", file=sys.stderr)
        raise SystemExit(1)


def _hold(stack: contextlib.ExitStack, output: Path) -> Path:
    """Claim the output; servers without a given output run side by side, each with its own."""
    from specpolicy.outputs import InUse, claim

    try:
        return stack.enter_context(claim(output, "serve"))
    except InUse:
        if output != OUTPUT:
            raise
        return stack.enter_context(claim(output.with_name(f"{output.name}-{os.getpid()}"), "serve"))


def _service(config: DictConfig) -> PolicyService:
    import torch

    from specpolicy.cli.policies import pin
    from specpolicy.cli.samplers import given_sampler, name_best_sampler
    from specpolicy.evaluation.provenance import fingerprint
    from specpolicy.policy import load_policy
    from specpolicy.serving.service import PolicyService

    if config.threads is not None:
        if config.threads < 1:
            raise SpecpolicyError(f"threads={config.threads}: expected at least one")
        torch.set_num_threads(config.threads)
    sampler = given_sampler(config)
    pin(config)
    policy = load_policy(str(config.policy), config.device, trust=config.trust)
    name_best_sampler(config, policy)
    if config.engine != "eager" or config.precision != "float32":
        policy = policy.with_engine(config.engine, max(policy.steps or 1, config.max_batch), config.precision)
    about = {"policy": str(config.policy), "fingerprint": fingerprint(policy), "engine": policy.engine_name}
    return PolicyService(policy, sampler, about)
