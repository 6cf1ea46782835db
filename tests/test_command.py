"""The frame of the commands: one line for an error, plain log lines without a terminal, and a list of commands."""

import io
import subprocess
import sys
from dataclasses import dataclass

import pytest

from fgclip_fast import __main__ as fgclip, command

NAMES = [name for group in fgclip.COMMANDS.values() for name in group]


@dataclass(frozen=True, kw_only=True)
class Request:
    number: int = 3
    """A number."""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("number must be > 0,\n  got -1"), "error: embed: number must be > 0, got -1"),
        (FileNotFoundError("embed: no a.jpg"), "error: embed: no a.jpg"),
        (ValueError("no \x1b[2Ja\u202e.jpg"), r"error: embed: no \x1b[2Ja\u202e.jpg"),
    ],
    ids=["named by the frame", "named already", "control characters"],
)
def test_an_expected_error_is_one_line_that_names_the_command(error, line):
    with pytest.raises(SystemExit) as end, command.frame("embed"):
        raise error
    assert end.value.code == line


def test_a_fault_of_the_package_keeps_its_traceback():
    with pytest.raises(KeyError), command.frame("embed"):
        raise KeyError("a")


def test_arguments_are_read_over_the_defaults():
    assert command.read(Request, "embed", [], None) == Request(number=3)
    assert command.read(Request, "embed", ["--number", "5"], None, default=Request(number=4)) == Request(number=5)
    assert command.read(Request, "embed", [], None, default=Request(number=4)) == Request(number=4)


def test_without_a_terminal_the_log_is_plain_lines_on_standard_error():
    code = "import logging; from fgclip_fast import command\n"
    code += "with command.frame('x'): logging.info('a %s', '\\x1b]0;b' * 200)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "" and done.stderr.endswith(" INFO a " + r"\x1b]0;b" * 200 + "\n")


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_what_the_encoding_of_a_terminal_lacks_is_printed_in_other_words(monkeypatch, encoding):
    """Of cases that ended a run after its last step, or a list of commands."""
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding, write_through=True))
    monkeypatch.setattr(sys, "argv", ["fgclip"])
    fgclip.main()
    with command.frame("embed"):
        print("3 × 4 – “猫” \udcff")
    text = printed.getvalue().decode(encoding)
    assert text.startswith(f"usage: fgclip COMMAND {'…' if encoding == 'utf-8' else '...'}, with --help")
    last = {"utf-8": "3 × 4 – “猫” ?", "latin-1": '3 × 4 - "?" ?', "ascii": '3 x 4 - "?" ?'}[encoding]
    assert text.splitlines()[-1] == last


@pytest.mark.parametrize("name", NAMES)
def test_every_command_is_found_and_has_a_help(name, capsys):
    with pytest.raises(SystemExit) as end:
        fgclip._main_of(name)(["--help"])
    assert end.value.code in (0, None) and f"fgclip {name}" in capsys.readouterr().out


def test_help_lists_the_commands_by_purpose(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fgclip"])
    fgclip.main()
    text = capsys.readouterr().out
    assert all(f"\n{group}:\n" in text for group in fgclip.COMMANDS) and all(f"\n  {name} " in text for name in NAMES)


def test_an_unknown_command_names_the_nearest(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["fgclip", "trian"])
    with pytest.raises(SystemExit, match=r"error: fgclip: unknown command 'trian'; the nearest is 'train'"):
        fgclip.main()


def test_ctrl_c_ends_with_one_line(capsys):
    with pytest.raises(SystemExit) as ended, command.frame("train"):
        raise KeyboardInterrupt
    assert ended.value.code == 130
    assert capsys.readouterr().err == "train: interrupted; what was saved before is whole\n"
