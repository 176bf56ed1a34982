"""vLLM's token interface: logprobs of any ids at each position of a prompt, as an array, without the prompt's part."""

import base64
import io
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, JsonValue, TypeAdapter

from distillkit.arrays import LOGPROB_ROUNDING
from distillkit.errors import AlignmentError
from distillkit.token_arrays import NO_ID
from distillkit_builtin.http.dialects.dialect import (
    ScoreQuery,
    TokenLogprobs,
    UnprovedError,
    require_possible,
    validated,
)
from distillkit_builtin.remote.request_fields import TOKENS


class _Response(BaseModel):
    prompt_token_id_logprobs: str | None = None


_RESPONSE = TypeAdapter(_Response)


@dataclass(frozen=True, slots=True)
class VllmTokens:
    """`POST /inference/v1/generate` with `prompt_logprob_token_ids`, which vLLM 0.32 has with `--enable-scale-out`.

    Row i of the answer is of the position before the response's token i, its columns are of the ids that were asked
    for there: the sampled one first, then the query's `at_ids`. `topk` is not asked for here. vLLM takes as many
    columns as its `--max-logprobs`. Needs its V2 model runner. Written from vLLM's documentation and sources.
    """

    name: ClassVar[str] = "vllm_tokens"
    path: ClassVar[str] = "/inference/v1/generate"

    def payload(self, query: ScoreQuery) -> dict[str, JsonValue]:
        """The request's JSON body: the first row is that of the prompt's last token."""
        return {
            "model": query.model,
            "token_ids": list(query.ids),
            "sampling_params": {
                **TOKENS,
                "max_tokens": 1,  # behind what is scored, and ignored
                "prompt_logprob_token_ids": _asked(query).tolist(),
                "prompt_logprob_start": len(query.prompt_ids) - 1,
            },
        }

    def parse(self, body: JsonValue, query: ScoreQuery) -> TokenLogprobs:
        """The logprobs of the sampled ids, and of `at_ids`; the ids are those of the question."""
        encoded = validated(_RESPONSE, body, "the response").prompt_token_id_logprobs
        if encoded is None:
            raise UnprovedError("the server ignores prompt_logprob_token_ids")
        asked = _asked(query)
        found = _array(encoded, asked.shape)
        wrong = (asked != NO_ID) & ~(found <= LOGPROB_ROUNDING)  # NaN is not either
        for at, column in np.argwhere(wrong):
            raise AlignmentError(f"the logprob of id {asked[at, column]} at token {at} is {found[at, column]:g}")
        require_possible(found[:, 0])
        values = np.where(asked == NO_ID, np.float32(-np.inf), found)
        at_logprobs = None if query.at_ids is None else values[:, 1:]
        return TokenLogprobs(query.response_ids, values[:, 0], at_logprobs=at_logprobs)


def _asked(query: ScoreQuery) -> npt.NDArray[np.int64]:
    """[R, 1 + K] the ids of each row."""
    sampled = query.response_ids[:, None]
    return sampled if query.at_ids is None else np.concatenate([sampled, query.at_ids], axis=1)


def _array(encoded: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """The float32 array of this shape in base64 of a `.npy` file. Raises AlignmentError for anything else."""
    try:
        raw = base64.b64decode(encoded, validate=True)
        file = io.BytesIO(raw)
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("it is of another version")
        given, by_column, dtype = np.lib.format.read_array_header_1_0(file)
        if given != shape or dtype != np.float32:
            raise ValueError(f"it is {dtype} {list(given)}, not float32 {list(shape)}")
        return np.frombuffer(raw, np.float32, offset=file.tell()).reshape(shape, order="F" if by_column else "C")
    except (ValueError, SyntaxError) as error:  # binascii's error is a ValueError
        raise AlignmentError(f"prompt_token_id_logprobs is no such array: {error}") from error
