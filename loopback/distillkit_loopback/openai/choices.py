"""A completion in the form of `/v1/completions`."""

from collections.abc import Iterator

from pydantic import JsonValue

from distillkit.types import SamplingParams
from distillkit_loopback.openai.bodies import CompletionBody, sampling_params
from distillkit_loopback.openai.completion import Candidate, Completion, Entry
from distillkit_loopback.openai.models import Model


def choice(completion: Completion, body: CompletionBody, model: Model) -> dict[str, JsonValue]:
    """The one choice of a response, in full."""
    with_ids = body.return_token_ids and completion.names_ids
    params = sampling_params(body)
    included, special = body.include_stop_str_in_output, not body.skip_special_tokens
    text, stopped_by = ended_text(completion, params, model, special=special, included=included)
    if body.max_tokens == 0:
        text = ""
    if body.echo and not body.return_token_ids:  # vLLM has no prompt's text when it is to return ids
        text = model.tokenizer.show(completion.prompt_ids) + text
    prompt = completion.prompt if body.prompt_logprobs is not None or body.echo else None
    return {
        "index": 0,
        "text": text,
        "logprobs": _logprobs(completion, body, model),
        "finish_reason": completion.finish_reason,
        "stop_reason": stopped_by,
        "token_ids": [*completion.sampled_ids] if with_ids else None,
        "prompt_token_ids": [*completion.prompt_ids] if with_ids else None,
        "prompt_logprobs": None if prompt is None else [_by_id(entry, model) for entry in prompt],
    }


def ended_text(
    completion: Completion, params: SamplingParams, model: Model, *, special: bool, included: bool
) -> tuple[str, str | int | None]:
    """The completion's text, up to the stop string or id that ended it, and that; None for an EOS id of the model.

    `special`: with special tokens; `included`: with what ended it.
    """
    ids, read = completion.sampled_ids, model.tokenizer.show if special else model.tokenizer.decode
    if completion.finish_reason != "stop" or ids[-1] in model.eos_ids:
        return read(ids), None
    if ids[-1] in params.stop_ids:
        return read(ids if included else ids[:-1]), ids[-1]
    text = read(ids)
    found = [stop for stop in params.stop if stop in text]
    if not found:
        return text, None
    first = min(found, key=text.index)
    return text[: text.index(first) + (len(first) if included else 0)], first


def _by_id(entry: Entry, model: Model) -> JsonValue:
    """The token that stands there first, then the top-k: K or K + 1 entries."""
    if entry.logprob is None and not entry.rank:
        return None
    return {
        str(index): {"logprob": logprob, "rank": rank, "decoded_token": model.tokenizer.show([index])}
        for index, logprob, rank in _ranked(entry)
    }


def _ranked(entry: Entry) -> Iterator[tuple[int, float | None, int]]:
    yield entry.token_id, entry.logprob, entry.rank
    for each in entry.topk:
        if each.token_id != entry.token_id:
            yield each.token_id, each.logprob, each.rank


def _logprobs(completion: Completion, body: CompletionBody, model: Model) -> JsonValue:
    """Of what is echoed and what was sampled, end to end; `text_offset` counts characters of the tokens before."""
    if body.logprobs is None:
        return None
    entries = [*((completion.prompt or ()) if body.echo else ()), *(completion.sampled or ())]
    as_ids = body.return_tokens_as_token_ids and completion.names_ids
    tokens = [_token(entry.token_id, model, as_ids=as_ids) for entry in entries]
    offsets, offset = [], 0
    for token in tokens:
        offsets.append(offset)
        offset += len(token)
    return {
        "text_offset": [*offsets],
        "token_logprobs": [entry.logprob for entry in entries],
        "tokens": [*tokens],
        "top_logprobs": [_top(entry, body.logprobs, model, as_ids=as_ids) for entry in entries],
    }


def _top(entry: Entry, count: int, model: Model, *, as_ids: bool) -> JsonValue:
    if entry.logprob is None and not entry.rank:
        return None
    topk: tuple[Candidate, ...] = entry.topk[:count]
    rest = {each.token_id: each.logprob for each in topk if each.token_id != entry.token_id}
    values = {entry.token_id: entry.logprob, **rest}
    return {_token(index, model, as_ids=as_ids): logprob for index, logprob in values.items()}


def _token(index: int, model: Model, *, as_ids: bool) -> str:
    return f"token_id:{index}" if as_ids else model.tokenizer.show([index])
