"""The answers that models gave, in one SQLite file, so that nothing is asked twice."""

import hashlib
import json
import sqlite3
import time
from pathlib import Path
from typing import Any, NamedTuple


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


class Answers:
    """The answers of one stage. A kill at any moment loses none that was put.

    Args:
        file: the SQLite file; several processes may use it.
        again: forget answers with a fault, so that they are asked for again.
    """

    def __init__(self, file: Path, again: bool) -> None:
        self._again, self._began = again, time.time()
        self._base = sqlite3.connect(file, timeout=60, isolation_level=None)
        self._base.execute("PRAGMA journal_mode=WAL")
        self._base.execute("PRAGMA synchronous=NORMAL")
        self._base.execute("CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, answer TEXT, time REAL)")

    def get(self, key: bytes) -> Answer | None:
        """The answer to a question; None if it has to be asked."""
        row = self._base.execute("SELECT answer, time FROM answers WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        answer = Answer(*json.loads(row[0]))
        return None if answer.fault and self._again and row[1] < self._began else answer

    def put(self, key: bytes, answer: Answer) -> None:
        """Keep an answer."""
        self._base.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", (key, json.dumps(answer), time.time()))

    def close(self) -> None:
        """Close the file."""
        self._base.close()


def key_of(*parts: Any) -> bytes:
    """The key of a question: a digest of what its answer depends on, as JSON."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def digest_of(image: bytes | None) -> str:
    """A digest of an image file; empty without one."""
    return "" if image is None else hashlib.blake2b(image, digest_size=16).hexdigest()
