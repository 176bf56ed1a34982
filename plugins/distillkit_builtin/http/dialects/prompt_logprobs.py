"""vLLM's own `prompt_logprobs`: every entry is keyed by token id, so the ids are proved without any flag."""

from dataclasses import dataclass
from typing import ClassVar

from pydantic import BaseModel, JsonValue, TypeAdapter

from distillkit.errors import AlignmentError
from distillkit.files.strict_json import shortened
from distillkit_builtin.http.dialects.dialect import (
    Logprob,
    Question,
    Reading,
    TokenKey,
    TopK,
    UnprovedError,
    best_of,
    require_length,
    validated,
)


class _Entry(BaseModel):
    """What is said of one token at one position; `rank` 1 is the likeliest."""

    logprob: Logprob
    rank: int | None = None


_ENTRIES = TypeAdapter(list[dict[TokenKey, _Entry]])


@dataclass(frozen=True, slots=True)
class PromptLogprobs:
    """`POST /v1/completions` with `prompt_logprobs`.

    With K the server gives the K likeliest tokens of each position and the token that stands there, which is K or K + 1
    entries in no particular order. There is no way to leave out the prompt's part of the answer over HTTP (vLLM 0.32).
    """

    max_tokens: int = 0
    """How many are generated: none, where the server allows that beside `echo`, else one that nobody reads."""

    name: ClassVar[str] = "prompt_logprobs"
    path: ClassVar[str] = "/v1/completions"

    def payload(self, question: Question) -> dict[str, JsonValue]:
        """The request's body."""
        return {
            "model": question.model,
            "prompt": list(question.ids),
            "max_tokens": self.max_tokens,
            "echo": self.max_tokens == 0,
            "prompt_logprobs": question.topk,
            "temperature": 0.0,
        }

    def read(self, answer: JsonValue, question: Question) -> Reading:
        """Look each token up by its id."""
        entries = _prompt_logprobs(answer)
        wanted = question.response_ids.tolist()
        require_length(entries, len(question.prompt_ids) + len(wanted), "prompt_logprobs")
        tail = validated(_ENTRIES, entries[len(question.prompt_ids) :], "prompt_logprobs")
        logprobs: list[float] = []
        topk: list[TopK] = []
        for at, (index, entry) in enumerate(zip(wanted, tail, strict=True)):
            other = _scored_instead(index, entry, question.topk)
            if other is not None:
                raise AlignmentError(f"token {at}: the server scored id {other}, not the sampled {index}")
            logprobs.append(entry[index].logprob)
            if question.topk:
                topk.append(best_of([(i, e.logprob) for i, e in entry.items()], question.topk, at))
        return Reading.of(wanted, logprobs, topk if question.topk else None)


def _prompt_logprobs(answer: JsonValue) -> list[JsonValue]:
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise AlignmentError("the answer holds no single choice")
    entries = choices[0].get("prompt_logprobs")
    if entries is None:
        raise UnprovedError("the server ignores prompt_logprobs")
    if not isinstance(entries, list):
        raise AlignmentError(f"prompt_logprobs is no list but {type(entries).__name__}")
    return entries


def _scored_instead(index: int, entry: dict[int, _Entry], topk: int) -> str | None:
    """Which id stands there, if that is not `index`.

    An entry beyond the K likeliest is there for the token itself, so that one is the least likely of them; `index` may
    be among the others because another token was scored.
    """
    if index not in entry:
        return shortened(" or ".join(map(str, entry)), 100) or "nothing"
    if len(entry) <= topk:
        return None
    least = min(entry, key=lambda one: entry[one].logprob)
    return str(least) if entry[least].logprob < entry[index].logprob else None
