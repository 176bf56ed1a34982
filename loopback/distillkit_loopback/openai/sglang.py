"""`POST /generate`, as SGLang has it.

`input_token_logprobs` are those of `input_ids[logprob_start_len:]`, one entry a token; the first entry's logprob is
always null, also where something stands before it: to have the logprob of token t, start at t - 1. With -1, the
default, the response holds nothing about the input. (SGLang's scheduler and `SchedulerLogprobResultProcessor`; before
2026 a start of -1 meant the last input token, with its null.)

Among the input's ids the vocabulary's last is named 0, with the right logprob. `token_ids_logprob` names given ids at
each position of the input (of the output, it is not computed here).

The output's logprobs are those at the sampling temperature where the engine is `processed`, as SGLang's are unless it
was started with `SGLANG_RETURN_ORIGINAL_LOGPROB=1`. Left out: without `--enable-deterministic-inference` SGLang ignores
seeds; here they count.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pydantic import JsonValue

from distillkit_loopback.openai.bodies import sampling_params
from distillkit_loopback.openai.choices import ended_text
from distillkit_loopback.openai.completion import Completion, Entry, Task
from distillkit_loopback.openai.engine import Engine
from distillkit_loopback.openai.errors import Refused, read
from distillkit_loopback.openai.faults import Fault
from distillkit_loopback.openai.models import AdapterError, Model
from distillkit_loopback.openai.routes import Function
from distillkit_loopback.openai.sglang_bodies import GenerateBody
from distillkit_loopback.openai.sglang_management import unseen
from distillkit_loopback.sampling_fields import SamplingFields
from distillkit_loopback.transport.messages import Request, Response


class Generate:
    """The endpoint `POST /generate`."""

    def __init__(self, engine: Engine) -> None:
        """Serve the engine's base model, and its adapters."""
        self._engine = engine

    def routes(self) -> Mapping[tuple[str, str], Function]:
        """The handlers by HTTP method and path."""
        return {("POST", "/generate"): self._generate}

    def _generate(self, request: Request, fault: Fault | None) -> Response:
        body = read(GenerateBody, request.body)
        model = self._model(body.lora_path)
        version = self._engine.catalogue.weight_version
        if (body.text is None) == (body.input_ids is None):
            raise Refused(400, "Either text or input_ids should be provided.")
        prompt = self._engine.ids(model, body.input_ids if body.input_ids is not None else body.text or "")
        self._require_possible(body, len(prompt))
        start, top = body.logprob_start_len, body.top_logprobs_num if body.return_logprob else None
        about_input = body.return_logprob and 0 <= start < len(prompt)
        seed = self._engine.seed(body.sampling_params.sampling_seed, prompt)
        task = Task(prompt, self._params(body, len(prompt)), seed, top if about_input else None, top)
        completion = self._engine.compute(model, task, fault)
        return Response(_body(completion, task.params, body, model, version))

    def _params(self, body: GenerateBody, length: int) -> SamplingFields:
        """Those of the request, less the tokens that the scheduler has no room for (`max_req_len`), without a word."""
        params = sampling_params(body.sampling_params)
        return replace(params, max_tokens=min(params.max_tokens, self._engine.catalogue.context_length - 2 - length))

    def _model(self, adapter: str | None) -> Model:
        """The base model for None. An adapter that was unloaded is loaded again from where it was, without a word."""
        catalogue = self._engine.catalogue
        if not adapter:
            return catalogue.base
        path = catalogue.once_loaded.get(adapter)
        if path is None:
            names = ", ".join(map(repr, catalogue.once_loaded))
            raise Refused(
                400,
                f"Got LoRA adapter that has never been loaded: {adapter}\nAll loaded adapters: dict_keys([{names}]).",
            )
        if adapter not in catalogue.adapters:
            problem = unseen(path, "adapter_config.json")
            try:
                if problem is not None:
                    raise AdapterError(problem)
                catalogue.add(adapter, path)
            except AdapterError as error:
                raise Refused(400, f"Failed to implicitly load LoRA adapter {adapter}: {error}") from error
        return catalogue.find(adapter)

    def _require_possible(self, body: GenerateBody, length: int) -> None:
        body.require_computed()
        limit, total = self._engine.catalogue.context_length, length + body.sampling_params.max_new_tokens
        if length >= limit or total > limit:
            raise Refused(400, f"Requested token count exceeds the model's maximum context length of {limit} tokens.")
        if length >= limit - 6:
            raise Refused(
                400,
                f"Input length ({length} tokens) exceeds the maximum allowed length ({limit - 6} tokens). Use a "
                "shorter input or enable --allow-auto-truncate.",
            )
        if body.return_logprob and body.logprob_start_len > length:
            start = f"req.logprob_start_len={body.logprob_start_len}"
            count = f"len(req.origin_input_ids)={length}"
            raise Refused(400, f"{start} is higher than the number of input tokens {count}.")


def _body(completion: Completion, params: SamplingFields, body: GenerateBody, model: Model, version: str) -> JsonValue:
    special, included = not body.sampling_params.skip_special_tokens, body.sampling_params.no_stop_trim
    text, matched = ended_text(completion, params, model, special=special, included=included)
    sampled = len(completion.sampled_ids)
    span: dict[str, JsonValue] = {"version": version, "start": 0, "end": sampled}
    meta: dict[str, JsonValue] = {
        "id": "loopback",
        "finish_reason": _finish_reason(completion, params, matched),
        "prompt_tokens": len(completion.prompt_ids),
        "completion_tokens": sampled,
        "cached_tokens": 0,
        "weight_version": version,
        "weight_versions": [span],
    }
    if body.return_logprob:
        show = model if body.return_text_in_logprobs else None
        requested = completion.prompt[body.logprob_start_len :] if completion.prompt else ()
        # The scheduler puts a null before what it computed, whatever stands in front of the first token.
        entries = [Entry(requested[0].token_id, None), *requested[1:]] if requested else []
        last = model.vocabulary - 1
        named = [replace(entry, token_id=0) if entry.token_id == last else entry for entry in entries]
        meta |= _logprobs("input", named, completion, body, show) | _logprobs(
            "output", completion.sampled or (), completion, body, show
        )
        if entries and body.token_ids_logprob:
            meta["input_token_ids_logprobs"] = _given_ids(entries, completion, body.token_ids_logprob, model)
    whole: dict[str, JsonValue] = {"text": text, "meta_info": meta}
    return {**whole, "output_ids": [*completion.sampled_ids]} if completion.names_ids else whole


def _given_ids(entries: Sequence[Entry], completion: Completion, ids: Sequence[int], model: Model) -> list[JsonValue]:
    """`[[logprob, id, null], ...]` a token, of the given `ids`; null where the token's own logprob is null."""
    start = len(completion.prompt_ids) - len(entries) + 1
    scored = model.score(completion.prompt_ids, start, model.vocabulary)
    rows = [
        dict(zip(*row, strict=True))
        for row in zip(scored.topk_ids.tolist(), scored.topk_logprobs.tolist(), strict=True)
    ]
    found: list[JsonValue] = [None]
    found.extend([[row[index], index, None] for index in ids] for row in rows)
    return found


def _finish_reason(completion: Completion, params: SamplingFields, matched: str | int | None) -> JsonValue:
    if completion.finish_reason == "length":
        return {"type": "length", "length": params.max_tokens}
    return {"type": "stop", "matched": completion.sampled_ids[-1] if matched is None else matched}


def _logprobs(
    side: str, entries: Sequence[Entry], completion: Completion, body: GenerateBody, show: Model | None
) -> dict[str, JsonValue]:
    """`[logprob, id, text or null]` a token; `show` is None for a null text."""

    def triple(index: int, logprob: float | None) -> JsonValue:
        return [
            logprob,
            index if completion.names_ids else None,
            None if show is None else show.tokenizer.show([index]),
        ]

    found: dict[str, JsonValue] = {
        f"{side}_token_logprobs": [triple(entry.token_id, entry.logprob) for entry in entries]
    }
    if body.top_logprobs_num:
        found[f"{side}_top_logprobs"] = [
            [triple(each.token_id, each.logprob) for each in entry.topk] or None for entry in entries
        ]
    return found
