"""The fingerprint of a task's physics: the same for the same world, another for another; departures are located."""

import contextlib
import dataclasses
import json

import numpy as np
import pytest

from specpolicy.cli import main
from specpolicy.errors import SpecpolicyError
from specpolicy.evaluation.departures import departure
from specpolicy.evaluation.physics import Physics, difference, probe
from specpolicy.evaluation.world import World, read_world, require_same_world, this_world, write_world
from specpolicy.tasks import make_task_env


def probed(task, **kwargs):
    with contextlib.closing(make_task_env({**task, "kwargs": {**task.get("kwargs", {}), **kwargs}})) as env:
        return probe(env)


def run(*rows):
    return {"x": np.array(rows, dtype=float).reshape(len(rows), -1)}


def test_departures_are_located():
    one = {"a": np.zeros((5, 2)), "b": np.ones((5, 1))}
    assert departure(one, one, tolerance=0) is None
    other = {"a": one["a"].copy(), "b": one["b"].copy()}
    other["a"][3, 1], other["b"][2] = 0.5, 1.00019
    assert departure(one, other) is None or str(departure(one, other)) == "at step 3, a by 0.5"
    other["b"][2] = 1.01
    found = departure(one, other)
    assert (found.step, found.key) == (2, "b") and found.size == pytest.approx(0.01)
    assert str(departure(run(1, 2), run(1, 2, 3))) == "at step 2, the number of steps by 1"
    assert departure(run(np.nan, np.inf), run(np.nan, np.inf)) is None
    assert departure(run(1, np.nan), run(1, 2)).step == 1
    assert str(departure(run(1), run(1.1), tolerance=0.0)).startswith("at the reset")
    assert departure(run([1, 2]), run([1])).key == "the size of x"


def test_the_same_world_has_the_same_fingerprint(drift_task):
    one, again = probed(drift_task), probed(drift_task)
    assert one == again and one.seeded and len(one.digest) == 16 and one.model == {}
    other = probed(drift_task, radius=1.6)
    assert other.digest != one.digest and "object" in difference(one, other)
    nearly = {key: (np.array(rows) * (1 + 1e-9)).tolist() for key, rows in one.values.items()}
    assert dataclasses.replace(one, values=nearly).digest == one.digest
    assert difference(one, dataclasses.replace(one, values=nearly)) is None
    assert difference(one, dataclasses.replace(one, values={"position": one.values["position"]})) == "what is observed"


def test_an_environment_that_no_seed_decides_says_so(drift_task, monkeypatch):
    import drift_env

    drawn = np.random.default_rng(0)
    wild = lambda env: {"position": drawn.normal(size=2), "object": np.zeros(3)}  # noqa: E731
    monkeypatch.setattr(drift_env.Drift, "_observe", wild)
    found = probed(drift_task)
    assert not found.seeded and found.digest is None and found.values == {}
    assert difference(found, Physics({"position": [[0.0, 0.0]]})) is None  # nothing is known, nothing is refused


def test_where_every_step_draws_an_image_the_probe_is_short(drift_task, monkeypatch):
    import drift_env

    seen = {"position": np.zeros(2), "object": np.zeros(3)}
    monkeypatch.setattr(drift_env.Drift, "_observe", lambda env: dict(seen))
    with contextlib.closing(make_task_env({**drift_task, "kwargs": {"radius": 99}})) as env:
        assert len(probe(env).values["reward"]) == 25
        seen["position"] = np.zeros((2, 2, 3), np.uint8)
        monkeypatch.setattr(env, "step", lambda action: (dict(seen), 0.0, False, False, {}))
        monkeypatch.setattr(env, "reset", lambda seed: (dict(seen), {}))
        found = probe(env)
    assert {key: len(rows) for key, rows in found.values.items()} == {"object": 5, "reward": 5}


def test_an_evaluation_warns_where_no_seed_decides(drift_policy, drift_task, tmp_path, monkeypatch, capsys):
    import drift_env

    drawn = np.random.default_rng(0)
    wild = lambda env: {"position": drawn.normal(size=2), "object": np.zeros(3)}  # noqa: E731
    monkeypatch.setattr("specpolicy.evaluation.plots.write_plots", lambda *arguments: {})
    task = ["task=gym", "task.name=drift", "task.id=drift_env:Drift-v0", f"policy={drift_policy}"]
    play = ["samplers=[ddim-4]", "episodes=1", "workers=0", "videos=0", "engine=eager"]
    for name, warned in (("tame", False), ("wild", True)):
        if warned:
            monkeypatch.setattr(drift_env.Drift, "_observe", wild)
        assert main(["evaluate", *task, *play, f"output={tmp_path / name}"]) == 0
        assert ("the seed does not decide" in capsys.readouterr().err) == warned
        known = json.loads((tmp_path / name / "summary.json").read_text())["fingerprint"]
        assert (known["physics"] is None) == warned and len(known["all"]) == 16


def test_a_scene_is_known_by_its_numbers():
    pytest.importorskip("mujoco")
    task = {"name": "push_t", "id": "specpolicy/PushT-v0"}
    one, again = probed(task), probed(task)
    assert one == again and {"opt.timestep", "geom_friction", "body_mass"} <= set(one.model)
    with contextlib.closing(make_task_env(task)) as env:
        env.unwrapped.model.geom_friction[:] *= 1.01
        slippery = probe(env)
    assert difference(one, slippery) == "geom_friction of the scene"
    assert set(one.values) >= {"reward"} and all(np.isfinite(rows).all() for rows in one.values.values())


def test_a_world_reads_back_and_refuses_another(drift_task, tmp_path):
    physics = Physics({"x": [[1.0, float("nan")], [2.0, float("inf")]]})
    here = this_world(drift_task, physics)
    assert {"torch", "numpy", "python"} <= set(here.versions)
    write_world(tmp_path, here)
    found = read_world(tmp_path)
    require_same_world(found, found, "it", "stop")
    require_same_world(None, here, "it", "stop")
    assert found.physics.values["x"] == [[1.0, None], [2.0, None]]
    older = World({**here.versions, "numpy": "1.0", "robosuite": "0.3"}, found.physics)
    with pytest.raises(SpecpolicyError, match=r"it was made with numpy 1\.0, not .*: stop"):
        require_same_world(older, here, "it", "stop")
    newer_python = World({**here.versions, "python": "4.0", "unheard_of": "1"}, found.physics)
    require_same_world(newer_python, found, "it", "stop")
