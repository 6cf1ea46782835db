"""The stages *images* and *phrases*: shards from images, and the noun chunks of their captions."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from fgclip_fast.config.rules import Positive
from fgclip_fast.curate.lexicon.chunks import phrases_of
from fgclip_fast.curate.stage import Done, Item, LeftOut, Stage
from fgclip_fast.data.causes import NO_TEXT, BadRecord
from fgclip_fast.data.decode import decode

_SIDE = 72  # pixels; to know whether an image can be decoded


@dataclass(frozen=True, kw_only=True)
class Images(Stage):
    """Takes images that can be decoded, with the texts beside them."""

    name: ClassVar[str] = "images"

    def function(self, known: Any) -> Callable[[Item], Done]:
        """Checks one image."""

        def taken(item: Item) -> Done:
            source = item.fields.get("source") or {}
            try:
                if "cause" in source:
                    raise BadRecord(source["cause"], source["detail"])
                decode(item.image, _SIDE)
            except BadRecord as bad:
                raise LeftOut(bad.cause, f"{source.get('key', item.key)}: {bad.detail}", again=True) from None
            return Done(None, Counter(images=1))

        return taken


@dataclass(frozen=True, kw_only=True)
class Phrases(Stage):
    """Finds the things that captions name: bare, with what stands before the noun, and with what stands behind it."""

    name: ClassVar[str] = "phrases"

    most: Positive[int] = 20
    """Phrases of an image; those named first are kept."""

    def function(self, known: Any) -> Callable[[Item], Done]:
        """Finds the phrases of one record."""

        def with_phrases(item: Item) -> Done:
            captions = [item.fields.get(name) for name in ("caption", "short_caption")]
            texts = [caption for caption in captions if isinstance(caption, str) and caption.strip()]
            if not texts:
                raise LeftOut(NO_TEXT, "neither caption nor short_caption")
            found = phrases_of(texts, self.most)
            counts = Counter(phrases=len(found), captions=1)
            counts["records without phrases"] += not found
            return Done({**item.fields, "phrases": [phrase._asdict() for phrase in found]}, counts)

        return with_phrases
