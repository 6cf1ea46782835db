"""The folder that a stage writes to, whether it lies on a disk (disk.py) or in object storage (storage.py).

Files are named from it on: ``a-0.tar``, ``_captions/settings.json``. Each is there whole or not at all.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from fgclip_fast.curate.places.answers import Answers
from fgclip_fast.data.remote import State
from fgclip_fast.files.locked_file import HeldError, locked
from fgclip_fast.files.whole_file import write_json, write_whole


class Place(ABC):
    """A folder; what differs between a disk and a storage."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The last part of its path."""

    @abstractmethod
    def below(self, name: str) -> "Place":
        """A folder in it."""

    @abstractmethod
    def make(self, folder: str) -> None:
        """Make a folder in it, where folders must be made."""

    @abstractmethod
    def is_file(self) -> bool:
        """True if it is no folder."""

    @abstractmethod
    def holds(self, shard: Path) -> bool:
        """True if a shard, or the remote one that it is the copy of, lies in it."""

    @abstractmethod
    def glob(self, pattern: str) -> list[str]:
        """The names of the files that a pattern fits."""

    @abstractmethod
    def shards(self, names: Sequence[str]) -> list[Path]:
        """The shards of some names, for the next stage."""

    @abstractmethod
    def states(self, names: Sequence[str]) -> list[State | None]:
        """Size and time of some files in it; None where there is none."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """What a file holds; None if there is none."""

    @abstractmethod
    def read_all(self, names: Iterable[str]) -> Iterator[bytes | None]:
        """What each of many files holds."""

    @abstractmethod
    def writing(self, name: str) -> AbstractContextManager[Path]:
        """Give a path where a file may be written whole; then it is in its place."""

    @abstractmethod
    def working(self) -> AbstractContextManager[Path]:
        """Give a folder of this machine where an import may go on; what it has finished is then in its place."""

    @abstractmethod
    def alone(self, state: str) -> AbstractContextManager[None]:
        """Hold the folder for this process, and delete what a killed one has begun; ``state`` has its own folder.

        Raises:
            ValueError: another process works in it.
        """

    @abstractmethod
    def answers(self, state: str, again: bool, shared: bool) -> Answers:
        """The answers of models, kept in the folder ``state``; see :class:`Answers`."""

    def read_json(self, name: str) -> Any:
        """What a JSON file holds; None if there is none."""
        return loaded(self.read(name))

    def write(self, name: str, content: str | bytes) -> None:
        """Write a file."""
        with self.writing(name) as path:
            write_whole(path, content)

    def write_json(self, name: str, values: Any, indent: int | None = 1) -> None:
        """Write a JSON file."""
        with self.writing(name) as path:
            write_json(path, values, indent)


def loaded(content: bytes | None) -> Any:
    """The JSON of a file; None if there is none."""
    return None if content is None else json.loads(content)


@contextmanager
def hold(file: Path, place: Place) -> Iterator[None]:
    """Hold a place by a lock on a file.

    Raises:
        ValueError: another process works in it.
    """
    try:
        lock = locked(file)
    except HeldError:
        raise ValueError(f"curate: another process works in {place} now") from None
    with lock:
        yield
