"""Stands for the parts of vLLM that we use: its engine passes each question on to the stub server."""

import asyncio
import json
import os
import sys
import types
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from tests.curate.stub import Stub


class VLLMError(Exception):
    """Of vllm.exceptions."""


class Settings(SimpleNamespace):
    """AsyncEngineArgs, SamplingParams and the like: they hold what they are given."""


class Renderer:
    """Keeps the messages as they are."""

    default_chat_tok_params = SimpleNamespace(with_kwargs=lambda **given: Settings(**given))

    async def render_chat_async(self, conversations: Any, chat: Any, tokens: Any) -> Any:
        """The conversations."""
        assert chat.chat_template_kwargs["add_generation_prompt"] and not tokens.add_special_tokens
        return None, conversations


class Engine:
    """An engine, whose answers come through a task of its own, as vLLM's do."""

    stub: ClassVar[Stub]
    opened: ClassVar[list["Engine"]] = []
    dies_at: ClassVar[int] = 0

    renderer = Renderer()
    model_config = SimpleNamespace(get_diff_sampling_param=lambda: {"top_p": 0.9, "temperature": 0.7})

    def __init__(self, arguments: Settings) -> None:
        if arguments.model == "nowhere":
            os.write(1, b"(EngineCore pid=7) ERROR [core.py:1] ValueError: no such weights\n")  # as its process does
            raise RuntimeError("Engine core initialization failed.")
        self.arguments, self.errored, self.sampled = arguments, False, list[Any]()
        self._waiting: asyncio.Queue[Any] = asyncio.Queue()
        self._handler = asyncio.create_task(self._handle())
        Engine.opened.append(self)

    from_engine_args = classmethod(lambda cls, arguments: cls(arguments))

    async def _handle(self) -> None:
        running = set()
        while True:
            question, answer = await self._waiting.get()
            running.add(asyncio.create_task(self._answer(question, answer)))

    async def _answer(self, question: Any, answer: asyncio.Future[Any]) -> None:
        try:
            body = await asyncio.to_thread(self._ask, question)
        except urllib.error.HTTPError as error:
            answer.set_exception(VLLMError(f"the prompt is too long ({error.code})"))
            return
        choice, usage = body["choices"][0], body["usage"]
        one = SimpleNamespace(
            text=choice["message"]["content"], finish_reason=choice["finish_reason"],
            token_ids=[0] * usage["completion_tokens"],
        )  # fmt: skip
        answer.set_result(SimpleNamespace(outputs=[one], prompt_token_ids=[0] * usage["prompt_tokens"]))

    def _ask(self, question: Any) -> Any:
        request = urllib.request.Request(f"{Engine.stub.url}/chat/completions", json.dumps(question).encode())
        with urllib.request.urlopen(request) as reply:
            return json.load(reply)

    async def generate(self, messages: Any, sampling: Settings, request_id: str) -> AsyncIterator[Any]:
        """The answer of the stub; the engine dies at the request of the number ``dies_at``."""
        self.sampled.append(sampling)
        if self.errored or request_id == str(Engine.dies_at):
            self.errored = True
            raise VLLMError("EngineCore encountered an issue.")
        schema = {"json_schema": {"schema": sampling.structured_outputs.json}}
        answer = asyncio.get_running_loop().create_future()
        assert not self._handler.done(), "the engine's own task was cancelled"
        self._waiting.put_nowait(({"messages": messages, "response_format": schema}, answer))
        yield await answer

    def shutdown(self, timeout: float) -> None:
        """Stop answering."""
        with suppress(RuntimeError):  # the loop may be closed
            self._handler.cancel()
        Engine.opened.remove(self)


def install(patch: pytest.MonkeyPatch, stub: Stub) -> type[Engine]:
    """Put these in the place of the package ``vllm`` for a test."""
    patch.setattr(Engine, "stub", stub, raising=False)
    patch.setattr(Engine, "opened", [])
    parts = {
        "vllm": {"AsyncEngineArgs": Settings, "AsyncLLMEngine": Engine, "SamplingParams": Settings},
        "vllm.exceptions": {"VLLMError": VLLMError},
        "vllm.renderers": {"ChatParams": Settings},
        "vllm.sampling_params": {
            "RequestOutputKind": SimpleNamespace(FINAL_ONLY=2), "StructuredOutputsParams": Settings,
        },
    }  # fmt: skip
    for name, values in parts.items():
        module = types.ModuleType(name)
        vars(module).update(values)
        patch.setitem(sys.modules, name, module)
    return Engine
