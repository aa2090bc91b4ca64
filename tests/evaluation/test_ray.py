"""On a Ray cluster: the rows of one process, whoever dies; what fails everywhere is named; other nodes are refused.

Two nodes run on this machine, with one cluster for all tests. Who does what is tested in test_ray_hands.py.
"""

import dataclasses
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from specpolicy import SpecpolicyError
from specpolicy.cli import main
from specpolicy.cli.clusters import check_hardware, check_node, content_digest, look
from specpolicy.cluster import Processes, Ray
from specpolicy.cluster.ray_crew import RayCrew
from specpolicy.cluster.ray_nodes import Node, connected, look_at_nodes
from specpolicy.evaluation import runner, settings
from specpolicy.evaluation.conditions import Condition
from specpolicy.evaluation.physics import Physics
from specpolicy.evaluation.player import Setup
from specpolicy.evaluation.runner import Evaluation


def node(here, **changes):
    return Node("1", "10.0.0.2", 4, {**here, **changes})


def test_a_node_that_differs_is_refused_in_one_line(tmp_path):
    policy, output = tmp_path / "policy", tmp_path / "out"
    policy.mkdir()
    (policy / "model.safetensors").write_bytes(b"weights")
    output.mkdir()
    (output / "token").write_text("here")
    here = {**look((policy, output / "token")), "physics": Physics({"x": [[0.0], [1.0]]})}
    check_node(node(here), here, str(output / "token"))
    elsewhere = {**here["paths"], str(output / "token"): None}
    (policy / "model.safetensors").write_bytes(b"other weights")
    for changes, words in (
        ({"versions": {**here["versions"], "torch": "1.0"}}, "node 10.0.0.2 has torch 1.0, this machine "),
        ({"paths": elsewhere}, f"does not see the output {output}"),
        ({"physics": Physics({"x": [[0.0], [2.0]]})}, "has other physics (at step 1, x by 1)"),
        ({"paths": {**here["paths"], str(policy): None}}, f"does not see {policy}"),
        ({"paths": {**here["paths"], str(policy): content_digest(policy)}}, f"has other content in {policy}"),
    ):
        with pytest.raises(SpecpolicyError) as caught:
            check_node(node(here, **changes), here, str(output / "token"))
        assert words in str(caught.value)


def test_where_times_count_all_nodes_are_of_one_kind():
    nodes = [Node(cpu, cpu, 4, {"about": {"hardware": {"cpu": cpu, "gpu": None}}}) for cpu in ("a", "a", "b")]
    check_hardware(nodes[1], nodes[0])
    with pytest.raises(SpecpolicyError, match="different hardware"):
        check_hardware(nodes[2], nodes[0])


def arguments(drift_task, drift_policy, output):
    common = [f"policy={drift_policy}", "samplers=[ddim-2]", "engine=eager", "episodes=1", f"output={output}"]
    return ["evaluate", "task=gym", f"task.id={drift_task['id']}", *common]


@pytest.mark.parametrize(
    ("settings", "words"),
    (
        (["cluster=ray", "cluster.address=127.0.0.1:9"], "no Ray cluster answers there"),
        (["cluster=ray", "cluster.address=http://head"], "expected auto, or host:port"),
        (["cluster=ray", "cluster.planners=3", "cluster.workers=2"], "more than the 2 workers"),
        (["cluster=ray", "cluster.workers=0"], "workers is 0"),
        (["cluster.planners=2"], "cluster=ray spreads several"),
        (["cluster.planners=1", "workers=0"], "give at least one"),
        (["cluster.timeout=5", "workers=0"], "a timeout ends a process that hangs"),
        (["cluster.timeout=0"], "timeout is 0.0: expected seconds"),
        (["cluster=ray", "cluster.timeout=-1"], "timeout is -1.0: expected seconds"),
        (["cluster.planners=1", "track=charged"], "cluster.planners=1: on a shared device"),
    ),
)
def test_a_cluster_that_cannot_be_is_refused_before_anything_is_written(
    drift_task, drift_policy, tmp_path, capsys, settings, words
):
    pytest.importorskip("ray")
    assert main([*arguments(drift_task, drift_policy, tmp_path / "out"), *settings]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert words in line and not (tmp_path / "out").exists()


def test_without_ray_the_extra_is_named(drift_task, drift_policy, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main([*arguments(drift_task, drift_policy, tmp_path / "out"), "cluster=ray"]) == 2
    assert "pip install 'specpolicy[ray]'" in capsys.readouterr().err


@pytest.mark.parametrize("address", (None, "auto"))
def test_sigterm_ends_the_program_as_without_ray(monkeypatch, address):
    """A scheduler sends it, and Ray would answer with a stack trace."""
    begun = []

    def init(*arguments, **options):
        begun.append(arguments)
        signal.signal(signal.SIGTERM, lambda *_: None)

    ray = SimpleNamespace(init=init, is_initialized=lambda: False, shutdown=lambda: begun.append("shut down"))
    for name in ("ray", "ray.util", "ray.util.scheduling_strategies"):
        monkeypatch.setitem(sys.modules, name, ray)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with connected(Ray(address=address)) as found:
            assert found is ray and signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGTERM, before)
    assert begun == [(address or "local",), "shut down"]


def test_sigterm_is_as_before_where_no_ray_can_be_used(monkeypatch):
    def init(*arguments, **options):
        signal.signal(signal.SIGTERM, lambda *_: None)
        raise ConnectionError("no cluster here")

    ray = SimpleNamespace(init=init, is_initialized=lambda: False)
    for name in ("ray", "ray.util", "ray.util.scheduling_strategies"):
        monkeypatch.setitem(sys.modules, name, ray)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SpecpolicyError, match="no cluster here"), connected(Ray(address="auto")):
            pass
        assert signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def cluster():
    """A cluster with one node of one CPU, and the module ray, connected to it."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    from specpolicy.cluster.ray_nodes import QUIET

    before = {name: os.environ.get(name) for name in QUIET}
    os.environ.update(QUIET)
    memory = {"object_store_memory": 80 * 2**20}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False, **memory})
    ray.init(made.address, log_to_driver=False, logging_level="ERROR")
    try:
        yield SimpleNamespace(ray=ray, add=lambda: made.add_node(num_cpus=1, **memory), remove=made.remove_node)
    finally:
        ray.shutdown()
        made.shutdown()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


@pytest.fixture
def evaluation(drift_task, drift_policy):
    setup = Setup(drift_task, drift_policy, {"ddim-4": {"name": "ddim", "steps": 4, "eta": 1.0}})
    return Evaluation(setup, (Condition("ddim-4"),), episodes=8, seed=100)


def outcomes(evaluation, output, crew, on_episode=lambda played: None):
    """The rows without their measured times, in the order of their seeds."""
    results = settings.claim(evaluation, runner.check(evaluation, crew.planners), output)
    runner.play(evaluation, results, output, crew, on_episode)
    rows = [
        {name: value for name, value in row.items() if "seconds_" not in name and "_share" not in name}
        for row in results.episodes.rows
    ]
    return sorted(rows, key=lambda row: row["seed"])


def slowed(evaluation, **task):
    return dataclasses.replace(
        evaluation, setup=dataclasses.replace(evaluation.setup, task={**evaluation.setup.task, "kwargs": task})
    )


def test_a_node_that_is_lost_changes_no_row(cluster, evaluation, tmp_path):
    evaluation = slowed(evaluation, coverage=True, pause=0.05)
    expected = outcomes(evaluation, tmp_path / "alone", Processes())
    lost = cluster.add()
    crew = RayCrew(cluster.ray, look_at_nodes(cluster.ray, dict), 2, 0, 0.0, 2)
    assert len(crew.about["nodes"]) == 2
    played = []

    def lose(episode):
        played.append(episode)
        if len(played) == 3:  # it is in the midst of an episode
            cluster.remove(lost)

    assert outcomes(evaluation, tmp_path / "ray", crew, lose) == expected
    assert len((tmp_path / "ray" / "episodes.csv").read_text().splitlines()) == 1 + len(expected)


@pytest.mark.slow
def test_a_planner_on_a_node_draws_for_worlds_on_others(cluster, evaluation, tmp_path):
    together = dataclasses.replace(evaluation, setup=dataclasses.replace(evaluation.setup, batch=2))
    expected = outcomes(together, tmp_path / "alone", Processes())
    other = cluster.add()
    try:
        crew = RayCrew(cluster.ray, look_at_nodes(cluster.ray, dict), 1, 1, 0.0, 2)
        assert outcomes(together, tmp_path / "ray", crew) == expected
    finally:
        cluster.remove(other)


@pytest.mark.slow
def test_an_episode_that_kills_its_process_is_named_and_the_others_are_played(cluster, evaluation, tmp_path):
    broken = slowed(evaluation, coverage=True, dies_at=103)
    crew = RayCrew(cluster.ray, look_at_nodes(cluster.ray, dict), 1, 0, 0.0, 1)
    with pytest.raises(SpecpolicyError, match="ddim-4, seed 103"):
        outcomes(broken, tmp_path, crew)
    assert len((tmp_path / "episodes.csv").read_text().splitlines()) == 1 + 7


@pytest.mark.slow
def test_the_verbs_begin_a_ray_of_their_own(drift_task, drift_policy, tmp_path):
    """In a process of their own, as this one may be connected already; nothing of Ray's is printed."""
    import subprocess

    rows = []
    for name, keys in (("alone", ["workers=0"]), ("ray", ["cluster=ray", "cluster.workers=1"])):
        command = [*arguments(drift_task, drift_policy, tmp_path / name), "videos=0", *keys]
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        done = subprocess.run(
            [sys.executable, "-m", "specpolicy", *command],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "ray" not in done.stderr.lower()
        rows.append((tmp_path / name / "episodes.csv").read_text().splitlines()[1].split(",")[:17])
    assert rows[0] == rows[1]
