"""The protocol of dialects, their query and result, and checks that all of them use."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, JsonValue, TypeAdapter, ValidationError

from distillkit.arrays import LOGPROB_ROUNDING, FloatArray, IntArray, logprob_array, token_ids
from distillkit.errors import AlignmentError
from distillkit.files.strict_json import shortened
from distillkit_builtin.remote.candidates import MINUS_INFINITY, MOST_IDS, TopK

T = TypeVar("T")
LOGPROB_TOLERANCE = 0.5
"""Nats by which two answers of one server may differ: bfloat16's rounding is below, the difference between
distributions at two temperatures above it."""

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
    """The model's name at the server, which its answers must name."""
    prompt_ids: IntArray
    response_ids: IntArray
    topk: int = 0
    """How many top-k tokens to return at each position besides; 0: none."""
    at_ids: IntArray | None = None
    """[R, K] ids whose logprobs to return at each position besides, -1 for none; None: no array of them."""
    named: int | None = None
    """An id of the response that the answer is to name with its logprob at each position; see `SGLang`."""
    adapter: bool = False
    """Whether `model` is an adapter, for servers that are told so."""
    cache_salt: str | None = None
    """Of a prompt's prefixes a server that reads its cache uses only what has the same salt."""
    aliases: frozenset[str] = frozenset()
    """Other names of the same model at the server: vLLM answers under the first of `--served-model-name`."""

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
    at_logprobs: FloatArray | None = None
    """[R, K] those of the query's `at_ids`, minus infinity where an id is none."""

    @classmethod
    def of(cls, ids: Sequence[int], logprobs: npt.ArrayLike, topk: TopK | None) -> "TokenLogprobs":
        """Raises AlignmentError for minus infinity."""
        values = np.asarray(logprobs, np.float64)
        require_possible(values)
        best = (None, None) if topk is None else (topk.ids, topk.logprobs)
        return cls(token_ids(ids), logprob_array(values), *best)


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


def require_model(named: str | None, query: ScoreQuery) -> None:
    """Raise AlignmentError for the answer of another model, as a gateway gives that falls back to one.

    A server that names none is taken at its word.
    """
    if named is not None and named != query.model and named not in query.aliases:
        raise AlignmentError(f"the response is of model {shortened(repr(named), 200)}, not of {query.model!r}")


def require_prompt(read: Sequence[int], query: ScoreQuery) -> None:
    """Raise AlignmentError unless the ids that a server read begin with the query's prompt: else it scored another."""
    for at, sent in enumerate(query.prompt_ids.tolist()):
        if read[at] != sent:
            raise AlignmentError(f"the server read id {read[at]} as prompt token {at}, {sent} was sent")


def require_prompt_length(read: int | None, sent: int) -> None:
    """Raise AlignmentError for a prompt that was cut, or another one; None: the server does not say its length."""
    if read is not None and read != sent:
        raise AlignmentError(f"the server read {read} prompt tokens, {sent} were sent")


def require_possible(logprobs: npt.NDArray[np.floating]) -> None:
    """Raise AlignmentError for a probability of zero, which no sampled token can have, or of more than one."""
    for at in np.flatnonzero((logprobs <= MINUS_INFINITY) | (logprobs > LOGPROB_ROUNDING)):
        value = logprobs[at]
        if value <= MINUS_INFINITY:
            raise AlignmentError(f"the logprob of token {at} is minus infinity (the server sent {value:g})")
        raise AlignmentError(f"the logprob of token {at} is {value:g}, a probability of more than one")
