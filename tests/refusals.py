"""How a command refuses bad input: what it says, in one line, whether it came as a line or in a frame."""

import re
from collections.abc import Callable, Sequence

import pytest


def refusal(command: Callable[[Sequence[str]], object], words: Sequence[str], capsys: pytest.CaptureFixture) -> str:
    """The message with which a command ends; any other exception than its end fails the test."""
    with pytest.raises(SystemExit) as ended:
        command(words)
    assert ended.value.code not in (0, None)
    framed = capsys.readouterr().err if isinstance(ended.value.code, int) else str(ended.value.code)
    assert "Traceback" not in framed
    message = re.sub("[│╭╮╰╯─]", " ", framed) if isinstance(ended.value.code, int) else framed
    assert isinstance(ended.value.code, int) or "\n" not in framed, framed
    return " ".join(message.split())
