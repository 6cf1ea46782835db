"""The frame of every command: set up the log, read the arguments, print an error as one line."""

import codecs
import io
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn, TypeVar

from rich.logging import RichHandler

from fgclip_fast.process import signals, slurm

T = TypeVar("T")
_ACTED_ON = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_PLAIN = {"…": "...", "–": "-", "—": "-", "×": "x", "·": ".", "“": '"', "”": '"', "’": "'"}


@contextmanager
def frame(name: str) -> Iterator[None]:
    """Run the body of a command.

    What the encoding of the output lacks is printed in other words, and control characters of file names and captions
    are shown as escapes, in log messages and in the error. Log messages are formatted by rich on a terminal, and are
    plain lines on standard error elsewhere; of several processes that ``torchrun`` or ``srun`` started, all but the
    first log warnings only.

    A ValueError or OSError, which is what our own checks and the file system raise, ends the process with the line
    ``error: NAME: message`` and status 1. Ctrl-C, SIGTERM, SIGUSR1 or SIGHUP ends it with one line and status 128 + the
    signal's number, once half-written files are removed and the tasks at hand are done; a second Ctrl-C ends it at
    once. Other exceptions are faults of this package and keep their traceback.
    """
    replace_unprintable()
    slurm.adopt()
    level = logging.INFO if int(os.environ.get("RANK", 0)) == 0 else logging.WARNING
    if sys.stdout.isatty():
        logging.basicConfig(level=level, format="%(message)s", handlers=[RichHandler(show_path=False)])
    else:
        logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    for handler in logging.getLogger().handlers:
        handler.addFilter(_make_printable)
    try:
        with signals.raised():
            yield
    except (ValueError, OSError) as error:
        message = printable(" ".join(str(error).split()))
        sys.exit(f"error: {message if message.startswith(name) else f'{name}: {message}'}")
    except KeyboardInterrupt as stopped:
        print(" ".join(stopped.args) or f"{name}: interrupted; what was saved before is whole", file=sys.stderr)
        _end(stopped)


@contextmanager
def going_on(name: str) -> Iterator[None]:
    """Run the work of a command that, given again, goes on where a signal stopped it; the signal's line says so."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        stopped.args = (f"{name}: interrupted; the same command goes on from here",)
        raise


def _end(stopped: KeyboardInterrupt) -> NoReturn:
    if isinstance(stopped, signals.Signalled) and stopped.at_once:
        sys.stderr.flush()
        os._exit(128 + stopped.number)  # sys.exit would wait for workers, and for a disk that hangs
    sys.exit(128 + (stopped.number if isinstance(stopped, signals.Signalled) else signal.SIGINT))


def printable(text: str) -> str:
    """Escape what a terminal would act on: control characters but line ends, and marks that reverse what follows."""
    return _ACTED_ON.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _make_printable(message: logging.LogRecord) -> bool:
    message.msg, message.args = printable(message.getMessage()), ()
    return True


def replace_unprintable() -> None:
    """Print what the encoding of a terminal or a log lacks in other words: "..." for "…", "?" for most."""
    codecs.register_error("fgclip-plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and (stream.errors == "strict" or not _is_utf8(stream.encoding)):
            stream.reconfigure(errors="fgclip-plain")


def _is_utf8(encoding: str) -> bool:
    return codecs.lookup(encoding).name == "utf-8"


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character, "?") for character in text), error.end


def read(
    kind: type[T], name: str, arguments: Sequence[str] | None, description: str | None, *, default: T | None = None
) -> T:
    """Read the arguments of a command.

    Args:
        kind: a dataclass whose fields are the arguments.
        name: of the command, as in ``fgclip NAME``.
        arguments: words of the command line; None takes those of this process.
        description: for ``--help``.
        default: value of each argument that is not given; None takes the defaults of the fields.

    Raises:
        SystemExit: after ``--help``, or with status 2 for an unknown or malformed argument.
        ValueError: a value that ``kind`` refuses.
    """
    import tyro  # slow to import, and not needed by those who call the package from Python

    defaults = tyro.MISSING_NONPROP if default is None else default
    return tyro.cli(kind, args=arguments, prog=f"fgclip {name}", description=description, default=defaults)
