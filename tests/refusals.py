"""The message with which a command refuses bad input, whether it is one line or in a frame."""

import re
from collections.abc import Callable, Sequence

import pytest


def refusal(command: Callable[[Sequence[str]], object], words: Sequence[str], capsys: pytest.CaptureFixture) -> str:
    """The message with which a command ends; any exception but SystemExit fails the test."""
    with pytest.raises(SystemExit) as ended:
        command(words)
    assert ended.value.code not in (0, None)
    framed = capsys.readouterr().err if isinstance(ended.value.code, int) else str(ended.value.code)
    assert "Traceback" not in framed
    message = re.sub("[│╭╮╰╯─]", " ", framed) if isinstance(ended.value.code, int) else framed
    assert isinstance(ended.value.code, int) or "\n" not in framed, framed
    return " ".join(message.split())
