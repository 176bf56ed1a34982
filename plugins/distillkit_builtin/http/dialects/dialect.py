"""The protocol of dialects, their query and result, and checks that all of them use."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Protocol, TypeVar

import numpy as np
from pydantic import Field, JsonValue, TypeAdapter, ValidationError

from distillkit.arrays import LOGPROB_ROUNDING, FloatArray, IntArray, logprob_array, token_ids
from distillkit.errors import AlignmentError
from distillkit.files.strict_json import shortened

T = TypeVar("T")
TopK = Sequence[tuple[int, float]]
"""Ids and logprobs at one position, in descending order of logprob."""
MINUS_INFINITY = -9999.0
"""What vLLM sends in place of minus infinity, which JSON does not have."""

MOST_IDS = 2**31
"""No vocabulary is larger, and no array of ids overflows below it."""
TokenId = Annotated[int, Field(strict=True, ge=0, lt=MOST_IDS)]
"""In a response: a number, and not a text or a truth value that pydantic would make one of."""
TokenKey = Annotated[int, Field(ge=0, lt=MOST_IDS)]
"""The same as a key of an object, which JSON writes as text."""
Logprob = Annotated[float, Field(strict=True)]
"""In a response: `false` is no logprob; it would be read as 0, the logprob of a certainty."""


class UnprovedError(Exception):
    """The response does not say by id which tokens it scored; the message says how to start the server right."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoreQuery:
    """One prompt [P] and the response [R] behind it whose tokens are to be scored."""

    model: str
    """The model's name at the server."""
    prompt_ids: IntArray
    response_ids: IntArray
    topk: int = 0
    """How many top-k tokens to return at each position besides; 0: none."""

    @property
    def ids(self) -> list[int]:
        """[P + R] the ids that the server is given."""
        return [*self.prompt_ids.tolist(), *self.response_ids.tolist()]


@dataclass(frozen=True, slots=True, eq=False)
class TokenLogprobs:
    """The logprobs of a response's tokens, as a server gave them."""

    ids: IntArray
    """[R] the tokens that it scored, which need not be those of the query."""
    logprobs: FloatArray
    """[R]"""
    topk_ids: IntArray | None = None
    """[R, K] the top-k tokens, in descending order of logprob; None unless the query has `topk`."""
    topk_logprobs: FloatArray | None = None
    """[R, K] their logprobs."""

    @classmethod
    def of(cls, ids: Sequence[int], logprobs: Sequence[float], topk: Sequence[TopK] | None) -> "TokenLogprobs":
        """`topk` holds one entry a position, each of the same length. Raises AlignmentError for minus infinity."""
        require_possible(logprobs)
        best = None if topk is None else np.array([[index for index, _ in at] for at in topk], np.int64)
        values = None if topk is None else np.array([[value for _, value in at] for at in topk], np.float32)
        return cls(token_ids(ids), logprob_array(logprobs), best, values)


class Dialect(Protocol):
    """One way to ask a server for the logprobs of given tokens."""

    name: ClassVar[str]
    """The value of the option `dialect` that chooses this dialect."""
    path: ClassVar[str]
    """The endpoint's path, such as `/v1/completions`."""

    def payload(self, query: ScoreQuery) -> dict[str, JsonValue]:
        """The request's JSON body that scores `query`."""
        ...

    def parse(self, body: JsonValue, query: ScoreQuery) -> TokenLogprobs:
        """The logprobs of the query's response, out of the body of a server's HTTP response.

        Raises:
            UnprovedError: if the body does not name the tokens by id.
            AlignmentError: if logprobs are missing, null or minus infinity, or lists are too short or too long.
        """
        ...


def parse_scores(dialect: Dialect, body: JsonValue, query: ScoreQuery, what: str) -> TokenLogprobs:
    """The logprobs that `dialect` finds in `body`.

    Raises:
        AlignmentError: that begins with `what`, also where ids are not proved any more.
    """
    try:
        return dialect.parse(body, query)
    except (AlignmentError, UnprovedError) as error:
        raise AlignmentError(f"{what}: {error}") from error


def validated(adapter: TypeAdapter[T], value: object, what: str) -> T:
    """`value` in the shape of `adapter`. Raises AlignmentError."""
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = shortened(".".join(map(str, first["loc"])), 200)
        raise AlignmentError(f"{what}{f' at {where}' if where else ''}: {first['msg']}") from error


def require_length(values: Sequence[object], expected: int, what: str) -> None:
    """Raise AlignmentError unless there are `expected` values; `what` is what they are."""
    if len(values) != expected:
        raise AlignmentError(f"the response holds {len(values)} {what} where {expected} were expected")


def require_possible(logprobs: Sequence[float]) -> None:
    """Raise AlignmentError for a probability of zero, which no sampled token can have, or of more than one."""
    for at, value in enumerate(logprobs):
        if value <= MINUS_INFINITY:
            raise AlignmentError(f"the logprob of token {at} is minus infinity (the server sent {value:g})")
        if value > LOGPROB_ROUNDING:
            raise AlignmentError(f"the logprob of token {at} is {value:g}, a probability of more than one")


def best_k(candidates: Sequence[tuple[int, float]], topk: int, at: int) -> TopK:
    """The `topk` candidates of position `at` with the highest logprobs, sorted by logprob, never taken by their order.

    Raises:
        AlignmentError: if there are fewer, or one's logprob is not one.
    """
    if len(candidates) < topk:
        raise AlignmentError(
            f"the response holds {len(candidates)} top-k tokens at token {at} where {topk} were expected"
        )
    wrong = [value for _, value in candidates if not MINUS_INFINITY < value <= LOGPROB_ROUNDING]  # NaN is not either
    if wrong:
        raise AlignmentError(f"the logprob of one of the top-k tokens at token {at} is {wrong[0]:g}")
    return sorted(candidates, key=lambda candidate: -candidate[1])[:topk]
