"""The folder that a stage writes to, in object storage, by fsspec."""

import hashlib
import posixpath
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from fgclip_fast.curate.places.answers import Answers
from fgclip_fast.curate.places.place import Place, hold
from fgclip_fast.curate.places.stored_answers import StoredAnswers
from fgclip_fast.curate.places.upload import upload
from fgclip_fast.data import remote
from fgclip_fast.data.importers.work_folder import PLAN
from fgclip_fast.data.remote import State
from fgclip_fast.data.sending import FINAL, sent
from fgclip_fast.data.tries import tried

T = TypeVar("T")
_READERS, _TOGETHER = 32, 256  # threads that read, and files that they take at once
_FEW = 4  # files that are asked for one by one


@dataclass(frozen=True)
class Storage(Place):
    """A folder of an object storage. A file is written whole on this machine, and then sent."""

    url: str

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """The last part of its URL."""
        return posixpath.basename(self.url)

    def below(self, name: str) -> "Storage":
        """A folder in it."""
        return Storage(f"{self.url}/{name}")

    def make(self, folder: str) -> None:
        """Nothing: a storage has no folders."""

    def is_file(self) -> bool:
        """False: a file of this name may lie beside."""
        return False

    def holds(self, shard: Path) -> bool:
        """True if the remote shard of a copy lies in it."""
        note = remote.note_of(shard)
        return note is not None and remote.system_of(posixpath.dirname(note["url"])) == remote.system_of(self.url)

    def glob(self, pattern: str) -> list[str]:
        """The names of the files that a pattern fits."""
        system, path = remote.system_of(self.url)
        system.invalidate_cache()  # another process may have written there
        found = self._asked("listed", lambda: system.glob(f"{path}/{pattern}")) or []
        return sorted(name.removeprefix(f"{path}/") for name in found)

    def shards(self, names: Sequence[str]) -> list[Path]:
        """The copies that will be made of some shards, which are listed anew."""
        copies = {copy.name: copy for copy in remote.listed(f"{self.url}/*.tar")}
        return [copies[name] for name in names]

    def states(self, names: Sequence[str]) -> list[State | None]:
        """Size and version of some files; of more than a few by a list of the folder."""
        system, path = remote.system_of(self.url)
        system.invalidate_cache()
        if len(names) > _FEW:
            found = self._asked("listed", lambda: system.ls(path, detail=True)) or []
            there = {posixpath.basename(about["name"].rstrip("/")): about for about in found}
        else:
            there = {name: self._asked("read", partial(system.info, f"{path}/{name}")) for name in names}
        return [
            remote.state_there(f"{self.url}/{name}", about) if (about := there.get(name)) else None for name in names
        ]

    def read(self, name: str) -> bytes | None:
        """What a file holds."""
        system, path = remote.system_of(self.url)
        return self._asked("read", lambda: system.cat_file(f"{path}/{name}"))

    def read_all(self, names: Iterable[str]) -> Iterator[bytes | None]:
        """What each of many files holds; several are read at once."""
        waiting = iter(names)
        with ThreadPoolExecutor(_READERS) as pool:
            while some := list(islice(waiting, _TOGETHER)):
                yield from pool.map(self.read, some)

    def writing(self, name: str) -> AbstractContextManager[Path]:
        """Give a path of this machine; the file is sent."""
        return sent(f"{self.url}/{name}")

    @contextmanager
    def working(self) -> Iterator[Path]:
        """Give a folder of this machine, which stays if the work is stopped; its shards are sent, and it is deleted."""
        if self.read(PLAN) is None and self.glob("*.tar"):
            raise ValueError(f"curate shards: --output must hold no shards, got {self}; choose another folder")
        with self.alone(""):
            here = self._here / "import"
            yield here
            upload(here, self.url)
            shutil.rmtree(here)

    @contextmanager
    def alone(self, state: str) -> Iterator[None]:
        """Hold the folder by a lock of this machine: a storage has none."""
        self._here.mkdir(parents=True, exist_ok=True)
        with hold(self._here / "lock", self):
            yield

    def answers(self, state: str, again: bool, shared: bool) -> Answers:
        """A file for each shard."""
        name = f"{state}/answers/{{}}.json"
        return StoredAnswers(
            lambda shard: self.read_json(name.format(shard)),
            lambda shard, kept: self.write_json(name.format(shard), kept, indent=None),
            again,
        )

    @property
    def _here(self) -> Path:
        return remote.cached("curate") / hashlib.sha256(self.url.encode()).hexdigest()[:16]

    def _asked(self, done: str, work: Callable[[], T]) -> T | None:
        """What the storage answers; None if the file or folder is not there.

        Raises:
            OSError: it cannot be read.
        """
        try:
            return tried(work, FINAL)
        except FileNotFoundError:
            return None
        except Exception as error:  # each storage raises its own
            raise OSError(
                f"{self.url} cannot be {done}: {type(error).__name__}: {error}; the same command goes on"
            ) from error
