"""Send the figures of a run to a service that draws curves, too; whatever fails there, the run goes on."""

import logging
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from fgclip_fast.files.whole_file import write_whole

log = logging.getLogger("fgclip_fast")


class Tracker(ABC):
    """A run at one service. A failure is told once, as a warning, and ends the sending alone.

    Args:
        run: folder of the run.
        project: name of the project there.
        config: of the run.
        done: steps done before; 0 begins another run there, others continue the one that stands in the folder.
    """

    package: ClassVar[str]
    """Name of the service's package, and of the config's field."""
    title: ClassVar[str]
    """Name of the service."""
    install: ClassVar[str]
    """How to install the package."""

    def __init__(self, run: Path, project: str, config: Mapping[str, Any], done: int) -> None:
        self._run: Any = None
        self._attempt(partial(self._start, run, project, config, done))

    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Send the figures of a step."""
        if self._run is not None:
            self._attempt(partial(self._log, step, {f"{kind}/{name}": value for name, value in values.items()}))

    def set_config(self, step: int, values: Mapping[str, Any]) -> None:
        """Say that fields of the config have other values from a step on."""
        if self._run is not None:
            self._attempt(partial(self._set_config, step, values))

    def close(self, failed: bool = False) -> None:
        """Wait until the figures are sent; ``failed`` says that the run ended by an error."""
        if self._run is not None:
            self._attempt(partial(self._finish, failed))

    @abstractmethod
    def _start(self, run: Path, project: str, config: Mapping[str, Any], done: int) -> None:
        """Set ``_run``."""

    @abstractmethod
    def _log(self, step: int, named: Mapping[str, float]) -> None: ...

    @abstractmethod
    def _set_config(self, step: int, values: Mapping[str, Any]) -> None: ...

    @abstractmethod
    def _finish(self, failed: bool) -> None: ...

    def _attempt(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except Exception as error:
            self._run = None
            log.warning("%s: %s; no more figures are sent, and the run goes on", self.package, in_one_line(error))


def in_one_line(error: Exception) -> str:
    """The message of an error without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def id_of(folder: Path, done: int) -> str:
    """The id of a run at a service, kept in a file ``id`` of ``folder``: a new one for a run that begins."""
    file = folder / "id"
    file.parent.mkdir(exist_ok=True)
    if not done or not file.exists():
        write_whole(file, secrets.token_hex(8))
    return file.read_text()
