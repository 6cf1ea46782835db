"""The stage *negatives* by a chat model, which rewrites attributes and keeps the noun."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import BaseModel

from fgclip_fast.config.rules import Positive
from fgclip_fast.curate.lexicon.truth import is_true_of
from fgclip_fast.curate.models.chat import Asker, ChatStage
from fgclip_fast.curate.prompts import prompt
from fgclip_fast.curate.records import NO_EXPRESSION, expression, has_negatives, regions_of
from fgclip_fast.curate.stage import Done, Item, LeftOut, LeftRegion
from fgclip_fast.data.negatives import distinct

TOO_FEW = "too few usable negatives"
ChatLevel = Literal["mix", "hard", "medium", "easy"]
_CHANGES = {
    "mix": "one to three attributes",
    "hard": "exactly one attribute",
    "medium": "exactly two attributes",
    "easy": "exactly three attributes",
}


class Texts(BaseModel):
    """An answer with negatives."""

    negatives: list[str]


@dataclass(frozen=True, kw_only=True)
class ChatNegatives(ChatStage):
    """Hard negatives by a chat model; those that are true by the lexicon, or repeat another one, are left out."""

    name: ClassVar[str] = "negatives"
    asked: ClassVar[tuple[str, ...]] = ("negatives",)

    count: Positive[int] = 10
    """Negatives of a region. An answer with fewer than half of them is asked for again."""
    level: ChatLevel = "mix"
    """mix: one to three attributes changed; hard, medium, easy: exactly one, two, three."""

    def identity(self) -> dict[str, Any]:
        """The settings that negatives depend on, and that no rules wrote them."""
        return {**super().identity(), "method": "chat"}

    async def answered(self, model: Asker, item: Item) -> Done:
        """A record with negatives for its regions."""
        counts: Counter[str] = Counter()
        wanted = []
        left_out: list[LeftRegion] = []
        for i, region in regions_of(item.fields):
            counts["regions"] += 1
            if has_negatives(region) and not self.replace:
                counts["regions that kept their own"] += 1
            elif expression(region):
                wanted.append((i, region))
            else:
                left_out.append(LeftRegion(i, NO_EXPRESSION))
        found = await asyncio.gather(
            *(self._negatives(expression(region), model, counts, f"{item.place} {i}") for i, region in wanted),
            return_exceptions=True,
        )
        for (i, region), negatives in zip(wanted, found, strict=True):
            if isinstance(negatives, LeftOut):
                left_out.append(LeftRegion(i, negatives.cause, expression(region), again=True))
                continue
            if isinstance(negatives, BaseException):
                raise negatives
            region["flag_short_neg"] = 1
            region["short_expr_negs"] = {str(n): text for n, text in enumerate(negatives)}
            counts.update({"regions with new negatives": 1, "negatives": len(negatives)})
            counts["regions with fewer than asked"] += len(negatives) < self.count
        counts.update(f"regions without: {left.cause}" for left in left_out)
        return Done(item.fields if wanted else None, counts, tuple(left_out))

    async def _negatives(self, text: str, model: Asker, counts: Counter[str], owner: str) -> list[str]:
        question = prompt("negatives", self.prompts, text=text, count=self.count, changes=_CHANGES[self.level])
        answer = await model.ask(question, Texts, lambda answer: self._fault(text, answer), counts, owner)
        return self._usable(text, answer)

    def _usable(self, text: str, answer: Texts) -> list[str]:
        different, _ = distinct(text, [" ".join(one.split()) for one in answer.negatives if one.strip()])
        return [one for one in different if not is_true_of(text, one)][: self.count]

    def _fault(self, text: str, answer: Texts) -> str | None:
        return TOO_FEW if 2 * len(self._usable(text, answer)) < self.count else None
