"""The folder that a stage writes to, on a disk."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fgclip_fast.curate.places.answers import FILE, Answers
from fgclip_fast.curate.places.place import Place, hold
from fgclip_fast.data.remote import State, state as state_of
from fgclip_fast.files.whole_file import partials


@dataclass(frozen=True)
class Disk(Place):
    """A folder of a file system."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.resolve().name

    def below(self, name: str) -> "Disk":
        """A folder in it."""
        return Disk(self.path / name)

    def make(self, folder: str) -> None:
        """Make a folder in it."""
        (self.path / folder).mkdir(parents=True, exist_ok=True)

    def is_file(self) -> bool:
        """True if it is no folder."""
        return self.path.exists() and not self.path.is_dir()

    def holds(self, shard: Path) -> bool:
        """True if a shard lies in it."""
        return shard.parent.resolve() == self.path.resolve()

    def glob(self, pattern: str) -> list[str]:
        """The names of the files that a pattern fits."""
        return [path.relative_to(self.path).as_posix() for path in self.path.glob(pattern)]

    def shards(self, names: Sequence[str]) -> list[Path]:
        """The shards of some names."""
        return [self.path / name for name in names]

    def states(self, names: Sequence[str]) -> list[State | None]:
        """Size and time of some files."""
        return [state_of(path) if (path := self.path / name).exists() else None for name in names]

    def read(self, name: str) -> bytes | None:
        """What a file holds."""
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def read_all(self, names: Iterable[str]) -> Iterator[bytes | None]:
        """What each of many files holds."""
        return map(self.read, names)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Give the path itself."""
        yield self.path / name

    @contextmanager
    def working(self) -> Iterator[Path]:
        """Give the folder itself."""
        yield self.path

    @contextmanager
    def alone(self, state: str) -> Iterator[None]:
        """Hold the folder by a lock in it."""
        self.make(state)
        with hold(self.path / state / "lock", self):
            for path in (*partials(self.path), *partials(self.path / state)):
                path.unlink()
            yield

    def answers(self, state: str, again: bool, shared: bool) -> Answers:
        """One SQLite file."""
        return Answers(self.path / state / FILE, again, shared)
