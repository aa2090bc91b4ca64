"""The crew of a verb: who does its work, by the config group `cluster`."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import secrets
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from specpolicy.cluster import Crew, Local, Processes, Ray, read_options
from specpolicy.errors import SpecpolicyError
from specpolicy.files import writing
from specpolicy.machine import cores

if TYPE_CHECKING:
    from specpolicy.cluster.ray_nodes import Node


def cluster_options(config: DictConfig, shares: bool = True, alone: bool = False) -> Local | Ray:
    """Return the options of a verb's cluster, before anything begins.

    Args:
        config: the verb's configuration.
        shares: whether its work has a policy that processes can share.
        alone: one process, if no number is given.

    Raises:
        SpecpolicyError: a value that cannot be meant.
    """
    options = read_options(OmegaConf.to_container(config.cluster, resolve=True))
    if options.planners and not shares:
        raise SpecpolicyError(f"cluster.planners={options.planners}: there is no policy to share here")
    return replace(options, workers=max(1, options.planners)) if alone and options.workers is None else options


@dataclass(frozen=True)
class Needs:
    """What a verb needs of every machine.

    Attributes:
        output: directory that it must be able to write to.
        task: the task, whose physics must be those of this machine; None: there is no matter.
        seen: files and directories that it must see as they are here.
        device: of the policy.
        alike: whether processors and GPUs must be the same, as where measured times count.
    """

    output: Path
    task: Mapping[str, Any] | None = None
    seen: Sequence[Path] = ()
    device: str = "cpu"
    alike: bool = False


@contextlib.contextmanager
def opened(options: Local | Ray, needs: Needs) -> Iterator[Crew]:
    """Have a crew for the block.

    Args:
        options: see `cluster_options`.
        needs: what is checked before anything begins.

    Raises:
        SpecpolicyError: the cluster, or one of its machines, cannot be used.
    """
    if isinstance(options, Local):
        workers = max(1, cores() - options.planners) if options.workers is None else options.workers
        yield Processes(workers, options.planners, options.timeout)
        return
    from specpolicy.cluster.ray_crew import RayCrew
    from specpolicy.cluster.ray_nodes import connected, look_at_nodes

    device = needs.device
    if device.partition(":")[2]:
        raise SpecpolicyError(f"device={device}: Ray gives each policy a GPU of its own: name no number")
    gpus = (1.0 if device == "cuda" else 0.0) if options.gpus is None else options.gpus
    with connected(options) as ray:
        here = look(tuple(map(Path.resolve, needs.seen)), needs.task)

        def vetted(only: Container[str] | None = None) -> list[Node]:
            with _token(needs.output) as token:
                paths = {**here["paths"], str(token): content_digest(token)}
                found = look_at_nodes(ray, functools.partial(look, tuple(paths), needs.task), only)
            for node in found:
                check_node(node, {**here, "paths": paths}, str(token))
                if needs.alike:
                    check_hardware(node, (nodes or found)[0])
            return found

        nodes: list[Node] = []
        nodes = vetted()
        free = sum(node.cpus for node in nodes) - (0 if gpus else options.planners)
        workers = free if options.workers is None else options.workers
        if not 0 < workers <= free:
            taken = f", {options.planners} of them for planners" if options.planners and not gpus else ""
            raise SpecpolicyError(
                f"cluster.workers={workers}: the Ray cluster has {sum(node.cpus for node in nodes)} CPUs{taken}"
            )
        yield RayCrew(ray, nodes, workers, options.planners, gpus, options.retries, options.timeout, vetted)


@contextlib.contextmanager
def _token(output: Path) -> Iterator[Path]:
    """Have a file of random content in the output, by which a node shows that it sees the output."""
    output.mkdir(parents=True, exist_ok=True)
    path = output.resolve() / f".specpolicy-{secrets.token_hex(8)}"
    with writing(path):
        path.write_text(path.name, encoding="utf-8")
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def look(paths: Sequence[Path | str], task: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what is to be compared between machines: versions, by path a digest of what lies there, and physics."""
    from specpolicy.evaluation.physics import probe
    from specpolicy.evaluation.provenance import hardware
    from specpolicy.machine import versions
    from specpolicy.tasks import make_task_env

    physics = None
    if task is not None:
        with contextlib.closing(make_task_env(task)) as env:
            physics = probe(env)
    return {
        "versions": versions(),
        "physics": physics,
        "paths": {str(path): content_digest(Path(path)) for path in paths},
        "about": {"hardware": hardware()},
    }


def content_digest(path: Path) -> str | None:
    """Return a digest of a file, or of the files of a directory that are not hidden; None if there is nothing."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    if not path.is_dir():
        return None
    files = sorted(one for one in path.iterdir() if one.is_file() and not one.name.startswith("."))
    named = [f"{one.name} {hashlib.sha256(one.read_bytes()).hexdigest()}" for one in files]
    return hashlib.sha256("\n".join(named).encode()).hexdigest()


def check_node(node: Node, here: Mapping[str, Any], token: str) -> None:
    """Refuse a node that differs from this machine.

    Args:
        node: with what `look` saw there.
        here: what it saw here.
        token: path of a file in the output, among the paths.

    Raises:
        SpecpolicyError: other versions, or a path that the node does not see.
    """
    from specpolicy.evaluation.physics import difference

    where = f"cluster: node {node.address}"
    for name in sorted({*here["versions"], *node.facts["versions"]}):
        ours, theirs = (facts["versions"].get(name) for facts in (here, node.facts))
        if ours != theirs:
            raise SpecpolicyError(
                f"{where} has {name} {theirs or '(none)'}, this machine {ours or '(none)'}: "
                "install the same versions on all nodes"
            )
    for path, digest in here["paths"].items():
        if node.facts["paths"].get(path) == digest:
            continue
        if path == token:
            raise SpecpolicyError(
                f"{where} does not see the output {Path(path).parent}: choose one on storage that all nodes share"
            )
        state = "does not see" if node.facts["paths"].get(path) is None else "has other content in"
        raise SpecpolicyError(f"{where} {state} {path}: put it on storage that all nodes share, under this path")
    physics = here["physics"], node.facts["physics"]
    if None not in physics and (departs := difference(*physics)):
        raise SpecpolicyError(f"{where} has other physics ({departs}): install the same simulator and models there")


def check_hardware(node: Node, other: Node) -> None:
    """Refuse two nodes whose times do not compare."""
    for name in ("cpu", "gpu"):
        ours, theirs = (one.facts["about"]["hardware"][name] for one in (other, node))
        if ours != theirs:
            raise SpecpolicyError(
                f"cluster: nodes {other.address} and {node.address} have different hardware ({ours}, {theirs}), and "
                "measured times are charged: play on machines of one kind, or charge the times of a track.trace"
            )


def paths_of(config: DictConfig, track: dict[str, Any], pinned: bool) -> tuple[Path, ...]:
    """Return what every machine must see: the policy's directory and a trace.

    `pinned`: the policy comes from elsewhere, and travels with the settings.
    """
    policy = [] if pinned or config.policy == "expert" else [Path(config.policy)]
    return (*policy, *([Path(track["trace"])] if track.get("trace") else []))
