"""The command line: help, one-line errors with exit code 2, and what a verb receives."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from specpolicy.cli import VERBS, main
from specpolicy.errors import SpecpolicyError


def refused(capsys, *arguments):
    """The one line on stderr of a command that must exit with 2."""
    assert main(list(arguments)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    line = captured.err.removesuffix("\n")
    assert "\n" not in line
    assert "Traceback" not in line
    return line


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_overview_lists_every_verb(capsys, arguments):
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    for verb, line in VERBS.items():
        assert f"{verb} " in shown
        assert line in shown


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("specpolicy 0.")


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_names_its_keys_choices_and_examples(capsys, verb):
    from specpolicy.cli.groups import SHIPPED, default_groups, option_names

    assert main([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    for group in default_groups(verb):
        assert f"{group}=" in shown
        assert all(name in shown for name in option_names(group))
    text = (SHIPPED / f"{verb}.yaml").read_text()
    keys = {line.partition(":")[0] for line in text.splitlines() if line[:1].isalpha()} - {"defaults"}
    assert {"output", "out"} & keys
    assert all(f"  {key}:" in shown for key in keys)
    about = shown.partition("Usage:")[0]
    assert f"specpolicy {verb} " in about, "the docstring shows an example"
    assert max(map(len, about.splitlines())) <= 120, "a command over two lines keeps its backslash"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--multirun", "collect"], "--multirun: name the verb first, specpolicy <verb> --multirun"),
        (["collekt"], "unknown verb 'collekt'; did you mean 'collect'?"),
        (["collect"], "task is required: task=<one of can, gym, gym_aloha, gym_pusht, lift"),
        (["collect", "task=lft"], "unknown task 'lft'; did you mean 'lift'?"),
        (["collect", "task=lift", "episode=3"], "unknown key 'episode'; did you mean 'episodes'?"),
        (["collect", "task=lift", "task.idd=3"], "unknown key 'task.idd'; did you mean 'task.id'?"),
        (["collect", "task=lift", "task.kwargs.size=3"], "to add a key write +task.kwargs.size=3"),
        (["collect", "task=gym"], "task.id is required"),
        (["collect", "task=lift", "episodes=few"], "episodes=few: expected a whole number"),
        (["collect", "task=lift", "episodes=2.5"], "episodes=2.5: expected a whole number"),
        (["collect", "task=lift", "noise=loud"], "noise=loud: expected a number"),
        (["collect", "task=lift", "keep_failures=3"], "keep_failures=3: expected true or false"),
        (["collect", "task=lift", "episodes=0"], "episodes=0 is out of range"),
        (["collect", "task=lift", "output=a.txt"], "ends in .hdf5"),
        (["collect", "task=lift", "lift"], "cannot read 'lift': settings are written key=value"),
        (["collect", "task=lift", "output=a=b"], "cannot read 'output=a=b': quote a value"),
        (["collect", "task=lift,can"], "'task=lift,can' gives several values"),
        (["collect", "task=lift", "~noise"], "keys cannot be removed"),
        (["collect", "task=lift", "output=null"], "output=null: expected a value"),
        (["collect", "task=lift", "task.kwargs=3"], "task.kwargs=3: expected a mapping"),
        (["collect", "task=lift", "task.kwargs={a:1}"], "use +task.kwargs={a:1}"),
        (["collect", "task=lift", "output=${task.nme}.hdf5"], "'task.nme' not found"),
        (["collect", "--cfgg"], "unknown option '--cfgg'; did you mean '--cfg'?"),
        (["collect", "--config-dir", "nowhere"], "--config-dir nowhere: no such directory"),
        (["collect", "task=gym", "task.id=NoSuchTask-v0"], "NoSuchTask"),
    ],
)
def test_a_mistake_is_one_line_that_helps(capsys, arguments, words):
    assert words in refused(capsys, *arguments)


def verb_that(monkeypatch, run):
    """Make `collect` run `run` instead, as a module would."""
    import types

    module = types.ModuleType("specpolicy.cli.collect")
    module.run = run
    monkeypatch.setitem(sys.modules, "specpolicy.cli.collect", module)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (SpecpolicyError("first\nsecond"), "specpolicy collect: first second"),
        (FileNotFoundError(2, "No such file or directory", "x.hdf5"), "No such file or directory: x.hdf5"),
        (
            ModuleNotFoundError("no", name="h5py.h5f"),
            "the package h5py is not installed: pip install 'specpolicy[train]'",
        ),
        (ModuleNotFoundError("no", name="metaworld"), "pip install 'specpolicy[metaworld]'"),
        (ModuleNotFoundError("no", name="mine"), "the package mine is not installed: pip install mine"),
    ],
)
def test_an_error_the_user_can_mend_is_one_line(capsys, monkeypatch, error, words):
    def run(config):
        raise error

    verb_that(monkeypatch, run)
    assert words in refused(capsys, "collect", "task=lift")
    monkeypatch.setenv("SPECPOLICY_DEBUG", "1")
    with pytest.raises(type(error)):
        main(["collect", "task=lift"])


def without(monkeypatch, *packages):
    """Make packages look as if they were not installed."""
    for name in [*packages, *(loaded for loaded in sys.modules if loaded.partition(".")[0] in packages)]:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize(
    ("missing", "arguments", "words"),
    [
        (["matplotlib", "jinja2"], ["evaluate", "task=lift", "policy=x"], "matplotlib, jinja2 are not installed"),
        (["gymnasium", "h5py"], ["collect", "task=lift"], "pip install 'specpolicy[sim,train]'"),
        (
            ["gymnasium"],
            ["control", "task=lift", "policy=x"],
            "gymnasium is not installed: pip install 'specpolicy[sim]'",
        ),
        (["websockets"], ["serve", "policy=x"], "pip install 'specpolicy[serve]'"),
        (["hydra"], ["evaluate"], "the package hydra is not installed: pip install 'specpolicy[cli]'"),
        (["hydra", "omegaconf", "rich"], [], "specpolicy: the packages hydra, omegaconf, rich are not installed"),
        (["rich"], ["--help"], "pip install 'specpolicy[cli]'"),
    ],
)
def test_a_missing_extra_is_one_line_before_any_work(capsys, monkeypatch, missing, arguments, words):
    without(monkeypatch, *missing)
    assert words in refused(capsys, *arguments)


def test_a_task_that_needs_robosuite_says_what_brings_it(capsys, monkeypatch, tmp_path):
    without(monkeypatch, "robosuite")
    for module in ("lift", "robosuite_task", "arm_control"):  # as if they had not been imported yet
        monkeypatch.delitem(sys.modules, f"specpolicy_envs.{module}", raising=False)
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    words = "pip install 'specpolicy[sim]' under Python 3.11 or 3.12, which robosuite needs"
    task = ["task=lift", f"output={tmp_path}/out.hdf5", "episodes=1", "workers=0"]
    assert words in refused(capsys, "collect", *task)


def test_every_extra_is_one_of_the_package():
    import tomllib

    from specpolicy.cli.extras import EXTRAS, NEEDS

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    names = {package: package.replace("_", "-").replace("hydra", "hydra-core") for package in EXTRAS}
    for package, extra in EXTRAS.items():
        if package != "omegaconf":  # comes with hydra
            assert any(line.startswith(names[package]) for line in extras[extra]), package
    assert {package for needed in NEEDS.values() for package in needed} <= EXTRAS.keys()
    apart = {"all", "dev", "docs", "torchvision"}  # torchvision must be of the build that goes with torch
    assert set(re.findall(r"\w+", extras["all"][0].partition("[")[2])) == extras.keys() - apart


@pytest.mark.parametrize("error", [ZeroDivisionError(), ModuleNotFoundError("no", name="specpolicy.gone")])
def test_our_own_defects_keep_their_traceback(monkeypatch, error):
    def run(config):
        raise error

    verb_that(monkeypatch, run)
    with pytest.raises(type(error)):
        main(["collect", "task=lift"])


def test_interruption_exits_with_130(capsys, monkeypatch):
    def run(config):
        raise KeyboardInterrupt

    verb_that(monkeypatch, run)
    assert main(["collect", "task=lift"]) == 130
    assert capsys.readouterr().err == "specpolicy collect: interrupted\n"


def test_a_verb_receives_the_resolved_configuration(monkeypatch):
    received = []
    verb_that(monkeypatch, received.append)
    assert main(["collect", "task=can", "episodes=7", "+task.kwargs.max_seconds=5"]) == 0
    assert received[0].episodes == 7
    assert received[0].output == "data/can.hdf5"
    assert received[0].task.kwargs == {"max_seconds": 5}


@pytest.mark.parametrize("option", [["--cfg"], ["--cfg", "job"], ["--cfg=job"]])
def test_cfg_prints_the_configuration_and_runs_nothing(capsys, monkeypatch, option):
    verb_that(monkeypatch, lambda config: pytest.fail("ran"))
    assert main(["collect", "task=lift", "seed=4", *option]) == 0
    shown = capsys.readouterr().out
    assert "seed: 4" in shown
    assert "output: data/lift.hdf5" in shown


def test_the_overview_loads_nothing_heavy():
    code = (
        "import sys; from specpolicy.cli import main; main([]); "
        "print({'hydra', 'mujoco', 'robosuite', 'wandb', 'matplotlib'} & sys.modules.keys() or 'light')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "light"


def test_every_verb_has_a_module_a_help_and_a_configuration():
    import importlib

    from specpolicy.cli.groups import SHIPPED

    for verb in VERBS:
        module = importlib.import_module(f"specpolicy.cli.{verb}")
        assert callable(module.run)
        assert module.__doc__
        assert (SHIPPED / f"{verb}.yaml").is_file()
