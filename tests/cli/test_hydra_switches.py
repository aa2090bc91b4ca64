"""Hydra's own switches and directories for a single run: hydra.run.dir, .hydra, --cfg, --info, --config-name."""

import sys
import types
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from specpolicy.cli import main
from specpolicy.cli.configuration import compose_verb, save_config
from specpolicy.cli.places import RUN_DIR, SWEEP_DIR
from specpolicy.cli.records import running_job


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def instead_of(monkeypatch, verb, run):
    module = types.ModuleType(f"specpolicy.cli.{verb}")
    module.run = run
    monkeypatch.setitem(sys.modules, f"specpolicy.cli.{verb}", module)


@pytest.fixture
def received(monkeypatch):
    """What verbs received; they save their settings in their output."""
    seen = []

    def run(config):
        seen.append(config)
        save_config(config, Path(config.get("out") or config.output).with_suffix(""), "it")

    for verb in ("collect", "evaluate", "convert"):
        instead_of(monkeypatch, verb, run)
    return seen


def refused(capsys, *arguments):
    assert main(list(arguments)) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1 and printed.out == ""
    return printed.err


def test_hydras_own_directories_are_still_what_we_take_them_for():
    conf = Path(sys.modules["hydra"].__file__).parent / "conf/hydra/output/default.yaml"
    shipped = OmegaConf.to_container(OmegaConf.load(conf), resolve=False)
    assert (shipped["run"]["dir"], shipped["sweep"]["dir"]) == (RUN_DIR, SWEEP_DIR)


def test_hydra_run_dir_is_the_output(received, here):
    assert main(["evaluate", "task=lift", "policy=x", "hydra.run.dir=runs/${seed}", "seed=3"]) == 0
    assert main(["collect", "task=lift", "hydra.run.dir=2026"]) == 0
    assert main(["collect", "task=lift", "format=lerobot", "hydra.run.dir=runs"]) == 0
    assert main(["convert", "path=x", "hydra.run.dir=converted"]) == 0
    outputs = [config.get("out") or config.output for config in received]
    assert outputs == ["runs/3", "2026/lift.hdf5", "runs/lift_lerobot", "converted"]
    assert OmegaConf.load("runs/3/.hydra/hydra.yaml").hydra.run.dir == "runs/3"
    assert (here / "2026/.hydra/config.yaml").exists()  # where the demonstrations have a directory of their own
    assert Path.cwd() == here


def test_output_and_hydra_run_dir_may_agree_but_not_differ(received, capsys, here):
    common = ["evaluate", "task=lift", "policy=x"]
    assert main([*common, "output=a/b", "hydra.run.dir=a/./b"]) == 0
    assert main([*common, "output=${hydra:runtime.output_dir}/c", "hydra.run.dir=a"]) == 2
    assert "hydra.run.dir=a are two places" in capsys.readouterr().err
    line = refused(capsys, *common, "output=a", "hydra.run.dir=b")
    assert "output=a and hydra.run.dir=b are two places" in line
    assert "two places" in refused(capsys, "collect", "task=lift", "output=a/x.hdf5", "hydra.run.dir=b")
    assert main(["collect", "task=lift", "output=a/x.hdf5", "hydra.run.dir=a"]) == 0
    assert len(received) == 2 and not (here / "b").exists()


def test_the_record_of_hydra_lies_beside_the_results(received, here):
    assert main(["evaluate", "task=lift", "policy=checkpoints/1_000", "track=delay", "+task.kwargs.a=1"]) == 0
    record = here / "outputs/evaluate/lift/.hydra"
    assert sorted(path.name for path in record.iterdir()) == ["config.yaml", "hydra.yaml", "overrides.yaml"]
    assert OmegaConf.load(record / "config.yaml") == received[0]
    given = ["task=lift", "policy='checkpoints/1_000'", "track=delay", "+task.kwargs.a=1"]
    assert OmegaConf.load(record / "overrides.yaml") in (given, ["task=lift", "policy=checkpoints/1_000", *given[2:]])
    kept = OmegaConf.load(record / "hydra.yaml").hydra
    assert Path(kept.runtime.output_dir) == record.parent and kept.run.dir == "outputs/evaluate/lift"
    assert kept.runtime.choices.track == "delay" and kept.job.chdir is False and kept.runtime.cwd == str(here)
    assert main(["evaluate", "task=can", "policy=x", "hydra.output_subdir=null"]) == 0
    assert main(["evaluate", "task=gym", "task.id=x", "policy=x", "hydra.output_subdir=.mine"]) == 0
    found = {str(path.relative_to(here)) for path in here.glob("outputs/evaluate/*/*") if path.is_dir()}
    assert found == {"outputs/evaluate/lift/.hydra", "outputs/evaluate/gym/.mine"}


def test_a_run_that_is_refused_leaves_nothing_of_hydra(here, capsys):
    (here / "thesis").mkdir()
    (here / "thesis/config.yaml").write_text("mine: true\n")
    line = refused(capsys, "evaluate", "task=gym", "task.id=Pendulum-v1", "policy=x", "hydra.run.dir=thesis")
    assert "no output of specpolicy evaluate" in line or "no policy at" in line
    assert [path.name for path in here.rglob("*")] == ["thesis", "config.yaml"]


def test_no_file_holds_the_key_of_a_server(here, monkeypatch):
    def run(config):
        assert config.api_key == "hush"
        shown = config.copy()
        shown.api_key = "..."
        save_config(shown, config.output, "serve")

    instead_of(monkeypatch, "serve", run)
    assert main(["serve", "policy=x", "api_key=hush"]) == 0
    files = [path for path in here.rglob("*") if path.is_file()]
    assert len(files) == 4 and not [path for path in files if "hush" in path.read_text()]


def test_within_an_application_of_the_users_own_nothing_of_hydra_is_written(here):
    """`specpolicy.evaluate` may be called there: the record beside results would be that application's."""
    from hydra import compose, initialize_config_dir

    (here / "conf").mkdir()
    (here / "conf/mine.yaml").write_text("a: 1\n")
    instance = HydraConfig.instance()
    with initialize_config_dir(str(here / "conf"), version_base="1.3"):
        before = instance.cfg
        try:
            config = compose("mine", return_hydra_config=True)
            instance.set_config(config)
            own = compose_verb("collect", ["task=lift", "seed=4"])
            assert HydraConfig.get().job.config_name == "mine"  # composing leaves it as it was
            assert running_job() is None
            save_config(own, here / "run", "collect")
        finally:
            instance.cfg = before
    assert [path.name for path in (here / "run").iterdir()] == ["config.yaml"]


@pytest.mark.parametrize(
    ("options", "there", "absent"),
    [
        (["--cfg", "job"], ["seed: 4", "output: runs/4/lift.hdf5"], ["hydra:"]),
        (["-c", "hydra"], ["launcher:", "dir: runs/${seed}"], ["noise: 0.15"]),
        (["--cfg=hydra", "--resolve"], ["launcher:", "dir: runs/4", "subdir: ${hydra.job.num}"], []),
        (["--cfg", "all"], ["noise: 0.15", "launcher:", "seed=4"], []),
        (["--cfg", "job", "--package", "task"], ["id: specpolicy/Lift-v0"], ["noise:"]),
        (["-c", "job", "-p", "seed"], ["4\n"], ["noise"]),
        (["--info", "searchpath"], ["main", "configs"], []),
        (["--info", "defaults"], ["task/lift"], []),
        (["--info", "noise=0.2"], ["BasicLauncher", "noise: 0.2"], []),
        (["--info"], ["BasicLauncher", "Config search path"], []),
        (["--hydra-help"], ["hydra/launcher: basic", "--multirun,-m"], []),
    ],
)
def test_looks_at_what_would_run(capsys, monkeypatch, options, there, absent):
    instead_of(monkeypatch, "collect", lambda config: pytest.fail("ran"))
    assert main(["collect", "task=lift", "seed=4", "hydra.run.dir=runs/${seed}", *options]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in there) and not any(word in shown for word in absent), shown


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--cfg", "jop"], "cannot read 'jop'"),
        (["--info=plugin"], "--info/-i: invalid choice: 'plugin'"),
        (["--cfg", "job", "-p", "tusk"], "--package tusk: the configuration has none"),
        (["--resolve"], "--resolve goes with --cfg"),
        (["-m", "--cfg", "job"], "--multirun and --cfg exclude each other"),
        (["--config-path", "x"], "--config-path: the shipped configurations stay"),
        (["--experimental-rerun", "x.pickle"], "can run any code"),
        (["--multirum"], "unknown option '--multirum'; did you mean '--multirun'?"),
        (["--info", "config", "seed=few"], "seed=few: expected a whole number"),
    ],
)
def test_a_switch_that_is_wrong_is_one_line(capsys, options, words):
    assert words in refused(capsys, "collect", "task=lift", *options)


def test_a_primary_configuration_and_an_experiment_of_ones_own(received, here, capsys):
    (here / "own/experiment").mkdir(parents=True)
    (here / "own/quick.yaml").write_text("defaults: [evaluate, {override track: delay}, _self_]\nepisodes: 5\n")
    (here / "own/experiment/slow.yaml").write_text(
        "# @package _global_\ndefaults: [{override /track: charged}]\nepisodes: 7\nseed: 9\n"
    )
    common = ["evaluate", "-cd", "own", "task=lift", "policy=x"]
    assert main([*common, "--config-name", "quick"]) == 0
    assert main([*common, "+experiment=slow", "seed=8", "track.factors=[2]"]) == 0
    assert main([*common, "hydra.searchpath=[file://own]", "+experiment=slow", "output=again"]) == 0
    first, second, _ = received
    assert (first.track.name, first.episodes, first.seed) == ("delay", 5, 100000)
    assert (second.track.name, second.episodes, second.seed, second.track.factors) == ("charged", 7, 8, [2])
    (here / "own/quick.yaml").write_text("defaults: [evaluate, _self_]\nepisods: 5\n")
    assert "unknown key 'episods'; did you mean 'episodes'" in refused(capsys, *common, "--config-name=quick")
    (here / "own/evaluate.yaml").write_text("episodes: 5\n")
    assert "give it another name" in refused(capsys, *common)


def test_a_configuration_of_ones_own_may_ask_for_a_sweep(received, here):
    (here / "own").mkdir()
    (here / "own/grid.yaml").write_text(
        "defaults: [collect, _self_]\n"
        "hydra: {mode: MULTIRUN, sweep: {dir: grid}, sweeper: {params: {seed: '1,2', task: 'lift,can'}}}\n"
    )
    assert main(["collect", "--config-dir=own", "--config-name=grid", "task=lift"]) == 0
    assert [config.output for config in received] == ["grid/0/lift.hdf5", "grid/1/lift.hdf5"]
