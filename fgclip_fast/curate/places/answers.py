"""The answers that models gave, in one SQLite file, so that nothing is asked twice."""

import hashlib
import json
import sqlite3
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

FILE = "answers.sqlite"
"""Its name in the folder of what continuation needs."""


class Answer(NamedTuple):
    """An answer, or why there is no usable one."""

    content: str
    """The answer as JSON; empty if there is no usable one."""
    fault: str = ""
    detail: str = ""
    tokens_in: int = 0
    """Tokens of all requests that this answer took."""
    tokens_out: int = 0
    requests: int = 1
    owner: str = ""
    """What it was first asked for; others that need the same answer do not pay for it."""


SHARD: ContextVar[str] = ContextVar("SHARD")
"""The shard that a question is asked for, in the task of its record."""
PUT = """INSERT INTO answers VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE
    SET answer = excluded.answer, time = excluded.time WHERE json_extract(answers.answer, '$[1]') != ''"""
"""Keeps a key, an answer as JSON and its time; a usable answer stays."""


class Answers:
    """The answers of one stage. A kill at any moment loses none that was put.

    Args:
        file: the SQLite file; several processes may use it. Empty: one of its own, which goes with it.
        again: forget answers with a fault, so that they are asked for again.
        shared: processes of several machines use it, which cannot share the memory of a write-ahead log.
    """

    def __init__(self, file: Path | str, again: bool, shared: bool = False) -> None:
        self._again, self._began = again, time.time()
        self._base = sqlite3.connect(file, timeout=60, isolation_level=None)
        self._base.execute(f"PRAGMA journal_mode={'TRUNCATE' if shared else 'WAL'}")
        self._base.execute("PRAGMA synchronous=NORMAL")
        self._base.execute("CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, answer TEXT, time REAL)")

    def get(self, key: bytes) -> Answer | None:
        """The answer to a question; None if it has to be asked."""
        row = self._base.execute("SELECT answer, time FROM answers WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        answer = Answer(*json.loads(row[0]))
        return None if answer.fault and self._again and row[1] < self._began else answer

    def put(self, key: bytes, answer: Answer) -> Answer:
        """Keep an answer, unless another process has kept a usable one meanwhile; return the one that is kept."""
        self._base.execute(PUT, (key, json.dumps(answer), time.time()))
        return self.get(key) or answer

    def begin(self, shard: str) -> None:
        """Questions for a shard will be asked."""

    def end(self, shard: str) -> None:
        """No more will be asked for it."""

    def save(self) -> None:
        """Nothing more will be asked, since the work ends early."""

    def close(self) -> None:
        """Close the file."""
        self._base.close()


def key_of(*parts: Any) -> bytes:
    """The key of a question: a digest of what its answer depends on, as JSON."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def digest_of(image: bytes | None) -> str:
    """A digest of an image file; empty without one."""
    return "" if image is None else hashlib.blake2b(image, digest_size=16).hexdigest()
