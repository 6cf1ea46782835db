"""Ask a model behind an OpenAI-compatible endpoint: vLLM, SGLang, llama.cpp, or a hosted one."""

import asyncio
import base64
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ValidationError

from fgclip_fast.config.rules import NotNegative, Positive, check
from fgclip_fast.curate.answers import Answer, Answers, digest_of, key_of
from fgclip_fast.curate.endpoint import Calls, open_client
from fgclip_fast.curate.pixels import sendable
from fgclip_fast.curate.prompts import digest_of as prompt_digest
from fgclip_fast.curate.stage import AskingStage, Done, Item, LeftOut
from fgclip_fast.curate.texts import EMPTY, REFUSAL

Form = TypeVar("Form", bound=BaseModel)
CUT, UNFIT = "answer cut at max_tokens", "answer that does not fit the schema"
"""Faults of answers, as they are counted, beside those of texts."""
_FENCED = re.compile(r"\s*```(?:json)?\s*(.*?)\s*```\s*", re.DOTALL)
_OPERATION = ("url", "key", "concurrency", "timeout", "retries", "price_in", "price_out")


@dataclass(frozen=True, kw_only=True)
class Chat:
    """A model behind an OpenAI-compatible endpoint."""

    model: str = ""
    """Name of the model, as the server has it."""
    url: str = "http://localhost:8000/v1"
    """Address of the server, /v1 included."""
    key: str = "OPENAI_API_KEY"
    """Environment variable that holds the server's key; a server of one's own needs none."""
    temperature: NotNegative[float] = 0.0
    """Of sampling; an answer that cannot be used is asked for again with another seed."""
    max_tokens: Positive[int] = 512
    """Tokens of an answer."""
    image_side: Positive[int] = 1024
    """Longest side of an image that is sent, pixels; larger ones are made smaller."""
    asks: Positive[int] = 3
    """Times that a question is asked until its answer can be used."""
    concurrency: Positive[int] = 64
    """Requests under way at once."""
    timeout: Positive[float] = 300.0
    """Seconds to wait for an answer."""
    retries: NotNegative[int] = 8
    """Tries after status 429, 5xx, a time-out or a cut connection; Retry-After is honoured, up to two minutes."""
    price_in: NotNegative[float] = 0.0
    """US dollars of a million tokens that are sent, for the report."""
    price_out: NotNegative[float] = 0.0
    """US dollars of a million tokens that are received."""

    def __post_init__(self) -> None:
        check(self, "curate: chat.")

    def identity(self) -> dict[str, Any]:
        """The settings that answers depend on."""
        return {name: value for name, value in asdict(self).items() if name not in _OPERATION}

    def cost(self, counts: Counter[str]) -> float:
        """US dollars of the tokens that were counted."""
        return (self.price_in * counts["tokens in"] + self.price_out * counts["tokens out"]) / 1e6


class Asker:
    """Asks a chat model, and keeps its answers.

    Args:
        chat: the model and its address.
        client: an ``openai.AsyncOpenAI``.
        answers: where they are kept.
    """

    def __init__(self, chat: Chat, client: Any, answers: Answers) -> None:
        self._chat, self._client, self._answers = chat, client, answers
        self._calls = Calls(chat.concurrency, chat.url)
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
            reply = await self._calls.call(partial(self._request, content, form, attempt))
            if reply.usage is not None:
                tokens_in += reply.usage.prompt_tokens
                tokens_out += reply.usage.completion_tokens
            fault, text = _read(reply, form, fault_of)
            if not fault:
                return Answer(text, "", "", tokens_in, tokens_out, attempt + 1)
        return Answer("", fault, text[:300], tokens_in, tokens_out, self._chat.asks)

    async def _request(self, content: list[dict[str, Any]], form: type[BaseModel], seed: int) -> Any:
        schema = {"name": form.__name__, "schema": form.model_json_schema(), "strict": True}
        return await self._client.chat.completions.create(
            model=self._chat.model,
            messages=[{"role": "user", "content": content}],
            response_format={"type": "json_schema", "json_schema": schema},
            temperature=self._chat.temperature,
            max_tokens=self._chat.max_tokens,
            seed=seed,
        )


@asynccontextmanager
async def asker(chat: Chat, answers: Answers) -> AsyncIterator[Asker]:
    """Open a connection.

    Args:
        chat: the model and its address.
        answers: where they are kept.

    Raises:
        ValueError: openai is not installed, or no model is named.
    """
    if not chat.model:
        raise ValueError("curate: chat.model must name the server's model, got ''")
    client = open_client(chat.url, chat.key, chat.timeout, chat.retries)
    try:
        yield Asker(chat, client, answers)
    finally:
        await client.close()


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


def _read(reply: Any, form: type[Form], fault_of: Callable[[Form], str | None]) -> tuple[str, str]:
    """The fault of a reply, empty if there is none, and its text."""
    choice = reply.choices[0] if reply.choices else None
    text = (choice.message.content if choice is not None else None) or ""
    if choice is not None and getattr(choice.message, "refusal", None):
        return REFUSAL, str(choice.message.refusal)
    if not text.strip():
        return EMPTY, text
    fenced = _FENCED.fullmatch(text)
    text = fenced[1] if fenced else text
    try:
        answer = form.model_validate_json(text)
    except ValidationError as error:
        cut = choice is not None and choice.finish_reason == "length"
        return (CUT if cut else UNFIT), f"{text[:200]} ({error.errors()[0]['msg']})"
    return fault_of(answer) or "", text
