"""Scores that were paid for once: an SQLite file, addressed by what was asked.

sqlite3 scores.sqlite "select model, json_array_length(logprobs) from scores limit 5"
"""

import asyncio
import hashlib
import json
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from distillkit.errors import InputError
from distillkit.types import logprob_array, token_ids
from distillkit_builtin.http.dialects.dialect import Question, Reading

TABLE = """
CREATE TABLE IF NOT EXISTS scores (
    key TEXT PRIMARY KEY,  -- SHA-256 of teacher, prompt ids and response ids
    model TEXT NOT NULL,
    token_ids TEXT NOT NULL,
    logprobs TEXT NOT NULL,
    topk_ids TEXT,
    topk_logprobs TEXT
) WITHOUT ROWID
"""
BUSY_SECONDS = 30.0
"""How long a write waits for another process's."""
SELECT = "SELECT token_ids, logprobs, topk_ids, topk_logprobs FROM scores WHERE key = ?"
INSERT = "INSERT OR IGNORE INTO scores VALUES (?, ?, ?, ?, ?, ?)"
StoredRow = tuple[str, str, str | None, str | None]


@dataclass(slots=True)
class ScoreCache:
    """One teacher's part of the file. Several processes may use it at once; SQLite orders their writes."""

    fingerprint: str
    """Which model it was, as far as the server tells: its name and root, and K."""
    _database: sqlite3.Connection
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def open(cls, path: str, fingerprint: str) -> "ScoreCache":
        """Make or open the file. Raises InputError if it is no such file or cannot be written."""
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(path, timeout=BUSY_SECONDS, check_same_thread=False, isolation_level=None)
            database.execute("PRAGMA journal_mode=WAL")  # readers and one writer do not wait for each other
            database.execute(TABLE)
            database.execute(SELECT, ("",))  # a table of that name may be another program's
        except (sqlite3.Error, OSError) as error:
            raise InputError(f"cache {path}: {error}; name another file, or remove this one") from error
        return cls(fingerprint, database)

    async def get(self, question: Question) -> Reading | None:
        """What was answered before, or None."""
        row = await asyncio.to_thread(self._select, self.key(question))
        if row is None:
            return None
        ids, logprobs, topk_ids, topk_logprobs = row
        return Reading(
            token_ids(json.loads(ids)),
            logprob_array(json.loads(logprobs)),
            None if topk_ids is None else np.array(json.loads(topk_ids), np.int64),
            None if topk_logprobs is None else np.array(json.loads(topk_logprobs), np.float32),
        )

    async def put(self, question: Question, reading: Reading) -> None:
        """Keep an answer; the same one twice is one."""
        arrays = (reading.ids, reading.logprobs, reading.topk_ids, reading.topk_logprobs)
        texts = [None if array is None else json.dumps(array.tolist()) for array in arrays]
        await asyncio.to_thread(self._insert, [self.key(question), question.model, *texts])

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def key(self, question: Question) -> str:
        """64 hex digits."""
        digest = hashlib.sha256(self.fingerprint.encode())
        for ids in (question.prompt_ids, question.response_ids):
            digest.update(len(ids).to_bytes(8, "little") + ids.astype("<i8").tobytes())
        return digest.hexdigest()

    def _select(self, key: str) -> StoredRow | None:
        with self._lock:
            row: StoredRow | None = self._database.execute(SELECT, (key,)).fetchone()
        return row

    def _insert(self, values: Sequence[str | None]) -> None:
        with self._lock:
            self._database.execute(INSERT, values)
