"""A stage of curation: a function from record to record, and the words in which it tells what became of each."""

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

from fgclip_fast.config.rules import check
from fgclip_fast.curate.folder import DROPPED, FAILED
from fgclip_fast.curate.places.answers import Answers
from fgclip_fast.data.causes import NO_IMAGE
from fgclip_fast.data.records import IMAGE_NAMES, part_name
from fgclip_fast.data.shards import Sample


class Item(NamedTuple):
    """One image on its way through the stages."""

    key: str
    fields: dict[str, Any]
    """Its record, in FineHARD's fields; a stage may change it."""
    parts: dict[str, bytes]
    """All parts of its sample."""
    shard: str
    number: int
    """Its place in the shard, from 0."""

    @property
    def place(self) -> str:
        """Names it among all of the set."""
        return f"{self.shard}/{self.key}"

    @property
    def image(self) -> bytes:
        """Its image file.

        Raises:
            LeftOut: it has none.
        """
        name = part_name(self.parts, IMAGE_NAMES)
        if name is None:
            raise LeftOut(NO_IMAGE, f"the sample holds {', '.join(self.parts) or 'nothing'}")
        return self.parts[name]


class LeftRegion(NamedTuple):
    """A region that a stage left out, or for which it found nothing."""

    region: int
    """Its number."""
    cause: str
    detail: str = ""
    again: bool = False
    """True if another try may succeed."""


class Done(NamedTuple):
    """A record that a stage is done with."""

    fields: dict[str, Any] | None
    """None: as it came."""
    counts: Counter[str] = Counter()  # noqa: RUF012, never changed
    left_out: tuple[LeftRegion, ...] = ()


class LeftOut(Exception):
    """Raised by a stage for a record that it leaves out.

    Args:
        cause: in words that are counted.
        detail: what is special to the record.
        again: True if another try may succeed.
        counts: for the report.
    """

    def __init__(self, cause: str, detail: str = "", *, again: bool = False, counts: Counter[str] | None = None):
        super().__init__(cause)
        self.cause, self.detail, self.counts = cause, detail[:300], counts or Counter()
        self.status = FAILED if again else DROPPED


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage whose function computes; it runs in processes, a shard in each. Its fields are its settings."""

    name: ClassVar[str]
    in_place: ClassVar[bool] = False
    """The output may replace the input. Then no record is left out."""

    def __post_init__(self) -> None:
        check(self, f"curate {self.name}: ")

    @property
    def looks(self) -> bool:
        """True if a first pass over all samples comes before."""
        return False

    def settings(self) -> dict[str, Any]:
        """All settings, as JSON."""
        settings: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return settings

    def identity(self) -> dict[str, Any]:
        """The settings that the output depends on, as JSON."""
        return self.settings()

    def look(self, samples: Iterable[Sample]) -> Any:
        """What the first pass finds in one shard, as JSON."""
        raise NotImplementedError

    def decide(self, found: Iterable[tuple[str, Any]]) -> Any:
        """What the function needs of all that was found, as JSON; ``found`` has the names of shards, in order."""
        raise NotImplementedError

    def function(self, known: Any) -> Callable[[Item], Done]:
        """The function, made once in a process; it raises :class:`LeftOut`."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class AskingStage(Stage):
    """A stage whose function waits for a model; many records are under way at once, in one process."""

    @property
    def concurrency(self) -> int:
        """Records under way at once."""
        raise NotImplementedError

    def session(self, answers: Answers) -> AbstractAsyncContextManager[Callable[[Item], Awaitable[Done]]]:
        """The function, with what it holds open; ``answers`` keeps what it is told."""
        raise NotImplementedError
