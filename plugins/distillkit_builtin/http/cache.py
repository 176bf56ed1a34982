"""Scores that were paid for once: one teacher's part of a `ScoreFile`, addressed by what was asked."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from pydantic import Field, Json, JsonValue, TypeAdapter

from distillkit.arrays import logprob_array, token_ids
from distillkit.errors import AlignmentError
from distillkit_builtin.http.dialects.dialect import (
    Question,
    Reading,
    TokenId,
    require_length,
    require_possible,
    validated,
)
from distillkit_builtin.http.score_file import ScoreFile, StoredRow

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_ROW = TypeAdapter(
    tuple[
        Json[list[TokenId]],
        Json[list[Number]],
        Json[list[list[TokenId]]] | None,
        Json[list[list[Number]]] | None,
    ]
)


@dataclass(slots=True)
class ScoreCache:
    """What one teacher has scored before."""

    file: ScoreFile
    identity: str
    """What tells this teacher's scores from another's: the model and its weights as far as the server tells, and K."""
    name: str
    """In metrics."""
    _hits: int = 0
    _misses: int = 0
    _failed: int = 0

    async def get(self, question: Question) -> Reading | None:
        """What was answered before, or None."""
        row = await self.file.find(self.key(question))
        reading = None if row is None else await self._read(row, question)
        if reading is not None:
            self._hits += 1
        elif self.file.is_usable:
            self._misses += 1
        else:
            self._failed += 1
        return reading

    async def put(self, question: Question, reading: Reading) -> None:
        """Keep an answer; the same one twice is one."""
        was_usable = self.file.is_usable
        arrays = (reading.ids, reading.logprobs, reading.topk_ids, reading.topk_logprobs)
        texts = [None if array is None else json.dumps(array.tolist()) for array in arrays]
        await self.file.keep([self.key(question), question.model, *texts])
        if was_usable and not self.file.is_usable:
            self._failed += 1

    def key(self, question: Question) -> str:
        """64 hex digits."""
        digest = hashlib.sha256(self.identity.encode())
        for ids in (question.prompt_ids, question.response_ids):
            digest.update(len(ids).to_bytes(8, "little") + ids.astype("<i8").tobytes())
        return digest.hexdigest()

    def metrics(self) -> Mapping[str, float]:
        """Since the last call, as `cache/<name>/...`.

        `hits` (scores that were there), `misses` (that had to be asked for), `failed` (that could not be looked up or
        kept, all that came after the file was given up among them).
        """
        counts = {"hits": self._hits, "misses": self._misses, "failed": self._failed}
        self._hits = self._misses = self._failed = 0
        return {f"cache/{self.name}/{name}": float(count) for name, count in counts.items()}

    async def _read(self, row: StoredRow, question: Question) -> Reading | None:
        """A row was right when it was written; one that is not any more says that the file is damaged."""
        try:
            return stored_reading(row, question)
        except AlignmentError as error:
            await self.file.give_up(f"a score in it is none ({error})", f"it is damaged: {self.file.removal}")
            return None


def stored_reading(row: StoredRow, question: Question) -> Reading:
    """A row as the reading that it was. Raises AlignmentError if it is not one of `question`."""
    ids, logprobs, topk_ids, topk_logprobs = validated(_ROW, row, "row")
    if ids != question.response_ids.tolist():
        raise AlignmentError("its ids are not those of the response")
    require_length(logprobs, len(ids), "logprobs")
    require_possible(logprobs)
    scores = Reading(token_ids(ids), logprob_array(logprobs))
    if not question.topk:
        return scores
    for table in (topk_ids or [], topk_logprobs or []):
        require_length(table, len(ids), "lists of the likeliest tokens")
        for at in table:
            require_length(at, question.topk, "likeliest tokens at a position")
    return replace(scores, topk_ids=np.array(topk_ids, np.int64), topk_logprobs=np.array(topk_logprobs, np.float32))


def identity(served: Mapping[str, JsonValue], weights: Mapping[str, JsonValue], topk: int) -> str:
    """What a cache's keys begin with."""
    return json.dumps({"served": served, "weights": weights, "topk": topk}, sort_keys=True, default=str)
