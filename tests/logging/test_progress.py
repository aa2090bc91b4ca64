"""Progress: few plain lines in a log file, a live bar in a terminal, and never a lost count."""

import io

import pytest

from specpolicy.logging import progress
from specpolicy.logging.progress import progress_bar


def lines_of(total, done=0, seconds_per_piece=0.0, monkeypatch=None):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    stream = io.StringIO()
    with progress_bar(total, "work", done, stream) as bar:
        for number in range(done, total):
            clock[0] += seconds_per_piece
            bar.advance(1, success=number / total)
    return stream.getvalue().splitlines()


def test_quick_work_prints_one_line(monkeypatch):
    assert lines_of(5000, monkeypatch=monkeypatch) == ["work: 5000/5000 in 0 s  success 1"]


@pytest.mark.parametrize("seconds", [0.1, 5.0, 100.0])
def test_lines_stay_few(monkeypatch, seconds):
    lines = lines_of(1000, seconds_per_piece=seconds, monkeypatch=monkeypatch)
    assert len(lines) <= 11
    assert lines[-1].startswith("work: 1000/1000 in ")
    counts = [int(line.split()[1].partition("/")[0]) for line in lines]
    assert counts == sorted(set(counts))


def test_a_resumed_run_starts_where_it_stopped(monkeypatch):
    lines = lines_of(100, done=40, seconds_per_piece=10.0, monkeypatch=monkeypatch)
    assert lines[0] == "work: 40/100 in 0 s"
    assert lines[1].startswith("work: 50/100 in 100 s, about 500 s left")
    assert lines[-1].startswith("work: 100/100")


def test_an_error_inside_is_not_hidden():
    stream = io.StringIO()
    with pytest.raises(ZeroDivisionError), progress_bar(3, "work", stream=stream) as bar:
        bar.advance()
        raise ZeroDivisionError
    assert "3/3" not in stream.getvalue()


def test_a_terminal_gets_a_live_bar():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    with progress_bar(4, "collect lift", stream=stream) as bar:
        for number in range(4):
            bar.advance(1, expert_success=number / 3)
    shown = stream.getvalue()
    assert "collect lift" in shown
    assert "4/4" in shown
    assert "expert success 1" in shown
