"""SGLang's native `/generate`: the prompt's part is left out of the response by `logprob_start_len`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np
from pydantic import BaseModel, JsonValue, TypeAdapter

from distillkit.errors import AlignmentError
from distillkit_builtin.http.dialects.dialect import (
    Logprob,
    ScoreQuery,
    TokenId,
    TokenLogprobs,
    UnprovedError,
    require_prompt_length,
    validated,
)
from distillkit_builtin.remote.candidates import Candidates, TopK
from distillkit_builtin.remote.generate_fields import GENERATE, GENERATE_BODY

T = TypeVar("T")
Triple = tuple[Logprob | None, TokenId, str | None]
"""Logprob, id, text (null unless it is requested)."""


class _Meta(BaseModel):
    input_token_logprobs: list[Triple] | None = None
    input_top_logprobs: list[list[Triple] | None] | None = None
    input_token_ids_logprobs: list[list[Triple] | None] | None = None
    prompt_tokens: int | None = None
    """How many ids it read: fewer than were sent with `--allow-auto-truncate`."""


class _Response(BaseModel):
    meta_info: _Meta


_RESPONSE = TypeAdapter(_Response)


@dataclass(frozen=True, slots=True)
class SGLang:
    """`POST /generate` with `return_logprob`. Compared with transformers on a real SGLang 0.5.23.

    That one names the vocabulary's last id 0 among the input's (its scheduler takes it for an image's placeholder),
    with the right logprob. Nothing says that it is the last: so it is asked for by itself
    (`token_ids_logprob`), and the score is the logprob that the answer gives for that id.
    """

    name: ClassVar[str] = "sglang"
    path: ClassVar[str] = "/generate"

    def payload(self, query: ScoreQuery) -> dict[str, JsonValue]:
        """Logprobs from the prompt's last token on, which is the first that predicts a response's token."""
        salt: dict[str, JsonValue] = {} if query.cache_salt is None else {"cache_salt": query.cache_salt}
        return {
            **GENERATE_BODY,
            **salt,
            "input_ids": list(query.ids),
            "sampling_params": {**GENERATE, "max_new_tokens": 0},
            "return_logprob": True,
            "logprob_start_len": max(0, len(query.prompt_ids) - 1),
            "top_logprobs_num": query.topk,
            "token_ids_logprob": None if query.named is None else [query.named],
            "lora_path": query.model if query.adapter else None,
        }

    def parse(self, body: JsonValue, query: ScoreQuery) -> TokenLogprobs:
        """The ids and logprobs of the last R entries; some versions put one for the prompt's last token before them."""
        meta = validated(_RESPONSE, body, "the response").meta_info
        require_prompt_length(meta.prompt_tokens, len(query.ids))
        if meta.input_token_logprobs is None:
            raise UnprovedError("the server gives no input_token_logprobs")
        tail = [*_last(meta.input_token_logprobs, len(query.response_ids), "input_token_logprobs")]
        if query.named is not None:
            named = _last(meta.input_token_ids_logprobs or [], len(tail), "input_token_ids_logprobs")
            for at in np.flatnonzero(query.response_ids == query.named).tolist():
                tail[at] = _named(named[at], query.named, at)
        logprobs = [_known(triple, at) for at, triple in enumerate(tail)]
        return TokenLogprobs.of([index for _, index, _ in tail], logprobs, _topk(meta, query))


def hidden_id(scored: TokenLogprobs, query: ScoreQuery) -> int | None:
    """The id of a response that a server names 0 at each place of it, and which may be its vocabulary's last."""
    last = max(query.ids)
    named = scored.ids[query.response_ids == last]
    return last if last and len(named) and not named.any() else None


def _named(entry: Sequence[Triple] | None, wanted: int, at: int) -> Triple:
    for triple in entry or ():
        if triple[1] == wanted:
            return triple
    raise AlignmentError(f"the response has no logprob of id {wanted} for token {at}, although it was asked for")


def _last(values: Sequence[T], count: int, what: str) -> Sequence[T]:
    if len(values) not in (count, count + 1):
        raise AlignmentError(f"the response holds {len(values)} {what} for {count} tokens")
    return values[len(values) - count :]


def _known(triple: Triple, at: int) -> float:
    if triple[0] is None:
        raise AlignmentError(f"the logprob of token {at} is null")
    return triple[0]


def _topk(meta: _Meta, query: ScoreQuery) -> TopK | None:
    if not query.topk:
        return None
    count = len(query.response_ids)
    top = meta.input_top_logprobs or []
    if len(top) not in (count, count + 1):
        raise AlignmentError(f"the response holds {len(top)} input_top_logprobs for {count} tokens")
    return best_of([entry or [] for entry in top[len(top) - count :]], query.topk)


def best_of(top: Sequence[Sequence[Triple]], topk: int) -> TopK:
    """The `topk` most probable tokens of each position, among those that the server names there.

    Raises:
        AlignmentError: if there are fewer, or one has no logprob.
    """
    return Candidates.of(
        [len(entry) for entry in top],
        (index for entry in top for _, index, _ in entry),
        (_known(triple, at) for at, entry in enumerate(top) for triple in entry),
    ).best(topk)
