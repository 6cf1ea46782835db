"""A chat model behind an OpenAI-compatible endpoint: vLLM, SGLang, llama.cpp, or a hosted one."""

from functools import partial
from typing import Any

from pydantic import BaseModel

from fgclip_fast.curate.models.chat_model import Chat, Reply
from fgclip_fast.curate.models.endpoint import Calls, open_client


class ChatServer:
    """A :class:`Model` behind a server.

    Args:
        chat: the model and its address.

    Raises:
        ValueError: openai is not installed.
    """

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._client = open_client(chat.url, chat.key, chat.timeout, chat.retries)
        self._calls = Calls(chat.concurrency, chat.url)

    async def reply(self, content: list[dict[str, Any]], form: type[BaseModel], seed: int) -> Reply:
        """Answer one request."""
        completion = await self._calls.call(partial(self._request, content, form, seed))
        choice = completion.choices[0] if completion.choices else None
        message, usage = getattr(choice, "message", None), completion.usage
        return Reply(
            text=getattr(message, "content", None) or "",
            refusal=str(getattr(message, "refusal", None) or ""),
            cut=choice is not None and choice.finish_reason == "length",
            tokens_in=usage.prompt_tokens if usage else 0,
            tokens_out=usage.completion_tokens if usage else 0,
        )

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

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()
