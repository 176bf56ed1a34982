"""The SQLite file below a cache of scores. A file that cannot be used costs the run the cache, and nothing else.

sqlite3 scores.sqlite "select model, json_array_length(logprobs) from scores limit 5"
"""

import asyncio
import shlex
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
TABLE = """
CREATE TABLE IF NOT EXISTS scores (
    key TEXT PRIMARY KEY,  -- SHA-256 of teacher, prompt ids, response ids, and what is asked of them
    model TEXT NOT NULL,
    token_ids TEXT NOT NULL,
    logprobs TEXT NOT NULL,
    topk_ids TEXT,
    topk_logprobs TEXT,
    at_logprobs TEXT  -- of the ids that a request names, which are in its key; null: of none
) WITHOUT ROWID
"""
BUSY_SECONDS = 30.0
"""How long a write waits for another process's."""
SELECT = "SELECT token_ids, logprobs, topk_ids, topk_logprobs, at_logprobs FROM scores WHERE key = ?"
INSERT = "INSERT OR IGNORE INTO scores VALUES (?, ?, ?, ?, ?, ?, ?)"
StoredRow = tuple[str, str, str | None, str | None, str | None]


@dataclass(slots=True)
class ScoreFile:
    """One file for all teachers of a run that name it. Several processes may use it: SQLite orders their writes.

    Its first error is the last: the user is warned once, with a way to fix it, and from then on it is as if empty.
    """

    path: str
    warn: Callable[[str], None]
    is_usable: bool = True
    _database: sqlite3.Connection | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    """Held around every use of the connection, its end too: a thread may still be at work when the run ends."""

    async def open(self) -> None:
        """Create or open the file; a second call does nothing."""
        await self._attempt(self._connect)

    async def find(self, key: str) -> StoredRow | None:
        """The row under `key`; None if there is no such row, or the file cannot be read."""
        return await self._attempt(self._select, key)

    async def insert(self, values: Sequence[str | None]) -> None:
        """Insert a row, key first; a second row of the same key changes nothing."""
        await self._attempt(self._insert, values)

    async def give_up(self, reason: str, fix: str) -> None:
        """Do without the file from now on, and warn of that once."""
        if not self.is_usable:
            return
        self.is_usable = False
        self.warn(f"cache {self.path}: {reason}; the run goes on without it; {fix}")
        await self.close()

    async def close(self) -> None:
        """Close the file once no thread uses it."""
        await asyncio.to_thread(self._disconnect)

    @property
    def removal(self) -> str:
        """The command that removes a damaged file and SQLite's files beside it, which a new file would take over."""
        return "rm -f " + " ".join(shlex.quote(f"{self.path}{ending}") for ending in ("", "-wal", "-shm"))

    async def _attempt(self, work: Callable[..., T | None], *arguments: object) -> T | None:
        if not self.is_usable:
            return None
        try:
            return await asyncio.to_thread(work, *arguments)
        except sqlite3.Error as error:
            await self.give_up(str(error), self._remedy(error))
        except OSError as error:  # of its folder
            await self.give_up(str(error), "name a file in a folder that can be written")
        return None

    def _connect(self) -> None:
        with self._lock:
            if self._database is not None:
                return
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(self.path, timeout=BUSY_SECONDS, check_same_thread=False, isolation_level=None)
            try:
                with suppress(sqlite3.OperationalError):  # another process is just doing it, or the next line fails too
                    database.execute("PRAGMA journal_mode=WAL")  # readers and one writer do not wait for each other
                database.execute(TABLE)
                database.execute(SELECT, ("",))  # a table of that name may be another program's
            except sqlite3.Error:
                database.close()
                raise
            self._database = database

    def _disconnect(self) -> None:
        with self._lock:
            database, self._database = self._database, None
            if database is not None:
                database.close()

    def _select(self, key: str) -> StoredRow | None:
        with self._lock:
            if self._database is None:
                return None
            row: StoredRow | None = self._database.execute(SELECT, (key,)).fetchone()
        return row

    def _insert(self, values: Sequence[str | None]) -> None:
        with self._lock:
            if self._database is not None:
                self._database.execute(INSERT, values)

    def _remedy(self, error: sqlite3.Error) -> str:
        """By SQLite's primary result code, the low byte of the extended one."""
        match getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF:
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                return f"it is damaged, or no SQLite file: if it is only a cache, {self.removal}"
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return f"another process has kept it locked for {BUSY_SECONDS:g} s: end that, or name another file"
            case sqlite3.SQLITE_FULL:
                return "free some space on its disk"
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
                return "let this user write to it and to its folder, or name another file"
            case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_PROTOCOL:
                return "name a file on a local disk that works; SQLite cannot rely on network shares"
        return "it is no cache of scores, or one of another version: name another file"
