"""Scores from earlier requests: one teacher's part of a `ScoreFile`, addressed by the query."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field, Json, JsonValue, TypeAdapter

from distillkit.arrays import Array
from distillkit.errors import AlignmentError
from distillkit_builtin.http.dialects.dialect import (
    ScoreQuery,
    TokenId,
    TokenLogprobs,
    require_length,
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
        Json[list[list[Number | None]]] | None,
    ]
)


@dataclass(slots=True)
class ScoreCache:
    """One teacher's scores from earlier requests, kept in a `ScoreFile`."""

    file: ScoreFile
    identity: str
    """What distinguishes this teacher's scores: the model and its weights as far as the server says."""
    name: str
    """The teacher's name in metrics."""
    _hits: int = 0
    _misses: int = 0
    _failed: int = 0

    async def get(self, query: ScoreQuery) -> TokenLogprobs | None:
        """The logprobs that are kept for a query, or None."""
        row = await self.file.find(self.key(query))
        scored = None if row is None else await self._read(row, query)
        if scored is not None:
            self._hits += 1
        elif self.file.is_usable:
            self._misses += 1
        else:
            self._failed += 1
        return scored

    async def put(self, query: ScoreQuery, scored: TokenLogprobs) -> None:
        """Keep the logprobs of a query; a second `put` of the same query changes nothing."""
        was_usable = self.file.is_usable
        arrays = (scored.ids, scored.logprobs, scored.topk_ids, scored.topk_logprobs, scored.at_logprobs)
        texts = [None if array is None else _text(array) for array in arrays]
        await self.file.insert([self.key(query), query.model, *texts])
        if was_usable and not self.file.is_usable:
            self._failed += 1

    def key(self, query: ScoreQuery) -> str:
        """The key under which a query's logprobs are kept: 64 hex digits."""
        digest = hashlib.sha256(self.identity.encode())
        for ids in (query.prompt_ids, query.response_ids):
            digest.update(len(ids).to_bytes(8, "little") + ids.astype("<i8").tobytes())
        digest.update(query.topk.to_bytes(8, "little"))
        if query.at_ids is not None:
            digest.update(query.at_ids.shape[1].to_bytes(8, "little") + query.at_ids.astype("<i8").tobytes())
        return digest.hexdigest()

    def metrics(self) -> Mapping[str, float]:
        """Since the last call, as `cache/<name>/...`.

        `hits` (scores that were there), `misses` (that were requested), `failed` (that could not be looked up or
        kept, all that came after the file was given up among them).
        """
        counts = {"hits": self._hits, "misses": self._misses, "failed": self._failed}
        self._hits = self._misses = self._failed = 0
        return {f"cache/{self.name}/{name}": float(count) for name, count in counts.items()}

    async def _read(self, row: StoredRow, query: ScoreQuery) -> TokenLogprobs | None:
        """The logprobs in a row, which was valid when it was written; None, and no more cache, if it is damaged."""
        try:
            return stored_logprobs(row, query)
        except AlignmentError as error:
            await self.file.give_up(f"a score in it is not valid ({error})", f"it is damaged: {self.file.removal}")
            return None


def stored_logprobs(row: StoredRow, query: ScoreQuery) -> TokenLogprobs:
    """The logprobs that a row holds. Raises AlignmentError if they are not those of `query`."""
    ids, logprobs, topk_ids, topk_logprobs, at_logprobs = validated(_ROW, row, "row")
    if ids != query.response_ids.tolist():
        raise AlignmentError("its ids are not those of the response")
    require_length(logprobs, len(ids), "logprobs")
    scores = TokenLogprobs.of(ids, logprobs, None)
    if query.topk:
        best, values = (_table(rows, (len(ids), query.topk), "top-k tokens") for rows in (topk_ids, topk_logprobs))
        scores = replace(scores, topk_ids=best.astype(np.int64), topk_logprobs=values.astype(np.float32))
    if query.at_ids is not None:
        given = _table(at_logprobs, query.at_ids.shape, "given ids")
        scores = replace(scores, at_logprobs=np.where(np.isnan(given), -np.inf, given).astype(np.float32))
    return scores


def _text(array: Array) -> str:
    """As JSON, which has no minus infinity: null."""
    values = array.astype(object)
    if array.dtype.kind == "f":
        values[np.isneginf(array)] = None
    return json.dumps(values.tolist())


def _table(rows: Sequence[Sequence[float | None]] | None, shape: tuple[int, ...], what: str) -> npt.NDArray[np.float64]:
    """The rows as float64 of this shape, NaN for null; every id is exact in it. Raises AlignmentError."""
    require_length(rows or [], shape[0], f"lists of {what}")
    for at in rows or []:
        require_length(at, shape[1], f"{what} at a position")
    return np.array(rows, np.float64).reshape(shape)


def identity(served: Mapping[str, JsonValue], weights: Mapping[str, JsonValue]) -> str:
    """The identity of a served model, as JSON: part of every key of its cache."""
    return json.dumps({"served": served, "weights": weights}, sort_keys=True, default=str)
