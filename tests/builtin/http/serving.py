"""What the tests of the loopback server, of scorer `http` and of sampler `vllm` share."""

import base64
import io
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from loopback.openai.wire import COMPLETIONS, PROMPT, expected

from distillkit.arrays import token_ids
from distillkit.context import RunContext
from distillkit.records import Failure, Score, ScoreRequest
from distillkit.testing import ByteTokenizer, make_context, make_rollout, make_teacher
from distillkit.tokenizer import Tokenizer
from distillkit_builtin.http.scorer import HttpScorer
from distillkit_loopback.openai.categorical import CategoricalModel
from distillkit_loopback.openai.server import LoopbackServer

RESPONSE = [80, 81, 7, 83, 200, 84]


class ByteScorer(HttpScorer):
    """Scorer `http` for the fake student, whose tokens are bytes."""

    name: ClassVar[str] = "http_bytes"

    def tokenizer(self, run: RunContext) -> Tokenizer:
        return run.share("byte tokenizer", ByteTokenizer)


def scorer(*servers: LoopbackServer, model: str = "loopback", **options: Any) -> ByteScorer:
    """Bound to a teacher called `teacher`."""
    url: Any = servers[0].url if len(servers) == 1 else [server.url for server in servers]
    plugin = ByteScorer(**{"base_url": url, **options})
    plugin.bind(make_teacher(model=model))
    return plugin


@asynccontextmanager
async def opened(plugin: Any, run: RunContext | None = None) -> AsyncIterator[Any]:
    run = run or make_context()
    plugin.check(run)
    try:
        await plugin.open(run)
        yield plugin
    finally:
        await plugin.close()
        await run.shared.release(run.user)


def score_requests(
    count: int = 1, ids: Sequence[int] = RESPONSE, prompt: Sequence[int] = PROMPT, **asked: Any
) -> list[ScoreRequest]:
    """`asked`: `topk`, `at_ids`."""
    return [ScoreRequest(make_rollout(ids, sample=i), "teacher", token_ids(prompt), **asked) for i in range(count)]


def needing(**needs: int) -> RunContext:
    """A run whose loss needs this of its scorers."""
    return replace(make_context(), scorer_needs=needs)


def table_at(
    ids: Any, response: Sequence[int] = RESPONSE, prompt: Sequence[int] = PROMPT, model: CategoricalModel | None = None
) -> Any:
    """[R, K] what a CategoricalModel makes of `ids` [R, K]; minus infinity where an id is -1."""
    rows = [(model or CategoricalModel()).distribution(before) for before in (prompt[-1], *response[:-1])]
    found = [[-np.inf if i < 0 else row[i] for i in at] for row, at in zip(rows, ids, strict=True)]
    return np.array(found, np.float32)


async def outcomes(plugin: Any, requests: Sequence[ScoreRequest]) -> list[Score | Failure]:
    """In the order of the requests."""
    found = [outcome async for outcome in plugin.score(requests)]
    assert len(found) == len(requests)
    return sorted(found, key=lambda outcome: outcome.request.key)


def truth(ids: Sequence[int] = RESPONSE, prompt: Sequence[int] = PROMPT, model: CategoricalModel | None = None) -> Any:
    """What a CategoricalModel makes of a response."""
    return np.array(expected([prompt[-1], *ids], model), np.float32)


def bodies(server: LoopbackServer, path: str = COMPLETIONS) -> list[dict[str, Any]]:
    return [request.body for request in server.traffic.requests(path) if isinstance(request.body, dict)]


def token_answer(values: Any, dtype: Any = np.float32) -> dict[str, Any]:
    """The answer of vLLM's token interface: an array, and the ids of prompt and response that were read."""
    file = io.BytesIO()
    np.save(file, np.array(values, dtype))
    return {"prompt_token_id_logprobs": base64.b64encode(file.getvalue()).decode(), "prompt_token_ids": [1, 2, 3, 4]}
