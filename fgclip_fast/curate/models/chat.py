"""Ask a chat model, check its answers, and keep them."""

import asyncio
import base64
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ValidationError

from fgclip_fast.curate.models.chat_model import Chat, Model, Reply
from fgclip_fast.curate.models.chat_server import ChatServer
from fgclip_fast.curate.models.chat_vllm import VllmModel
from fgclip_fast.curate.models.pixels import sendable
from fgclip_fast.curate.places.answers import Answer, Answers, digest_of, key_of
from fgclip_fast.curate.prompts import digest_of as prompt_digest
from fgclip_fast.curate.stage import AskingStage, Done, Item, LeftOut
from fgclip_fast.curate.texts import EMPTY, REFUSAL

Form = TypeVar("Form", bound=BaseModel)
CUT, UNFIT = "answer cut at max_tokens", "answer that does not fit the schema"
"""Faults of answers, as they are counted, beside those of texts."""
_FENCED = re.compile(r"\s*```(?:json)?\s*(.*?)\s*```\s*", re.DOTALL)


class Asker:
    """Asks a chat model, and keeps its answers.

    Args:
        chat: the settings.
        model: what answers.
        answers: where they are kept.
    """

    def __init__(self, chat: Chat, model: Model, answers: Answers) -> None:
        self._chat, self._model, self._answers = chat, model, answers
        self._asking: dict[bytes, asyncio.Task[Answer]] = {}

    async def ask(
        self,
        prompt: str,
        form: type[Form],
        fault_of: Callable[[Form], str | None],
        counts: Counter[str],
        owner: str,
        image: bytes | None = None,
    ) -> Form:
        """Ask until an answer can be used.

        Args:
            prompt: the question.
            form: what the answer must look like, as JSON.
            fault_of: what is wrong with an answer of this form; None: nothing.
            counts: gains requests and tokens, once for each question.
            owner: names what the answer is for.
            image: an image file to look at.

        Raises:
            LeftOut: there is no usable answer.
        """
        schema = form.model_json_schema()
        key = key_of(self._chat.identity(), prompt, schema, digest_of(image))
        answer = self._answers.get(key)
        if answer is None:
            if key not in self._asking:
                self._asking[key] = asyncio.create_task(self._asked(prompt, form, fault_of, image))
                self._asking[key].add_done_callback(lambda _: self._asking.pop(key))
            answer = (await self._asking[key])._replace(owner=owner)
            # Another may have waited for the same answer.
            answer = self._answers.get(key) or self._answers.put(key, answer)
        if answer.owner == owner:
            counts.update({"requests": answer.requests, "tokens in": answer.tokens_in, "tokens out": answer.tokens_out})
        if answer.fault:
            raise LeftOut(answer.fault, answer.detail, again=True, counts=counts)
        return form.model_validate_json(answer.content)

    async def _asked(
        self, prompt: str, form: type[Form], fault_of: Callable[[Form], str | None], image: bytes | None
    ) -> Answer:
        """The first usable answer, or the fault of the last one."""
        content: list[dict[str, Any]] = [{"type": "text", "text": prompt}]
        if image is not None:
            encoded, kind = await asyncio.to_thread(sendable, image, self._chat.image_side)
            address = f"data:image/{kind};base64,{base64.b64encode(encoded).decode()}"
            content.append({"type": "image_url", "image_url": {"url": address}})
        tokens_in = tokens_out = 0
        for attempt in range(self._chat.asks):
            reply = await self._model.reply(content, form, attempt)
            tokens_in, tokens_out = tokens_in + reply.tokens_in, tokens_out + reply.tokens_out
            fault, text = _read(reply, form, fault_of)
            if not fault:
                return Answer(text, "", "", tokens_in, tokens_out, attempt + 1)
        return Answer("", fault, text[:300], tokens_in, tokens_out, self._chat.asks)


@asynccontextmanager
async def asker(chat: Chat, answers: Answers) -> AsyncIterator[Asker]:
    """Open a connection, or load the model.

    Args:
        chat: the settings.
        answers: where they are kept.

    Raises:
        ValueError: a package is not installed, no model is named, or it cannot be loaded.
    """
    if not chat.model:
        name = "the server's model" if chat.engine == "server" else "the model to load"
        raise ValueError(f"curate: chat.model must name {name}, got ''")
    model: Model = ChatServer(chat) if chat.engine == "server" else VllmModel(chat)
    try:
        yield Asker(chat, model, answers)
    finally:
        await model.close()


@dataclass(frozen=True, kw_only=True)
class ChatStage(AskingStage):
    """A stage that asks a chat model about each record."""

    asked: ClassVar[tuple[str, ...]]
    """Names of its prompts."""

    chat: Chat = field(default_factory=Chat)
    """The model."""
    replace: bool = False
    """Also write captions, or negatives, where there are some."""
    prompts: Path | None = None
    """Folder with edited prompts, which `fgclip curate prompts` writes."""

    def identity(self) -> dict[str, Any]:
        """The settings that answers depend on; edited prompts by their content."""
        digests = {name: prompt_digest(name, self.prompts) for name in self.asked}
        return {**super().identity(), "chat": self.chat.identity(), "prompts": digests}

    @property
    def concurrency(self) -> int:
        """Records under way at once: each has a request at least."""
        return self.chat.concurrency

    @asynccontextmanager
    async def session(self, answers: Answers) -> AsyncIterator[Callable[[Item], Awaitable[Done]]]:
        """Connects to the model."""
        async with asker(self.chat, answers) as model:
            yield partial(self.answered, model)

    async def answered(self, model: Asker, item: Item) -> Done:
        """A record with the model's answers.

        Raises:
            LeftOut: there is none that can be used.
        """
        raise NotImplementedError


def _read(reply: Reply, form: type[Form], fault_of: Callable[[Form], str | None]) -> tuple[str, str]:
    """The fault of a reply, empty if there is none, and its text."""
    if reply.refusal:
        return REFUSAL, reply.refusal
    if not reply.text.strip():
        return EMPTY, reply.text
    fenced = _FENCED.fullmatch(reply.text)
    text = fenced[1] if fenced else reply.text
    try:
        answer = form.model_validate_json(text)
    except ValidationError as error:
        return (CUT if reply.cut else UNFIT), f"{text[:200]} ({error.errors()[0]['msg']})"
    return fault_of(answer) or "", text
