"""Calls to a server: how many at once, and what their errors mean. The client of openai does the retries."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

from fgclip_fast.curate.stage import LeftOut

NO_ANSWER, REFUSED = "no answer from the server", "request refused by the server"
"""Causes that are counted."""
_ALL_FAILED = 64  # requests that fail one after another; then the server is taken to be down


def open_client(url: str, key: str, timeout: float, retries: int) -> Any:
    """An ``openai.AsyncOpenAI``, which does the retries.

    Raises:
        ValueError: openai is not installed.
    """
    try:
        import openai
    except ModuleNotFoundError:
        raise ValueError("curate: to ask a model needs openai; pip install 'fgclip_fast[curate]'") from None
    for name in ("httpx", "httpx2"):  # a line for each request
        logging.getLogger(name).setLevel(logging.WARNING)
    return openai.AsyncOpenAI(base_url=url, api_key=os.environ.get(key) or "none", timeout=timeout, max_retries=retries)


class Calls:
    """Makes calls to a server, a bounded number at once, and tells what their errors mean.

    Args:
        concurrency: calls under way at once.
        url: for messages.
    """

    def __init__(self, concurrency: int, url: str) -> None:
        self._slots, self._url = asyncio.Semaphore(concurrency), url
        self._failed = 0

    async def call(self, request: Callable[[], Awaitable[Any]]) -> Any:
        """Await a request.

        Raises:
            LeftOut: it failed after all tries.
            ValueError: the server does not know the key, the model or the address.
            OSError: the server does not answer any more.
        """
        import openai

        try:
            async with self._slots:
                answer = await request()
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise ValueError(f"curate: {self._url} refuses every request: {error}") from None
        except openai.APIStatusError as error:
            if error.status_code < 500 and error.status_code not in (408, 409, 429):
                raise LeftOut(REFUSED, str(error), again=True) from None
            raise self._no_answer(str(error)) from None
        except openai.APIConnectionError as error:  # time-outs too
            raise self._no_answer(f"{error} {error.__cause__ or ''}") from None
        self._failed = 0
        return answer

    def _no_answer(self, detail: str) -> Exception:
        self._failed += 1
        if self._failed >= _ALL_FAILED:
            return OSError(
                f"curate: {self._url} has failed {self._failed} times running ({detail.strip()}); the same command"
                " goes on when it answers again"
            )
        return LeftOut(NO_ANSWER, detail, again=True)
