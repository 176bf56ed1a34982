"""vLLM's token interface: logprobs of any ids at each position of a prompt, as an array, without the prompt's part."""

import ast
import base64
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, JsonValue, TypeAdapter

from distillkit.arrays import LOGPROB_ROUNDING, token_ids
from distillkit.errors import AlignmentError
from distillkit.files.strict_json import shortened
from distillkit.token_arrays import NO_ID
from distillkit_builtin.http.dialects.dialect import (
    ScoreQuery,
    TokenId,
    TokenLogprobs,
    UnprovedError,
    require_length,
    require_model,
    require_possible,
    require_prompt,
    validated,
)
from distillkit_builtin.remote.token_fields import TOKENS, TOKENS_BODY

MAGIC = b"\x93NUMPY\x01\x00"
"""What a `.npy` file of version 1.0 begins with: two bytes follow, the length of a Python dict that describes it."""
UNREADABLE = (ValueError, TypeError, SyntaxError, RecursionError, MemoryError)
"""What base64 and `ast.literal_eval` raise where a text is not what they expect; numpy's own reader raises more."""


class _Response(BaseModel):
    model: str | None = None
    prompt_token_ids: list[TokenId] | None = None
    prompt_token_id_logprobs: str | None = None


_RESPONSE = TypeAdapter(_Response)


@dataclass(frozen=True, slots=True)
class VllmTokens:
    """`POST /inference/v1/generate` with `prompt_logprob_token_ids`, which vLLM 0.32 has with `--enable-scale-out`.

    The head is computed for the response's rows alone, and the answer holds 4 bytes a number, and of the prompt its
    ids alone: without them, a row of another request with as many rows would be taken for this one's.
    The prefix cache is not read: a row that it covers is not computed, and the answer then has no scores at all.

    Row i of the answer is of the position before the response's token i, its columns are of the ids that were asked for
    there: the sampled one first, then the query's `at_ids`. `topk` is not asked for here. vLLM takes as many columns as
    its `--max-logprobs`. Needs its V2 model runner. Written from vLLM's documentation and sources.
    """

    name: ClassVar[str] = "vllm_tokens"
    path: ClassVar[str] = "/inference/v1/generate"

    def payload(self, query: ScoreQuery) -> dict[str, JsonValue]:
        """The request's JSON body: the first row is that of the prompt's last token."""
        return {
            **TOKENS_BODY,
            "model": query.model,
            "token_ids": list(query.ids),
            "return_token_ids": True,
            "sampling_params": {
                **TOKENS,
                "max_tokens": 1,  # behind what is scored, and ignored
                "prompt_logprob_token_ids": _asked(query).tolist(),
                "prompt_logprob_start": len(query.prompt_ids) - 1,
                "skip_reading_prefix_cache": True,  # where it covers a row that is asked for, vLLM drops all of them
            },
        }

    def parse(self, body: JsonValue, query: ScoreQuery) -> TokenLogprobs:
        """The logprobs of the sampled ids, and of `at_ids`; the ids are those that the server says it read."""
        response = validated(_RESPONSE, body, "the response")
        require_model(response.model, query)
        encoded, read = response.prompt_token_id_logprobs, response.prompt_token_ids
        if encoded is None:
            raise UnprovedError("the server ignores prompt_logprob_token_ids")
        if read is None:
            raise UnprovedError("the server ignores return_token_ids")
        require_length(read, len(query.ids), "prompt_token_ids")
        require_prompt(read, query)
        asked = _asked(query)
        found = _array(encoded, asked.shape)
        wrong = (asked != NO_ID) & ~(found <= LOGPROB_ROUNDING)  # NaN is not either
        for at, column in np.argwhere(wrong):
            raise AlignmentError(f"the logprob of id {asked[at, column]} at token {at} is {found[at, column]:g}")
        require_possible(found[:, 0])
        values = np.where(asked == NO_ID, np.float32(-np.inf), found)
        at_logprobs = None if query.at_ids is None else values[:, 1:]
        return TokenLogprobs(token_ids(read[len(query.prompt_ids) :]), values[:, 0], at_logprobs=at_logprobs)


def _asked(query: ScoreQuery) -> npt.NDArray[np.int64]:
    """[R, 1 + K] the ids of each row."""
    sampled = query.response_ids[:, None]
    return sampled if query.at_ids is None else np.concatenate([sampled, query.at_ids], axis=1)


def _array(encoded: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """The float32 array of this shape in base64 of a `.npy` file. Raises AlignmentError for anything else."""
    try:
        raw = base64.b64decode(encoded, validate=True)
        begins = 10 + int.from_bytes(raw[8:10], "little")
        header = ast.literal_eval(raw[10:begins].decode("ascii").strip())
        if raw[:8] != MAGIC or not isinstance(header, dict):
            raise ValueError("it is no .npy file of version 1.0")
        if (header.get("descr"), header.get("shape")) != ("<f4", shape):
            raise ValueError(f"it is {header.get('descr')} {header.get('shape')}, not <f4 {shape}")
        order: Literal["C", "F"] = "F" if header.get("fortran_order") else "C"
        return np.frombuffer(raw, "<f4", offset=begins).reshape(shape, order=order)
    except UNREADABLE as error:
        raise AlignmentError(f"prompt_token_id_logprobs is no such array: {shortened(str(error), 200)}") from error
