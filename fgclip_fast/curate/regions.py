"""The stage *regions*: boxes for the phrases of a caption, by an open-vocabulary detector."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from fgclip_fast.config.rules import Positive, Share, ShareOrZero
from fgclip_fast.curate import boxes
from fgclip_fast.curate.models.detect import Detection, Detector, detection
from fgclip_fast.curate.models.found import Found
from fgclip_fast.curate.places.answers import Answers
from fgclip_fast.curate.records import regions_of
from fgclip_fast.curate.stage import AskingStage, Done, Item, LeftOut

NO_PHRASES = "no phrases; the stage phrases comes before"
UNSURE, SUPPRESSED, MANY = "below the confidence", "overlaps a surer one", "more than the most"
"""Causes of boxes that are dropped, as they are counted, beside those of :mod:`fgclip_fast.curate.boxes`."""


@dataclass(frozen=True, kw_only=True)
class Regions(AskingStage):
    """Finds a box for each phrase by an open-vocabulary detector, and drops unsure, overlapping and tiny ones."""

    name: ClassVar[str] = "regions"

    detector: Detector = field(default_factory=Detector)
    """The detector."""
    prompt: Literal["bare", "short", "long"] = "short"
    """What the detector is asked for: the noun alone, with what stands before it, or also what stands behind it."""
    confidence: ShareOrZero[float] = 0.4
    """Boxes with a confidence above this are kept, as in FineHARD."""
    overlap: Share[float] = 0.5
    """Overlap (IoU) above which the less sure of two boxes is dropped, whatever their phrases are."""
    most: Positive[int] = 10
    """Boxes of an image; the surest are kept."""
    smallest: ShareOrZero[float] = 0.001
    """Share of the image below which a box is tiny."""
    largest: Share[float] = 0.95
    """Share of the image above which a box covers everything."""
    replace: bool = False
    """Also find regions for records that have some."""

    def identity(self) -> dict[str, Any]:
        """The settings that regions depend on."""
        return {**super().identity(), "detector": self.detector.identity()}

    @property
    def concurrency(self) -> int:
        """A request for each record."""
        return self.detector.concurrency

    @asynccontextmanager
    async def session(self, answers: Answers) -> AsyncIterator[Callable[[Item], Awaitable[Done]]]:
        """Opens the detector."""
        async with detection(self.detector, answers) as found:
            yield lambda item: self._with_regions(item, found)

    async def _with_regions(self, item: Item, detector: Detection) -> Done:
        own = list(regions_of(item.fields))
        if own and not self.replace:
            return Done(None, Counter({"records that kept their regions": 1, "boxes": len(own)}))
        phrases = item.fields.get("phrases")
        if not isinstance(phrases, list):
            raise LeftOut(NO_PHRASES)
        texts = [phrase[self.prompt] for phrase in phrases]
        found = await detector.boxes(item.image, texts) if texts else []
        counts: Counter[str] = Counter()
        kept = self._kept(found, counts)
        regions = [
            {
                "bbox": [*(round(side, 5) for side in one.box), round(one.score, 4)],
                "short_expr": phrases[one.phrase]["short"],
                "long_expr": phrases[one.phrase]["long"],
            }
            for one in kept
        ]
        counts.update({"boxes": len(regions), "records without boxes": int(not regions)})
        return Done({**item.fields, "bbox_info": regions}, counts)

    def _kept(self, found: Sequence[Found], counts: Counter[str]) -> list[Found]:
        """The boxes that stay, the surest first."""
        usable = []
        for one in found:
            fault = UNSURE if one.score <= self.confidence else None
            fault = fault or boxes.fault_of(list(one.box), self.smallest, self.largest)
            counts.update([f"boxes dropped: {fault}"] if fault else [])
            usable += [] if fault else [one]
        order = boxes.suppressed([one.box for one in usable], [one.score for one in usable], self.overlap)
        counts[f"boxes dropped: {SUPPRESSED}"] += len(usable) - len(order)
        counts[f"boxes dropped: {MANY}"] += max(0, len(order) - self.most)
        return [usable[i] for i in order[: self.most]]
