"""The answers that models gave, where the output lies in object storage: a file for each shard."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from fgclip_fast.curate.places.answers import PUT, SHARD, Answer, Answers

OFTEN, MANY = 30.0, 100
"""Seconds, and number of answers, after which they are sent."""
_Kept = dict[str, tuple[str, float]]  # key in hexadecimal numbers → answer as JSON, and its time


class StoredAnswers(Answers):
    """The answers of one stage in one process. Those of the shards under way are sent often, so a kill loses few.

    Args:
        read: gives what is stored of a shard; None: nothing.
        write: stores that of a shard.
        again: forget answers with a fault, so that they are asked for again.
    """

    def __init__(self, read: Callable[[str], Any], write: Callable[[str, Any], None], again: bool) -> None:
        super().__init__("", again)  # a file that SQLite deletes, whatever ends this process
        self._read, self._write = read, write
        self._shards: dict[str, _Kept] = {}
        self._unsent: Counter[str] = Counter()
        self._sender = ThreadPoolExecutor(1)
        self._sending: Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, shard: str) -> None:
        """Fetch the answers of a shard."""
        kept = self._read(shard) or {}
        self._base.executemany(PUT, ((bytes.fromhex(key), *row) for key, row in kept.items()))
        self._shards[shard] = kept

    def get(self, key: bytes) -> Answer | None:
        """The answer to a question, which may be that of another shard."""
        answer = super().get(key)
        if answer is not None and key.hex() not in self._shards.get(SHARD.get(), {}):
            self._keep(key, answer)
        return answer

    def put(self, key: bytes, answer: Answer) -> Answer:
        """Keep an answer.

        Raises:
            OSError: earlier ones could not be sent.
        """
        if self._sending is not None and self._sending.done():
            self._sending.result()
        kept = super().put(key, answer)
        self._keep(key, kept)
        return kept

    def end(self, shard: str) -> None:
        """Send the answers of a shard, and forget which they are."""
        kept = self._shards.pop(shard)
        if self._unsent.pop(shard, 0):
            self._sender.submit(self._write, shard, kept).result()

    def save(self) -> None:
        """Send the answers of all shards that have not ended."""
        for shard in [*self._shards]:
            self.end(shard)

    def close(self) -> None:
        """Close the file."""
        if self._timer is not None:
            self._timer.cancel()
        self._sender.shutdown()
        super().close()

    def _keep(self, key: bytes, answer: Answer) -> None:
        shard = SHARD.get()
        if shard not in self._shards:
            return
        self._shards[shard][key.hex()] = (json.dumps(answer), time.time())
        self._unsent[shard] += 1
        if self._unsent.total() >= MANY:
            self._send()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(OFTEN, self._send)

    def _send(self) -> None:
        """Send what is new, in a thread, while more is asked; not while the last is still being sent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sending is not None and not self._sending.done():
            self._timer = asyncio.get_running_loop().call_later(OFTEN, self._send)
            return
        copied = {shard: dict(self._shards[shard]) for shard in self._unsent}
        self._sending = self._sender.submit(self._write_all, copied)
        self._unsent.clear()

    def _write_all(self, shards: dict[str, _Kept]) -> None:
        for shard, kept in shards.items():
            self._write(shard, kept)
