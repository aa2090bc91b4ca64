"""Signals that are kept for a while: noted, put back, and given their effect behind the block."""

import faulthandler
import logging
import os
import signal
import sys
import threading
import time

import pytest

from specpolicy.control.signals import ASKING, ENDING_BY_DEFAULT, OF_TERMINALS, EndingSignals, ending_raises

ALL = [getattr(signal, name) for name in (*ASKING, *ENDING_BY_DEFAULT) if hasattr(signal, name)]


@pytest.fixture(autouse=True)
def handlers():
    """Every test begins with the handlers of a new Python, and leaves behind what was there before."""
    before = {number: signal.getsignal(number) for number in ALL}
    for number in ALL:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(*names):
    for name in names:
        signal.raise_signal(getattr(signal, name))


@pytest.mark.parametrize("name", [signal.Signals(number).name for number in ALL])
def test_a_signal_has_its_effect_behind_the_block_and_every_handler_is_back(name):
    before = {number: signal.getsignal(number) for number in ALL}
    noticed, reached = [], False
    with pytest.raises(BaseException) as caught, EndingSignals(noticed.append):
        send(name, name, "SIGTERM", "SIGHUP", "SIGINT")
        reached = True
    assert reached and noticed == [name, name, "SIGTERM", "SIGHUP", "SIGINT"]
    if name == "SIGINT":
        assert caught.type is KeyboardInterrupt
    else:
        assert caught.type is SystemExit and caught.value.code == 128 + getattr(signal, name)
    assert {number: signal.getsignal(number) for number in ALL} == before


@pytest.mark.parametrize("name", [name for name in ASKING if hasattr(signal, name)])
def test_a_block_that_is_asked_to_end_raises_at_once(name):
    before = {number: signal.getsignal(number) for number in ALL}
    closed = []
    with pytest.raises(KeyboardInterrupt if name == "SIGINT" else SystemExit) as caught, ending_raises():
        assert signal.getsignal(getattr(signal, name)) is not signal.SIG_DFL  # it would end the tests
        try:
            send(name)
        finally:
            closed.append(name)
    assert closed and (name == "SIGINT" or caught.value.code == 128 + getattr(signal, name))
    assert {number: signal.getsignal(number) for number in ALL} == before


def test_a_block_that_raises_leaves_the_programs_own_handlers_alone():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, handler := lambda number, frame: None)
    with ending_raises():
        send("SIGTERM", "SIGHUP")
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)) == (signal.SIG_IGN, handler)


def test_nothing_happens_without_a_signal():
    with EndingSignals() as signals:
        assert signals.installed and signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_handlers_of_the_program_are_called_in_their_order_until_one_raises():
    called = []
    signal.signal(signal.SIGTERM, lambda number, frame: called.append(number))
    signal.signal(signal.SIGHUP, lambda number, frame: [called.append(number), 1 // 0])
    with pytest.raises(ZeroDivisionError), EndingSignals():
        send("SIGTERM", "SIGTERM", "SIGHUP", "SIGQUIT")
        assert not called
    assert called == [signal.SIGTERM, signal.SIGHUP]
    with EndingSignals():
        send("SIGTERM")
    assert called[2:] == [signal.SIGTERM]


def test_what_is_ignored_or_has_another_meaning_is_left_alone():
    called = []
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, lambda number, frame: called.append(number))
    noticed = []
    with EndingSignals(noticed.append):
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        send("SIGHUP", "SIGUSR1")
        assert called == [signal.SIGUSR1]
    assert not noticed


@pytest.mark.parametrize("name", OF_TERMINALS)
def test_a_terminal_in_which_the_program_is_in_the_background_does_not_suspend_it(name):
    noticed = []
    with EndingSignals(noticed.append):
        assert signal.getsignal(getattr(signal, name)) is signal.SIG_IGN
        send(name)
    assert not noticed and signal.getsignal(getattr(signal, name)) is signal.SIG_DFL


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the system does not say who handles what")
def test_handlers_of_c_code_stay_in_place(tmp_path):
    with (tmp_path / "traces").open("w") as file:
        faulthandler.register(signal.SIGUSR2, file, all_threads=False)
        try:
            with EndingSignals() as signals:
                send("SIGUSR2")
            send("SIGUSR2")
        finally:
            faulthandler.unregister(signal.SIGUSR2)
    assert signals.installed and (tmp_path / "traces").read_text().count("most recent call first") == 2


def test_an_error_of_the_block_is_told_with_the_signal(caplog):
    with pytest.raises(SystemExit) as caught, caplog.at_level(logging.ERROR), EndingSignals():
        send("SIGTERM")
        raise OSError("the brake does not answer")
    assert isinstance(caught.value.__cause__, OSError) and "the brake does not answer" in caplog.text


def test_an_error_of_the_block_comes_through_where_the_handler_lets_the_program_go_on():
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    with pytest.raises(OSError, match="the brake"), EndingSignals():
        send("SIGTERM")
        raise OSError("the brake does not answer")


def test_other_threads_cannot_and_nested_blocks_can():
    found = []

    def other():
        with EndingSignals() as signals:
            found.append(signals.installed)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert found == [False]
    with pytest.raises(SystemExit), EndingSignals():
        with EndingSignals():
            send("SIGTERM")
        found.append("between")  # the outer block keeps it
    assert found[-1] == "between"


def test_a_fork_can_be_ended_as_if_nothing_had_been_changed():
    ready, ours = os.pipe()
    with EndingSignals():
        pid = os.fork()
        if pid == 0:
            try:
                os.write(ours, b"1")  # Python drops a signal that comes in the middle of a fork
                time.sleep(60)
            finally:
                os._exit(9)
        os.read(ready, 1)
        os.kill(pid, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
