"""A chat model in this process, by vLLM: the requests that are under way at once are its batch."""

import asyncio
import multiprocessing
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel, ValidationError

from fgclip_fast.curate.models.chat_model import Chat, Reply
from fgclip_fast.curate.models.endpoint import REFUSED
from fgclip_fast.curate.stage import LeftOut

_OURS = {"limit_mm_per_prompt": {"image": 1}, "disable_log_stats": True}
_GRACE = 20.0  # seconds for the engine's processes to end, before they are killed
_LONGEST = 300  # letters of an error
_ERROR = re.compile(r"\b\w*(?:Error|Exception): (?!.*root cause).*\S")


class VllmModel:
    """A :class:`Model` that vLLM runs, on the GPUs that this process sees.

    Args:
        chat: the model and the settings of the engine.

    Raises:
        ValueError: vLLM is not installed, or cannot load the model.
    """

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._printed = Printed()
        self._engine = _loaded(chat, self._printed)
        self._guard = _guarded()
        self._defaults = self._engine.model_config.get_diff_sampling_param()  # of the model's generation_config.json
        self._slots, self._requests = asyncio.Semaphore(chat.concurrency), 0

    async def reply(self, content: list[dict[str, Any]], form: type[BaseModel], seed: int) -> Reply:
        """Answer one request."""
        from vllm.exceptions import VLLMError

        try:
            async with self._slots:
                output = await self._generated(content, form, seed)
        except (VLLMError, ValueError, OSError) as error:
            if self._engine.errored:
                died = f"curate: vLLM's engine has died: {_cause(error, self._printed)}"
                raise OSError(f"{died}; the same command goes on from here") from None
            raise LeftOut(REFUSED, str(error), again=True) from None
        answer = output.outputs[0]
        return Reply(
            text=answer.text,
            cut=answer.finish_reason == "length",
            tokens_in=len(output.prompt_token_ids),
            tokens_out=len(answer.token_ids),
        )

    async def _generated(self, content: list[dict[str, Any]], form: type[BaseModel], seed: int) -> Any:
        from vllm import SamplingParams
        from vllm.renderers import ChatParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        renderer = self._engine.renderer
        # As `vllm serve` does: the template ends with the model's turn, and writes the special tokens itself.
        template = ChatParams(chat_template_kwargs={"add_generation_prompt": True, "tokenize": False})
        tokens = renderer.default_chat_tok_params.with_kwargs(add_special_tokens=False)
        _, (question,) = await renderer.render_chat_async([[{"role": "user", "content": content}]], template, tokens)
        ours = {"temperature": self._chat.temperature, "max_tokens": self._chat.max_tokens, "seed": seed}
        sampling = SamplingParams(
            **{**self._defaults, **ours},
            structured_outputs=StructuredOutputsParams(json=form.model_json_schema()),
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        self._requests += 1
        async for output in self._engine.generate(question, sampling, str(self._requests)):
            last = output
        return last

    async def close(self) -> None:
        """End the engine and its processes."""
        self._engine.shutdown(timeout=_GRACE)
        del self._engine  # here: at the end of the interpreter it would fail
        self._guard.kill()
        self._guard.communicate()


def _loaded(chat: Chat, printed: "Printed") -> Any:
    """A ``vllm.AsyncLLMEngine``.

    Raises:
        ValueError: vLLM is not installed, or cannot load the model.
    """
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    try:
        with printed.kept():
            from vllm import AsyncEngineArgs, AsyncLLMEngine

            arguments = AsyncEngineArgs(model=chat.model, **_OURS | chat.vllm.arguments())
            return AsyncLLMEngine.from_engine_args(arguments)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"curate: chat.engine vllm needs vLLM ({error.name} is missing); pip install 'fgclip_fast[vllm]'"
        ) from None
    except Exception as error:  # of any kind
        raise ValueError(f"curate: vLLM cannot load chat.model {chat.model!r}: {_cause(error, printed)}") from None


def _guarded() -> subprocess.Popen[bytes]:
    """A process that ends vLLM's when this one is killed, which then cannot: they would keep the GPU's memory."""
    engines = " ".join(str(child.pid) for child in multiprocessing.active_children())
    waiting = f"read -r _; kill {engines}" if engines else "read -r _"
    return subprocess.Popen(["sh", "-c", waiting], stdin=subprocess.PIPE, start_new_session=True)


def _cause(error: Exception, printed: "Printed") -> str:
    """What has gone wrong, in the words of vLLM and of the process in which it did."""
    said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
    return f"{said} ({printed.error})" if printed.error else said


class Printed:
    """What vLLM's processes print: it is passed on to standard error, and the last error in it is kept."""

    def __init__(self) -> None:
        self.error = ""
        """The last error; empty if there was none."""

    @contextmanager
    def kept(self) -> Iterator[None]:
        """A context whose processes print here, for as long as they live."""
        before = os.dup(1), os.dup(2)
        read, write = os.pipe()
        reader = threading.Thread(target=self._read, args=(read, before[1]), daemon=True)
        reader.start()
        for number in (1, 2):
            os.dup2(write, number)
        os.close(write)
        try:
            yield
        except BaseException:
            self._back(before)
            reader.join(timeout=2)  # until all is read, unless a process stays
            raise
        self._back(before)

    def _back(self, before: tuple[int, int]) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.dup2(before[0], 1)
        os.dup2(before[1], 2)
        os.close(before[0])

    def _read(self, read: int, standard_error: int) -> None:
        with open(read, "rb") as lines:
            for line in lines:
                os.write(standard_error, line)
                if found := _ERROR.search(line.decode(errors="replace")):
                    self.error = found[0][:_LONGEST]
        os.close(standard_error)
