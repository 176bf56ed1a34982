"""`POST /inference/v1/generate`, as vLLM 0.32 has it with `--enable-scale-out`: tokens in, tokens and arrays out.

Row i of `prompt_token_id_logprobs` is of prompt token `prompt_logprob_start + i + 1`, its columns are of the ids that
the request names there, minus infinity for -1. `weight_versions` names the weights that sampled each token: the label
of the base model's, also where an adapter lies on them. Left out: streams, text, `prompt_logprobs`.
"""

import base64
import io

import numpy as np
from pydantic import JsonValue

from distillkit_loopback.openai.bodies import TokensBody, sampling_params
from distillkit_loopback.openai.completion import Candidate, Completion, Entry, Task
from distillkit_loopback.openai.engine import Engine
from distillkit_loopback.openai.errors import Refused, read
from distillkit_loopback.openai.faults import Fault, NoVersions, SeveralVersions
from distillkit_loopback.openai.models import Model, Numbers
from distillkit_loopback.transport.messages import Request, Response

NO_ID = -1


class Tokens:
    """The endpoint of a server that was started with `--enable-scale-out`, or without it."""

    def __init__(self, engine: Engine, *, scale_out: bool) -> None:
        """Without `scale_out` every request is refused."""
        self._engine = engine
        self._scale_out = scale_out

    def respond(self, request: Request, fault: Fault | None) -> Response:
        """The response to a request, with one choice."""
        if not self._scale_out:
            raise Refused(403, "Scale-out endpoints are disabled", "ForbiddenError")
        body = read(TokensBody, request.body)
        model = self._engine.catalogue.find(body.model)
        prompt = self._engine.ids(model, body.token_ids)
        self._require_possible(body, len(prompt), model.vocabulary)
        params, version = body.sampling_params, self._engine.catalogue.weight_version
        task = Task(prompt, sampling_params(params), self._engine.seed(params.seed, prompt), None, params.logprobs)
        completion = self._engine.compute(model, task, fault)
        scores = None if params.prompt_logprob_token_ids is None else _encoded(_scores(model, prompt, body))
        choice: dict[str, JsonValue] = {
            "index": 0,
            "token_ids": [*completion.sampled_ids] if completion.names_ids else None,
            "logprobs": _logprobs(completion, params.logprobs),
            "finish_reason": completion.finish_reason,
            "weight_versions": _weight_versions(version, len(completion.sampled_ids), fault),
        }
        return Response(
            {
                "request_id": "loopback",
                "model": body.model or self._engine.catalogue.name,
                "choices": [choice],
                "prompt_token_ids": [*prompt] if body.return_token_ids else None,
                "prompt_logprobs": None,
                "prompt_token_id_logprobs": scores,
            }
        )

    def _require_possible(self, body: TokensBody, length: int, vocabulary: int) -> None:
        params = body.sampling_params
        params.require_computed()
        if body.stream or body.output_mode != "tokens":
            raise Refused(400, "the loopback server sends tokens, and no stream", param="stream")
        if length + params.max_tokens > self._engine.catalogue.context_length:
            raise Refused(
                400, f"This model's maximum context length is {self._engine.catalogue.context_length} tokens."
            )
        if params.stop and not params.detokenize:
            raise Refused(400, "stop strings are only supported when detokenize is True.", param="stop")
        if (params.logprobs or 0) > self._engine.max_logprobs:
            most = f"greater than max allowed: {self._engine.max_logprobs}"
            raise Refused(400, f"Requested sample logprobs of {params.logprobs}, which is {most}", param="logprobs")
        rows, start = params.prompt_logprob_token_ids, params.prompt_logprob_start or 0
        if rows is None:
            return
        if len(rows) != length - 1 - start:
            raise Refused(400, f"prompt_logprob_token_ids has {len(rows)} rows, expected {length - 1 - start}")
        if max(map(len, rows), default=0) > self._engine.max_logprobs:
            most = f"greater than max allowed: {self._engine.max_logprobs}"
            raise Refused(400, f"Requested prompt logprobs of {max(map(len, rows))} token ids, which is {most}")
        if any(not NO_ID <= index < vocabulary for row in rows for index in row):
            raise Refused(400, "prompt_logprob_token_ids contain out-of-vocab token ids.")


def _logprobs(completion: Completion, top: int | None) -> JsonValue:
    """One entry a token; its candidates are the sampled token, then the most probable others, `top` of them in all."""
    if top is None or completion.sampled is None:
        return None
    entries: list[JsonValue] = []
    for entry in completion.sampled:
        listed = [_named(entry), *(_named(each) for each in entry.topk if each.token_id != entry.token_id)]
        entries.append({**_named(entry), "top_logprobs": [*listed[: max(top, 1)]]})
    return {"content": entries}


def _named(token: Entry | Candidate) -> dict[str, JsonValue]:
    return {"token_id": token.token_id, "logprob": token.logprob, "rank": token.rank}


def _weight_versions(label: str, count: int, fault: Fault | None) -> JsonValue:
    """The spans of output tokens by the label of the weights that sampled them."""
    match fault:
        case NoVersions():
            return None
        case SeveralVersions(other, at):
            first: JsonValue = {"version": label, "start": 0, "end": min(at, count)}
            return [first, {"version": other, "start": min(at, count), "end": count}]
    return [{"version": label, "start": 0, "end": count}]


def _scores(model: Model, prompt: tuple[int, ...], body: TokensBody) -> Numbers:
    """[rows, K] the logprobs of the ids that the request names."""
    params = body.sampling_params
    rows = params.prompt_logprob_token_ids or ()
    width = max(map(len, rows), default=0)
    ids = np.array([[*row, *[NO_ID] * (width - len(row))] for row in rows], np.int64).reshape(len(rows), width)
    scored = model.score(prompt, (params.prompt_logprob_start or 0) + 1, model.vocabulary)
    by_id = np.empty_like(scored.topk_logprobs)
    np.put_along_axis(by_id, scored.topk_ids, scored.topk_logprobs, axis=1)
    return np.where(ids == NO_ID, -np.inf, np.take_along_axis(by_id, np.maximum(ids, 0), axis=1))


def _encoded(scores: Numbers) -> str:
    file = io.BytesIO()
    np.save(file, scores.astype(np.float32))
    return base64.b64encode(file.getvalue()).decode()
