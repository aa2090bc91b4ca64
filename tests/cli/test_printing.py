"""Standard output that is lost: verbs go on and keep their results, and what is only printed is refused."""

import errno
import io
import os
import subprocess
import sys

import pytest
from looking_at_outputs import place, tree

from specpolicy.cli import main


class Gone(io.StringIO):
    """A standard output that takes nothing."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def write(self, text):
        raise OSError(self.number, os.strerror(self.number))


FULL, ENDED = (errno.ENOSPC, "No space left on device"), (errno.EPIPE, "")
VERBS = ("train", "evaluate", "replay", "benchmark", "rollout", "convert")


@pytest.mark.parametrize(("verb", "lost"), [*((verb, FULL) for verb in VERBS), ("benchmark", ENDED), ("train", ENDED)])
def test_a_verb_keeps_its_results(verb, lost, run, tmp_path, capsys, monkeypatch):
    number, words = lost
    assert run(verb, place(verb, tmp_path / "seen")) == 0
    capsys.readouterr()
    monkeypatch.setattr(sys, "stdout", Gone(number))
    assert run(verb, place(verb, tmp_path / "out")) == 0
    assert isinstance(sys.stdout, Gone)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("specpolicy")]
    told = f"specpolicy {verb}: standard output cannot be written: {words}; its files are complete"
    assert [line for line in lines if "standard output" in line] == [told] * bool(words)
    written = {path.removeprefix(str(tmp_path / "out")) for path in tree(tmp_path / "out")}
    assert written == {path.removeprefix(str(tmp_path / "seen")) for path in tree(tmp_path / "seen")}


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["train", "--help"], ["train", "task=lift", "--cfg=job"]])
def test_what_is_only_printed_is_missed(words, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Gone(errno.ENOSPC))
        assert main(words) == 2
        err = capsys.readouterr().err
        assert "standard output cannot be written: No space left on device" in err and err.count("\n") == 1
        patch.setattr(sys, "stdout", Gone(errno.EPIPE))  # `| head`, which has read what it wanted
        assert main(words) == 0
    assert capsys.readouterr().err == ""


def test_a_full_device_is_one_line_when_python_ends(tmp_path):
    """Python's own flush at exit finds nothing left to write."""
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "specpolicy", "--version"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert ended.returncode == 2
    assert ended.stderr == "specpolicy: standard output cannot be written: No space left on device: send it elsewhere\n"
