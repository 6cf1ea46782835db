"""Signals: the first one only asks; a second Ctrl-C interrupts at once."""

import os
import signal

import pytest

from fgclip_fast.process.signals import SIGNALS
from fgclip_fast.training.interruption import Interrupted, Interruption


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_only_asks(number):
    before = signal.getsignal(number)
    with Interruption() as interruption:
        assert not interruption.wanted
        os.kill(os.getpid(), number)
        assert interruption.wanted
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_ends_it():
    with pytest.raises(KeyboardInterrupt), Interruption():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_ends_a_wait_for_data_and_no_wait_begins_after_it():
    with Interruption() as interruption:
        with pytest.raises(Interrupted), interruption.waiting():
            os.kill(os.getpid(), signal.SIGTERM)
            pytest.fail("the wait went on")
        assert interruption.wanted
        with pytest.raises(Interrupted), interruption.waiting():
            pytest.fail("a wait began")


def test_torchrun_repeats_a_ctrl_c_that_the_terminal_has_sent_already(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with Interruption() as interruption:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.wanted
        interruption._came -= 3.0
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
