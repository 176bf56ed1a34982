"""What all dialects have in common."""

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
"""Ids and logprobs at one position, the likeliest first."""
MINUS_INFINITY = -9999.0
"""What vLLM sends in place of minus infinity, which JSON does not have."""

MOST_IDS = 2**31
"""No vocabulary is larger, and no array of ids overflows below it."""
TokenId = Annotated[int, Field(strict=True, ge=0, lt=MOST_IDS)]
"""In an answer: a number, and not a text or a truth value that pydantic would make one of."""
TokenKey = Annotated[int, Field(ge=0, lt=MOST_IDS)]
"""The same as a key of an object, which JSON writes as text."""
Logprob = Annotated[float, Field(strict=True)]
"""In an answer: `false` is none, which would be read as 0, the logprob of a certainty."""


class UnprovedError(Exception):
    """The answer does not say by id which tokens it scored; the message says how to start the server right."""


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """One prompt [P] and the response [R] behind it whose tokens are to be scored."""

    model: str
    """As the server calls it."""
    prompt_ids: IntArray
    response_ids: IntArray
    topk: int = 0
    """How many of the likeliest tokens are wanted at each position besides."""

    @property
    def ids(self) -> list[int]:
        """[P + R] what the server reads."""
        return [*self.prompt_ids.tolist(), *self.response_ids.tolist()]


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What a server says of the response's tokens."""

    ids: IntArray
    """[R] the tokens that it scored, which need not be those that were asked for."""
    logprobs: FloatArray
    """[R]"""
    topk_ids: IntArray | None = None
    """[R, K] the likeliest tokens, the likeliest first; None unless they were asked for."""
    topk_logprobs: FloatArray | None = None
    """[R, K]"""

    @classmethod
    def of(cls, ids: Sequence[int], logprobs: Sequence[float], topk: Sequence[TopK] | None) -> "Reading":
        """`topk` holds one entry a position, each of the same length. Raises AlignmentError for minus infinity."""
        require_possible(logprobs)
        best = None if topk is None else np.array([[index for index, _ in at] for at in topk], np.int64)
        values = None if topk is None else np.array([[value for _, value in at] for at in topk], np.float32)
        return cls(token_ids(ids), logprob_array(logprobs), best, values)


class Dialect(Protocol):
    """One way to ask."""

    name: ClassVar[str]
    """As the option `dialect` calls it."""
    path: ClassVar[str]
    """Of the endpoint."""

    def payload(self, question: Question) -> dict[str, JsonValue]:
        """The request's body."""
        ...

    def read(self, answer: JsonValue, question: Question) -> Reading:
        """The response's part of the answer.

        Raises:
            UnprovedError: if the answer does not name the tokens by id.
            AlignmentError: if logprobs are missing, null or minus infinity, or lists are too short or too long.
        """
        ...


def read_scores(dialect: Dialect, answer: JsonValue, question: Question, what: str) -> Reading:
    """What `dialect` reads. Raises AlignmentError that begins with `what`, also where ids are not proved any more."""
    try:
        return dialect.read(answer, question)
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


def require_length(values: Sequence[object], wanted: int, what: str) -> None:
    """Raise AlignmentError unless there are as many as there should be."""
    if len(values) != wanted:
        raise AlignmentError(f"the answer holds {len(values)} {what} where {wanted} were asked for")


def require_possible(logprobs: Sequence[float]) -> None:
    """Raise AlignmentError for a probability of zero, which no sampled token can have, or of more than one."""
    for at, value in enumerate(logprobs):
        if value <= MINUS_INFINITY:
            raise AlignmentError(f"the logprob of token {at} is minus infinity (the server sent {value:g})")
        if value > LOGPROB_ROUNDING:
            raise AlignmentError(f"the logprob of token {at} is {value:g}, a probability of more than one")


def best_of(candidates: Sequence[tuple[int, float]], topk: int, at: int) -> TopK:
    """The `topk` likeliest of a position's candidates, looked up by logprob, never by order. Raises AlignmentError."""
    if len(candidates) < topk:
        raise AlignmentError(f"the answer gives {len(candidates)} likeliest tokens at token {at} of {topk} wanted")
    wrong = [value for _, value in candidates if not MINUS_INFINITY < value <= LOGPROB_ROUNDING]  # NaN is not either
    if wrong:
        raise AlignmentError(f"the logprob of one of the likeliest tokens at token {at} is {wrong[0]:g}")
    return sorted(candidates, key=lambda candidate: -candidate[1])[:topk]
