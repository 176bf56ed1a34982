"""vLLM's own `prompt_logprobs`: every entry is keyed by token id, so the ids are proved without any flag."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, JsonValue, TypeAdapter

from distillkit.errors import AlignmentError
from distillkit.files.strict_json import shortened
from distillkit.token_arrays import NO_ID
from distillkit_builtin.http.dialects.dialect import (
    Logprob,
    ScoreQuery,
    TokenKey,
    TokenLogprobs,
    UnprovedError,
    require_length,
    require_model,
    validated,
)
from distillkit_builtin.remote.candidates import Candidates
from distillkit_builtin.remote.request_fields import COMPLETIONS


class _Entry(BaseModel):
    """One token at one position; `rank` 1 has the highest logprob."""

    logprob: Logprob
    rank: int | None = None


class _Answer(BaseModel):
    """What is looked at before the rest is read."""

    model: str | None = None
    choices: object = None


_ANSWER = TypeAdapter(_Answer)
_ENTRIES = TypeAdapter(list[dict[TokenKey, _Entry]])


@dataclass(frozen=True, slots=True)
class PromptLogprobs:
    """`POST /v1/completions` with `prompt_logprobs`.

    With K the server gives the top-k tokens of each position and the token that stands there, which is K or K + 1
    entries in no particular order. The prompt's part of the response cannot be left out at this endpoint.
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
        """The ids and logprobs of the response's tokens, each looked up by its id; the prompt's must be its own."""
        entries = _prompt_logprobs(body, query)
        sampled_ids = query.response_ids.tolist()
        require_length(entries, len(query.prompt_ids) + len(sampled_ids), "prompt_logprobs")
        _require_prompt(entries, query)
        tail = validated(_ENTRIES, entries[len(query.prompt_ids) :], "prompt_logprobs")
        found = Candidates.of(
            [len(entry) for entry in tail],
            (index for entry in tail for index in entry),
            (each.logprob for entry in tail for each in entry.values()),
        )
        logprobs = _of_sampled(found, query)
        return TokenLogprobs.of(sampled_ids, logprobs, found.best(query.topk) if query.topk else None)


def _prompt_logprobs(body: JsonValue, query: ScoreQuery) -> list[JsonValue]:
    answer = validated(_ANSWER, body, "the response")
    require_model(answer.model, query)
    choices = answer.choices
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise AlignmentError("the response holds no single choice")
    entries = choices[0].get("prompt_logprobs")
    if entries is None:
        raise UnprovedError("the server ignores prompt_logprobs")
    if not isinstance(entries, list):
        raise AlignmentError(f"prompt_logprobs is no list but {type(entries).__name__}")
    return entries


def _require_prompt(entries: list[JsonValue], query: ScoreQuery) -> None:
    """Raise AlignmentError where another prompt was read; nothing stands before its first token, whose entry is null.

    Only keys are looked at: of a long prompt, to read all logprobs would take longer than the response's.
    """
    for at, sent in enumerate(query.prompt_ids.tolist()[1:], 1):
        entry = entries[at]
        if not isinstance(entry, dict) or str(sent) not in entry:
            named = shortened(" or ".join(entry), 100) if isinstance(entry, dict) else ""
            raise AlignmentError(f"the server read id {named or 'nothing'} as prompt token {at}, {sent} was sent")


def _of_sampled(found: Candidates, query: ScoreQuery) -> npt.NDArray[np.float64]:
    """[R] the logprobs of the query's response. Raises AlignmentError where another token was scored.

    An entry beyond the top-k is there for the token itself, so that one has the lowest logprob of them; the sampled id
    may be among the others because another token was scored.
    """
    there = found.ids == query.response_ids[:, None]
    for at in np.flatnonzero(~there.any(axis=1)):
        named = " or ".join(str(index) for index in found.ids[at, : found.counts[at]])
        raise _another(query, int(at), shortened(named, 100) or "nothing")
    logprobs: npt.NDArray[np.float64] = found.logprobs[np.arange(len(there)), there.argmax(axis=1)]
    lowest = np.where(found.ids == NO_ID, np.inf, found.logprobs)
    for at in np.flatnonzero((found.counts > query.topk) & (lowest.min(axis=1, initial=np.inf) < logprobs)):
        raise _another(query, int(at), str(found.ids[at, lowest[at].argmin()]))
    return logprobs


def _another(query: ScoreQuery, at: int, other: str) -> AlignmentError:
    return AlignmentError(f"token {at}: the server scored id {other}, not the sampled {query.response_ids[at]}")
