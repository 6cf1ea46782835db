"""The stage *captions*: a long caption by a vision-language model; the alt text stays as the short one."""

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import BaseModel

from fgclip_fast.config.rules import Positive
from fgclip_fast.curate.models.chat import Asker, ChatStage
from fgclip_fast.curate.prompts import prompt
from fgclip_fast.curate.stage import Done, Item
from fgclip_fast.curate.texts import fault_of
from fgclip_fast.data.records import part_name

SHORT = "caption too short"


class LongCaption(BaseModel):
    """An answer with a long caption."""

    caption: str


class BothCaptions(LongCaption):
    """An answer with both captions."""

    short_caption: str


@dataclass(frozen=True, kw_only=True)
class Captions(ChatStage):
    """Writes a long caption of each image by a vision-language model; the alt text stays as the short caption."""

    name: ClassVar[str] = "captions"
    asked: ClassVar[tuple[str, ...]] = ("long_caption", "both_captions")

    short: Literal["missing", "always", "never"] = "missing"
    """When the model writes a short caption too: where there is no alt text, for each image, or never."""
    language: str = "en"
    """ISO 639-1 code of the language that captions must have; empty: any."""
    fewest_words: Positive[int] = 15
    """Words of a long caption, at least."""

    async def answered(self, model: Asker, item: Item) -> Done:
        """A record with captions."""
        alt, long = texts_of(item)
        counts: Counter[str] = Counter()
        if long and not self.replace:
            return Done(None, Counter({"records that kept their caption": 1}))
        both = self.short == "always" or (self.short == "missing" and not alt)
        form, name = (BothCaptions, "both_captions") if both else (LongCaption, "long_caption")
        answer = await model.ask(prompt(name, self.prompts), form, self._fault, counts, item.place, item.image)
        captions = {"caption": answer.caption.strip()}
        short = answer.short_caption.strip() if isinstance(answer, BothCaptions) else alt
        captions |= {"short_caption": short} if short else {}
        counts.update({"captions": 1, "short captions written": int(both)})
        return Done({**item.fields, **captions}, counts)

    def _fault(self, answer: LongCaption) -> str | None:
        if isinstance(answer, BothCaptions) and (fault := fault_of(answer.short_caption, self.language)):
            return fault
        fault = fault_of(answer.caption, self.language)
        return fault or (SHORT if len(answer.caption.split()) < self.fewest_words else None)


def texts_of(item: Item) -> tuple[str, str]:
    """The short and the long caption that a sample brings, as far as it has them.

    A ``caption`` that stands alone or repeats the text beside the image, as img2dataset writes it, is alt text.
    """
    name = part_name(item.parts, ("txt", "text"))
    beside = item.parts[name].decode("utf-8", "replace").strip() if name else ""
    given = {key: value.strip() for key, value in item.fields.items() if isinstance(value, str)}
    short = given.get("short_caption") or beside or given.get("text", "")
    long = given.get("caption") or given.get("long_caption", "")
    is_alt = long and (not short or long == short)
    return (short or long, "") if is_alt else (short, long)
