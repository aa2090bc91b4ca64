"""engine=auto on the command line: a verb chooses once, says what, and its results name it."""

import json
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from specpolicy.cli import main, observations
from specpolicy.engines import auto
from specpolicy.errors import SpecpolicyError
from specpolicy.evaluation import runner
from specpolicy.evaluation.conditions import Condition
from specpolicy.evaluation.player import Setup

TASK = ["task=gym", "task.name=drift", "task.id=drift_env:Drift-v0", "+task.kwargs.radius=2.6"]
pytestmark = pytest.mark.usefixtures("without_plots")
FEW = ["workers=0", "videos=0", "episodes=1", "samplers=[ddim-2]"]


@pytest.fixture(autouse=True)
def openvino_is_quicker(monkeypatch, tmp_path):
    monkeypatch.setenv("SPECPOLICY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(auto, "time_engine", lambda engine, sizes: {1: 0.5 if engine.name == "openvino" else 1.0})


def test_an_evaluation_names_the_engine_that_it_chose(drift_policy, tmp_path, capsys):
    pytest.importorskip("openvino")
    output = tmp_path / "out"
    arguments = [*TASK, *FEW, f"policy={drift_policy}", f"output={output}"]
    assert main(["evaluate", *arguments]) == 0
    assert "engine: openvino (openvino 500 ms for 1 row; eager 1e+03 ms for 1 row)" in capsys.readouterr().out
    assert json.loads((output / "settings.json").read_text())["engine"] == "openvino"
    assert json.loads((output / "summary.json").read_text())["engine"] == "openvino"
    assert main(["evaluate", *arguments, "engine=openvino"]) == 0  # goes on


@pytest.mark.parametrize(
    ("verb", "more"),
    (("rollout", ["viewer=false", "video=false"]), ("control", ["clock=paused", "warm_up=1", "watchdog=60"])),
)
def test_one_episode_tells_its_engine_first(drift_policy, tmp_path, capsys, verb, more):
    pytest.importorskip("openvino")
    more = [*more, "sampler=ddim", "sampler.steps=2", "max_seconds=0.2"]
    assert main([verb, *TASK, f"policy={drift_policy}", f"output={tmp_path / 'out'}", *more]) == 0
    assert capsys.readouterr().out.startswith("engine: openvino (openvino 500 ms for 1 row; eager 1e+03 ms for 1 row)")


def test_an_evaluation_goes_on_with_its_engine_though_another_is_faster_by_now(
    drift_policy, tmp_path, capsys, monkeypatch
):
    pytest.importorskip("openvino")
    output = tmp_path / "out"
    arguments = [*TASK, *FEW[:2], "samplers=[ddim-2]", f"policy={drift_policy}", f"output={output}"]
    assert main(["evaluate", *arguments, "episodes=1"]) == 0
    monkeypatch.setenv("SPECPOLICY_CACHE", str(tmp_path / "another"))
    monkeypatch.setattr(auto, "time_engine", lambda engine, sizes: {1: float(engine.name != "eager")})
    assert main(["evaluate", *arguments, "episodes=2"]) == 0
    summary = json.loads((output / "summary.json").read_text())
    assert summary["engine"] == "openvino" and summary["conditions"][0]["episodes"] == 2
    other = tmp_path / "other"
    assert main(["evaluate", *arguments[:-1], f"output={other}", "episodes=1"]) == 0
    assert json.loads((other / "summary.json").read_text())["engine"] == "eager"


def test_the_expert_has_no_engine(tmp_path, capsys):
    arguments = ["task=push_t", "policy=expert", f"output={tmp_path / 'out'}", "workers=0", "videos=0", "episodes=1"]
    assert main(["evaluate", *arguments, "max_seconds=0.5", "engine=auto"]) == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["engine"] == "eager"
    assert main(["evaluate", *arguments, "max_seconds=0.5", "samplers=[ddim-4]"]) == 2  # nor a sampler
    assert "policy=expert plans without a sampler: leave samplers out" in capsys.readouterr().err
    one = [*arguments[:2], "sampler=ddim", "video=false", f"output={tmp_path / 'one'}"]
    assert main(["rollout", *one]) == 2
    assert "sampler=ddim: policy=expert plans without a sampler: leave sampler out" in capsys.readouterr().err


def test_processes_do_not_choose_each_for_itself(drift_policy, drift_task):
    setup = Setup(drift_task, drift_policy, {"ddim": {"name": "ddim", "steps": 2}}, engine="auto")
    evaluation = runner.Evaluation(setup, (Condition("ddim"),), episodes=1, seed=100)
    with pytest.raises(SpecpolicyError, match="name one"):
        runner.check(evaluation)


@pytest.mark.parametrize(("chosen", "played"), (("openvino", "openvino"), ("cuda_graph", "eager"), ("eager", "eager")))
def test_observations_are_played_with_the_engine_that_was_chosen(chosen, played):
    """By processes, which play on the CPU."""
    asked = []
    policy = SimpleNamespace(config=SimpleNamespace(task={"id": "any"}), engine_name=chosen, n_obs_steps=1)
    config = OmegaConf.create({"policy": "p", "workers": 0, "max_seconds": 1.0, "any_rate": False, "engine": "auto"})
    observations._play(lambda *given: asked.append(given), policy, config, "observations", 3, 0, 1)
    assert played in asked[0]
