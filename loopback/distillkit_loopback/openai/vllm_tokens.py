"""`POST /inference/v1/generate`, as vLLM 0.32 has it with `--enable-scale-out`: tokens in, tokens and arrays out.

Row i of `prompt_token_id_logprobs` is of prompt token `prompt_logprob_start + i + 1`, its columns are of the ids that
the request names there, minus infinity for -1. Left out: streams, logprobs of what is sampled, `prompt_logprobs`.
"""

import base64
import io

import numpy as np
from pydantic import JsonValue

from distillkit_loopback.openai.bodies import TokensBody, sampling_params
from distillkit_loopback.openai.completion import Task
from distillkit_loopback.openai.engine import Engine
from distillkit_loopback.openai.errors import Refused, read
from distillkit_loopback.openai.faults import Fault
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
        params = body.sampling_params
        task = Task(prompt, sampling_params(params), self._engine.seed(params.seed, prompt), None, None)
        completion = self._engine.compute(model, task, fault)
        scores = None if params.prompt_logprob_token_ids is None else _encoded(_scores(model, prompt, body))
        choice: dict[str, JsonValue] = {
            "index": 0,
            "token_ids": [*completion.sampled_ids],
            "logprobs": None,
            "finish_reason": completion.finish_reason,
        }
        whole: dict[str, JsonValue] = {"request_id": "loopback", "choices": [choice], "prompt_logprobs": None}
        return Response({**whole, "prompt_token_id_logprobs": scores})

    def _require_possible(self, body: TokensBody, length: int, vocabulary: int) -> None:
        params = body.sampling_params
        params.require_computed()
        if body.stream:
            raise Refused(400, "the loopback server does not stream", param="stream")
        if length + params.max_tokens > self._engine.catalogue.context_length:
            raise Refused(
                400, f"This model's maximum context length is {self._engine.catalogue.context_length} tokens."
            )
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
