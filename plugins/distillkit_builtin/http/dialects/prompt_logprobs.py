"""vLLM's own `prompt_logprobs`: every entry is keyed by token id, so the ids are proved without any flag."""

from dataclasses import dataclass
from typing import ClassVar

from pydantic import BaseModel, JsonValue, TypeAdapter

from distillkit.errors import AlignmentError
from distillkit.files.strict_json import shortened
from distillkit_builtin.http.dialects.dialect import (
    Logprob,
    ScoreQuery,
    TokenKey,
    TokenLogprobs,
    TopK,
    UnprovedError,
    best_k,
    require_length,
    validated,
)
from distillkit_builtin.remote.request_fields import COMPLETIONS


class _Entry(BaseModel):
    """One token at one position; `rank` 1 has the highest logprob."""

    logprob: Logprob
    rank: int | None = None


_ENTRIES = TypeAdapter(list[dict[TokenKey, _Entry]])


@dataclass(frozen=True, slots=True)
class PromptLogprobs:
    """`POST /v1/completions` with `prompt_logprobs`.

    With K the server gives the top-k tokens of each position and the token that stands there, which is K or K + 1
    entries in no particular order. The prompt's part of the response cannot be left out over HTTP (vLLM 0.32).
    """

    max_tokens: int = 0
    """How many tokens are generated: none where the server allows that beside `echo`, else one that is ignored."""

    name: ClassVar[str] = "prompt_logprobs"
    path: ClassVar[str] = "/v1/completions"

    def payload(self, query: ScoreQuery) -> dict[str, JsonValue]:
        """The request's JSON body that scores `query`."""
        return {
            **COMPLETIONS,
            "model": query.model,
            "prompt": list(query.ids),
            "max_tokens": self.max_tokens,
            "echo": self.max_tokens == 0,
            "prompt_logprobs": query.topk,
        }

    def parse(self, body: JsonValue, query: ScoreQuery) -> TokenLogprobs:
        """The ids and logprobs of the response's tokens, each looked up by its id."""
        entries = _prompt_logprobs(body)
        sampled_ids = query.response_ids.tolist()
        require_length(entries, len(query.prompt_ids) + len(sampled_ids), "prompt_logprobs")
        tail = validated(_ENTRIES, entries[len(query.prompt_ids) :], "prompt_logprobs")
        logprobs: list[float] = []
        topk: list[TopK] = []
        for at, (index, entry) in enumerate(zip(sampled_ids, tail, strict=True)):
            other = _scored_instead(index, entry, query.topk)
            if other is not None:
                raise AlignmentError(f"token {at}: the server scored id {other}, not the sampled {index}")
            logprobs.append(entry[index].logprob)
            if query.topk:
                topk.append(best_k([(i, e.logprob) for i, e in entry.items()], query.topk, at))
        return TokenLogprobs.of(sampled_ids, logprobs, topk if query.topk else None)


def _prompt_logprobs(body: JsonValue) -> list[JsonValue]:
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise AlignmentError("the response holds no single choice")
    entries = choices[0].get("prompt_logprobs")
    if entries is None:
        raise UnprovedError("the server ignores prompt_logprobs")
    if not isinstance(entries, list):
        raise AlignmentError(f"prompt_logprobs is no list but {type(entries).__name__}")
    return entries


def _scored_instead(index: int, entry: dict[int, _Entry], topk: int) -> str | None:
    """Which id stands there, if that is not `index`.

    An entry beyond the top-k is there for the token itself, so that one has the lowest logprob of them; `index` may be
    among the others because another token was scored.
    """
    if index not in entry:
        return shortened(" or ".join(map(str, entry)), 100) or "nothing"
    if len(entry) <= topk:
        return None
    least = min(entry, key=lambda each: entry[each].logprob)
    return str(least) if entry[least].logprob < entry[index].logprob else None
