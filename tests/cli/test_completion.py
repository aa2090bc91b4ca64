"""Completion, asked for as bash asks: by the function that `specpolicy -sc install=bash` defines."""

import os
import shutil
import subprocess
import sys

import pytest

from specpolicy.cli import VERBS, main
from specpolicy.cli.completion import candidates

ASK = """
eval "$(specpolicy -sc install=bash)"
COMP_LINE=$1
words=($COMP_LINE)
COMP_CWORD=$((${#words[@]} - 1))
[[ "$COMP_LINE" == *" " ]] && COMP_CWORD=${#words[@]}
hydra_bash_completion
printf '%s\\n' "${COMPREPLY[@]}"
complete -p specpolicy
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "expected"),
    [("specpolicy tr", ["train", "train_drafter"]), ("specpolicy train task=li", ["task=lift", "task=lift_conveyor"])],
)
def test_bash_completes(line, expected, tmp_path):
    program = tmp_path / "specpolicy"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m specpolicy "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", ASK, "bash", line], env=environment, capture_output=True, text=True)
    *found, registered = done.stdout.split("\n")[:-1]
    assert found == expected, done.stderr
    assert "-F hydra_bash_completion specpolicy" in registered


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", list(VERBS)),
        ("ev", ["evaluate"]),
        ("evalu ", []),
        ("rollout sampler=re", ["sampler=recycled", "sampler=reflection", "sampler=residual"]),
        ("rollout sampler=ddim sampler.", ["sampler.eta=", "sampler.name=", "sampler.steps="]),
        ("train lea", ["learning_rate="]),  # although task, which is required, is not there
        ("train task=lift -m policy=t", ["policy=tokens", "policy=transformer", "policy=transformer_image"]),
        ("evaluate task=lift track=delay track.del", ["track.delays."]),
        ("evaluate poli", ["policy="]),  # a group of train; here a path
        ("train --mul", ["--multirun"]),
        ("train -m hydra/launcher=b", ["hydra/launcher=basic"]),
        ("evaluate task=lift policy=chec", ["policy=checkpoints/"]),
        ("evaluate task=lift policy=checkpoints/b", ["policy=checkpoints/best/"]),
        ("train -cd own task=mi", ["task=mine"]),
        ("train task=lift,'", []),
        ("train --nonsense=3 lea", ["learning_rate="]),
    ],
)
def test_what_a_word_may_become(words, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints/a").mkdir(parents=True)
    (tmp_path / "checkpoints/best").mkdir()
    (tmp_path / "own/task").mkdir(parents=True)
    (tmp_path / "own/task/mine.yaml").write_text("name: mine\n")
    assert candidates(f"specpolicy {words}") == expected
    assert capsys.readouterr().err == ""


def test_all_keys_of_a_verb_are_offered_and_none_of_another():
    offered = candidates("specpolicy collect ")
    assert {"task=", "episodes=", "output=", "noise="} <= set(offered)
    assert not {"policy=", "policy.", "sampler=", "batch_size="} & set(offered)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("arguments", [["-sc"], ["train", "--shell-completion"]])
def test_hydras_plugins_write_what_a_shell_evaluates(shell, arguments, capsys):
    assert main([*arguments, f"install={shell}"]) == 0
    assert "specpolicy" in capsys.readouterr().out


def test_what_a_shell_gets_is_one_a_line(capsys, monkeypatch):
    monkeypatch.setenv("COMP_LINE", "specpolicy tr")
    assert main(["-sc", "query=bash"]) == 0
    assert capsys.readouterr().out == "train\ntrain_drafter\n"


def test_a_shell_that_nobody_knows_is_one_line(capsys):
    assert main(["-sc", "install=tcsh"]) == 2
    assert "install=bash" in capsys.readouterr().err
