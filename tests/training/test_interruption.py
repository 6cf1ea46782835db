"""Signals: the first one only asks; a second Ctrl-C interrupts at once."""

import os
import signal

import pytest

from fgclip_fast.training.interruption import Interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
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
