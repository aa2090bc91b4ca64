"""A Ray cluster: reached or started, and each of its nodes looked at before anything is done there."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import socket
import threading
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from specpolicy.cluster.options import Ray
from specpolicy.cluster.ray_actors import Place, looked
from specpolicy.errors import SpecpolicyError
from specpolicy.machine import cores

REACHED_SECONDS = 5.0  # to reach an address; Ray itself tries for minutes
LOOKED_SECONDS = 180.0  # to look at all nodes: each imports what the work imports
# Of a Ray that is begun here: no report to its makers, and processes with the priority of this one, not of background.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
OBJECTS = 200 * 2**20  # bytes of a Ray of our own: observations and chunks are small, and gone at once


@dataclass(frozen=True)
class Node:
    """A node of the cluster: its id, its address, its CPUs, and what was seen there."""

    id: str
    address: str
    cpus: int
    facts: Mapping[str, Any]


@contextlib.contextmanager
def connected(options: Ray) -> Iterator[Any]:
    """Have a connection to the cluster for the block, and the module ray; one that is there already is used and kept.

    Raises:
        SpecpolicyError: Ray is not installed, or there is no cluster at the address.
    """
    try:
        import ray
        import ray.util.scheduling_strategies
    except ModuleNotFoundError as error:
        raise SpecpolicyError(f"cluster=ray needs {error.name}: pip install 'specpolicy[ray]'") from None
    if ray.is_initialized():
        yield ray
        return
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if options.address is None:
        wanted = 0 if options.workers is None else options.workers + options.planners
        count = max(cores(), wanted)
        with _own_sigterm():
            ray.init("local", num_cpus=count, object_store_memory=OBJECTS, include_dashboard=False, **quiet)
    else:
        _reach(options.address)
        try:
            with _own_sigterm():
                ray.init(options.address, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = str(error).strip().partition("\n")[0][:200]
            raise SpecpolicyError(f"cluster.address={options.address}: no Ray cluster can be used: {reason}") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def look_at_nodes(ray: Any, look: Callable[[], Mapping[str, Any]], only: Container[str] | None = None) -> list[Node]:
    """Return all nodes that have CPUs, with what `look` returns there.

    Args:
        ray: the module, connected.
        look: a function without arguments that can be pickled.
        only: ids of nodes; None: all.

    Raises:
        SpecpolicyError: a node cannot look, as where another version of this package is installed.
    """
    place, call = Place.here(), pickle.dumps(look)
    alive = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    alive = [node for node in alive if only is None or node["NodeID"] in only]
    if not alive and only is None:
        raise SpecpolicyError("cluster: no node of the Ray cluster has a CPU")
    affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    asked = {
        node["NodeID"]: ray.remote(num_cpus=0)(looked)
        .options(scheduling_strategy=affinity(node["NodeID"], soft=False))
        .remote(place, call)
        for node in alive
    }
    found = []
    for node in alive:
        address = str(node["NodeManagerAddress"])
        try:
            facts = ray.get(asked[node["NodeID"]], timeout=LOOKED_SECONDS)
        except ray.exceptions.GetTimeoutError:
            raise SpecpolicyError(f"cluster: node {address} has not answered in {LOOKED_SECONDS:g} s") from None
        except Exception as error:
            raise SpecpolicyError(f"cluster: node {address} cannot work: {reason_of(error)}") from None
        found.append(Node(node["NodeID"], address, int(node["Resources"]["CPU"]), facts))
    return found


def reason_of(error: Exception) -> str:
    """Return why something failed on a node, in one line."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    text = lines[-1] if lines and "Traceback" in str(cause) else " ".join(lines)
    return f"{text[:300]}" if isinstance(cause, SpecpolicyError) else f"{type(cause).__name__}: {text[:300]}"


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep this program's answer to SIGTERM, which a scheduler sends. Ray's is a stack trace and an abort."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _reach(address: str) -> None:
    """Raise if nobody listens at an address host:port."""
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise SpecpolicyError(f"cluster.address={address}: expected auto, or host:port of the cluster's head node")
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACHED_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise SpecpolicyError(f"cluster.address={address}: no Ray cluster answers there ({error})") from None
