"""`echo` with `logprobs`, as OpenAI's completions had it: vLLM, and others, where they name tokens by id."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pydantic import BaseModel, JsonValue, TypeAdapter

from distillkit.errors import AlignmentError
from distillkit_builtin.http.dialects.dialect import (
    Logprob,
    ScoreQuery,
    TokenId,
    TokenLogprobs,
    UnprovedError,
    require_length,
    require_model,
    require_prompt,
    validated,
)
from distillkit_builtin.remote.candidates import Candidates, TopK
from distillkit_builtin.remote.request_fields import COMPLETIONS

BY_ID = re.compile(r"token_id:([0-9]{1,10})")


class _Logprobs(BaseModel):
    """The lists begin with the prompt's first token, whose logprob is null."""

    tokens: list[str]
    token_logprobs: list[Logprob | None]
    top_logprobs: list[dict[str, Logprob] | None] | None = None


class _Choice(BaseModel):
    logprobs: _Logprobs
    prompt_token_ids: list[TokenId] | None = None


class _Response(BaseModel):
    model: str | None = None
    choices: list[_Choice]


_RESPONSE = TypeAdapter(_Response)


@dataclass(frozen=True, slots=True)
class Echo:
    """`POST /v1/completions` with `echo` and `logprobs`.

    Ids are proved by tokens of the form `token_id:17` (vLLM's `return_tokens_as_token_ids`), else by `prompt_token_ids`
    in the response (`return_token_ids`), which stand beside the logprobs and not with them; both are requested.
    """

    max_tokens: int = 0
    """How many tokens are generated: none where the server allows that, else one that is ignored."""

    name: ClassVar[str] = "echo"
    path: ClassVar[str] = "/v1/completions"

    def payload(self, query: ScoreQuery) -> dict[str, JsonValue]:
        """The request's body; with `logprobs: 0` some servers give none at all."""
        return {
            **COMPLETIONS,
            "model": query.model,
            "prompt": list(query.ids),
            "max_tokens": self.max_tokens,
            "echo": True,
            "logprobs": max(1, query.topk),
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
        }

    def parse(self, body: JsonValue, query: ScoreQuery) -> TokenLogprobs:
        """The ids and logprobs of the response's tokens, whose entries follow the prompt's."""
        response = validated(_RESPONSE, body, "the response")
        require_model(response.model, query)
        choices = response.choices
        require_length(choices, 1, "choices")
        found = choices[0].logprobs
        total, start = len(query.prompt_ids) + len(query.response_ids), len(query.prompt_ids)
        generated = len(found.token_logprobs) - total
        require_length(found.token_logprobs, total + min(max(generated, 0), self.max_tokens), "token_logprobs")
        require_length(found.tokens, len(found.token_logprobs), "tokens")
        ids = _ids(found.tokens, choices[0].prompt_token_ids)[:total]
        require_length(ids, total, "token ids")
        require_prompt(ids, query)
        logprobs = [_known(value, at) for at, value in enumerate(found.token_logprobs[start:total])]
        return TokenLogprobs.of(ids[start:], logprobs, _topk(found.top_logprobs, start, query))


def _ids(tokens: Sequence[str], prompt_token_ids: Sequence[int] | None) -> Sequence[int]:
    found = [BY_ID.fullmatch(token) for token in tokens]
    ids = [int(match.group(1)) for match in found if match is not None]
    if len(ids) == len(tokens):
        return ids
    if prompt_token_ids is not None:
        return prompt_token_ids
    raise UnprovedError(
        "the server echoes tokens as text, which does not prove their ids; start it with "
        "--return-tokens-as-token-ids (vLLM)"
    )


def _known(value: float | None, at: int) -> float:
    if value is None:
        raise AlignmentError(f"the logprob of token {at} is null")
    return value


def _topk(top: Sequence[Mapping[str, float] | None] | None, start: int, query: ScoreQuery) -> TopK | None:
    """The top-k tokens at each position of the response; by id only, since different tokens may have the same text."""
    if not query.topk:
        return None
    if top is None:
        raise AlignmentError("the response holds no top_logprobs")
    end = start + len(query.response_ids)
    require_length(top[:end], end, "top_logprobs")
    return named_by_id(top[start:end]).best(query.topk)


def named_by_id(entries: Sequence[Mapping[str, float] | None]) -> Candidates:
    """The tokens of `top_logprobs`, which has them as `token_id:17`. Raises UnprovedError for any other name."""
    found = [entry or {} for entry in entries]
    matches = [BY_ID.fullmatch(token) for entry in found for token in entry]
    ids = [int(match.group(1)) for match in matches if match is not None]
    if len(ids) < len(matches):
        raise UnprovedError(
            "top_logprobs names tokens by text; start the server with --return-tokens-as-token-ids (vLLM)"
        )
    return Candidates.of([len(entry) for entry in found], ids, (value for entry in found for value in entry.values()))
