"""Logprobs of a response out of those of a prompt, as Tinker's SDK returns them, with all their gaps checked.

A server computes the logprobs of the tokens of a prompt in one prefill: prompt [P] and response [R] go to it as one
prompt of N = P + R ids, and the last R entries of what comes back are the response's. Two alignments are in use, told
apart by length alone: N entries of which the first is None (hosted Tinker, SkyRL on vLLM), and N - 1 without it (SkyRL
on JAX). Which of them a server has is found out when the teacher is opened, and held to afterwards. Ids do not come
back: that these are logprobs of the ids that were sent is known by their number, and by what the probes at `open` show.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from distillkit.arrays import INT64, LOGPROB_ROUNDING, Array, FloatArray, IntArray, logprob_array
from distillkit.errors import AlignmentError
from distillkit.token_arrays import NO_ID
from distillkit_builtin.remote.candidates import MINUS_INFINITY, MOST_IDS, Candidates

T = TypeVar("T")
ROUNDING = 0.5
"""Nats by which two numbers that a server gives of one token may differ: bfloat16's rounding is below."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What one prefill was asked for."""

    prompt: int
    """P, in tokens."""
    response_ids: IntArray
    """[R]"""
    topk: int = 0
    """How many of the most probable tokens of each position besides; 0: none."""
    at_ids: IntArray | None = None
    """[R, K] ids whose logprobs are wanted besides, -1 for none."""

    @property
    def count(self) -> int:
        """N, tokens of prompt and response."""
        return self.prompt + len(self.response_ids)

    @property
    def targets(self) -> npt.NDArray[np.int64] | None:
        """[N - 1, K] `at_ids` as the SDK takes them: row i is of token i + 1, and -1 where nothing is wanted."""
        if self.at_ids is None:
            return None
        table = np.full((self.count - 1, self.at_ids.shape[1]), NO_ID, INT64)
        table[self.prompt - 1 :] = self.at_ids
        return table


@dataclass(frozen=True, slots=True, eq=False)
class ResponseLogprobs:
    """What came back, of the response alone."""

    logprobs: FloatArray
    """[R]"""
    arrays: Mapping[str, Array]
    """`topk_ids`, `topk_logprobs`, `at_logprobs` [R, K], as far as they were asked for: as `Score.arrays` has them."""


def leading_nones(values: Sequence[object] | None, count: int) -> int:
    """1 where `values` has an entry for each of `count` tokens, of which the first is None; 0 where it has one less.

    Raises AlignmentError for anything else.
    """
    if values is None:
        raise AlignmentError("no logprobs of the prompt came back")
    if len(values) == count - 1:
        return 0
    if len(values) != count:
        raise AlignmentError(f"{len(values)} logprobs came back for {count} tokens")
    if values[0] is not None:
        raise AlignmentError(f"the first of {count} tokens has a logprob, and nothing stands before it")
    return 1


def read_response(what: str, answer: Any, asked: Asked, leading: int) -> ResponseLogprobs:  # noqa: ANN401 - the SDK's SampleResponse
    """The response's part of an SDK's `SampleResponse`; `leading`: how many Nones stand at its start.

    Raises:
        AlignmentError: that begins with `what`, if a number is missing or none, or there are more or fewer of them.
    """
    try:
        logprobs = _logprobs(_tail(answer.prompt_logprobs, asked, leading, "logprobs"))
        arrays: dict[str, Array] = {}
        if asked.topk:
            rows = _tail(answer.topk_prompt_logprobs, asked, leading, "top-k tokens")
            arrays |= _top_arrays(rows, asked, logprobs)
        if asked.at_ids is not None:
            arrays["at_logprobs"] = _at_logprobs(answer.target_prompt_logprobs, asked, logprobs)
    except AlignmentError as error:
        raise AlignmentError(f"{what}: {error}") from error
    return ResponseLogprobs(logprobs, arrays)


def _tail(values: Sequence[T] | None, asked: Asked, leading: int, name: str) -> Sequence[T]:
    if values is None:
        raise AlignmentError(f"no {name} of the prompt came back")
    wanted = asked.count - 1 + leading
    if len(values) != wanted:
        raise AlignmentError(f"{name} of {len(values)} tokens came back where {wanted} were expected")
    return values[-len(asked.response_ids) :]


def _logprobs(values: Sequence[object]) -> FloatArray:
    for at, value in enumerate(values):
        if type(value) is not float:
            raise AlignmentError(f"the logprob of token {at} is {'missing' if value is None else repr(value)}")
        if not MINUS_INFINITY < value <= LOGPROB_ROUNDING:  # NaN is not either
            raise AlignmentError(f"the logprob of token {at} is {value:g}")
    return logprob_array(np.array(values, np.float64))


def _top_arrays(rows: Sequence[Any], asked: Asked, logprobs: FloatArray) -> Mapping[str, Array]:
    for at, row in enumerate(rows):
        if row is None:
            raise AlignmentError(f"the top-k tokens at token {at} are missing")
    pairs = [pair for row in rows for pair in row]
    if any(type(pair[0]) is not int or not 0 <= pair[0] < MOST_IDS for pair in pairs):
        raise AlignmentError("what came back as the id of a top-k token is not one")
    found = Candidates.of([len(row) for row in rows], (pair[0] for pair in pairs), (pair[1] for pair in pairs))
    best = found.best(asked.topk)
    _require_agreement(best.ids, best.logprobs, asked, logprobs, "top-k tokens")
    return {"topk_ids": best.ids, "topk_logprobs": best.logprobs}


def _at_logprobs(tensor: Any, asked: Asked, logprobs: FloatArray) -> Array:  # noqa: ANN401 - the SDK's TensorData
    targets, wanted = asked.targets, asked.at_ids
    if targets is None or wanted is None:
        raise ValueError("nothing was asked for at ids")
    if tensor is None:
        raise AlignmentError("no logprobs of given ids came back")
    if tensor.sparse_crow_indices is not None or list(tensor.shape or ()) != list(targets.shape):
        raise AlignmentError(f"logprobs of given ids came back as {tensor.shape}, not as a full {list(targets.shape)}")
    values = np.asarray(tensor.data, np.float64).reshape(targets.shape)[asked.prompt - 1 :]
    there = wanted != NO_ID
    for at, column in np.argwhere(there & ~(values <= LOGPROB_ROUNDING)):  # NaN is not either
        raise AlignmentError(f"the logprob of id {wanted[at, column]} at token {at} is {values[at, column]:g}")
    possible = there & (values > MINUS_INFINITY)  # where nothing was asked for stands 0.0, a probability of one
    found = np.where(possible, values, -np.inf).astype(np.float32)
    _require_agreement(wanted, found, asked, logprobs, "given ids")
    return found


def _require_agreement(
    ids: npt.NDArray[np.int64], values: npt.NDArray[np.float32], asked: Asked, logprobs: FloatArray, name: str
) -> None:
    """Where a sampled token is among `ids` [R, K], both numbers are of one token: rows of another one would differ."""
    apart = np.where(ids == asked.response_ids[:, None], np.abs(values - logprobs[:, None]), 0.0)
    for at, _ in np.argwhere(~(apart <= ROUNDING)):
        raise AlignmentError(
            f"the logprob of token {at} among the {name} is {apart[at].max():.2f} nats from that of the token itself"
        )
