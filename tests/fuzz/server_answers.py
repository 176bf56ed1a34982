"""Fuzz targets that read what servers answer."""

import asyncio
import functools
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np

from distillkit.arrays import token_ids
from distillkit.errors import AlignmentError, InputError
from distillkit.records import Score, ScoreRequest
from distillkit.testing import ByteTokenizer, make_request, make_rollout
from distillkit_builtin.fireworks.completions import sample_completion, score_completion
from distillkit_builtin.http.completions import Completions
from distillkit_builtin.http.dialects.dialect import Dialect, ScoreQuery, UnprovedError, parse_scores
from distillkit_builtin.http.dialects.vllm_tokens import VllmTokens
from distillkit_builtin.http.live_teacher import as_score
from distillkit_builtin.http.models import find_model, served_models
from distillkit_builtin.http.sampled import CompletionForm
from distillkit_builtin.http.sglang_completions import SGLangCompletions, sglang_weight_versions
from distillkit_builtin.remote.keys import Key
from distillkit_builtin.remote.response import read_response
from distillkit_builtin.remote.results import AttemptError, RefusedError
from distillkit_builtin.vllm.token_completions import TokenCompletions, weight_versions
from fuzz.required import (
    PROMPT,
    RESPONSE,
    require_harmless,
    require_likely,
    require_possible,
    require_sampled,
    require_short,
)

NO_KEY = Key.read(None)


def body_of(data: bytes) -> Any:
    """A body as the remote backends read it; None where it is no JSON."""
    try:
        return read_response(httpx.Response(200, content=data), "http://a", 1.0, NO_KEY).value
    except AttemptError as error:
        require_short(error)
        return None


def scores(dialect: Dialect, data: bytes) -> None:
    """An answer of a teacher; what is accepted has possible logprobs of exactly the tokens that were sent."""
    answer = body_of(data)
    rollout = make_rollout(RESPONSE)
    for topk in (0, 2):
        query = ScoreQuery("m", token_ids(PROMPT), token_ids(RESPONSE), topk)
        try:
            dialect.parse(answer, query)
        except (AlignmentError, UnprovedError) as error:
            require_short(error)
        try:
            scored = parse_scores(dialect, answer, query, "this")
            require_possible(as_score(ScoreRequest(rollout, "t", token_ids(PROMPT)), scored))
        except AlignmentError as error:
            require_short(error)


def given_ids(data: bytes) -> None:
    """An answer of vLLM's token interface; what is accepted has possible logprobs of the ids that were asked for."""
    ids = np.array([[5, -1], [6, 7]])
    query = ScoreQuery("m", token_ids(PROMPT), token_ids(RESPONSE), at_ids=ids)
    try:
        scored = parse_scores(VllmTokens(), body_of(data), query, "this")
        score = as_score(ScoreRequest(make_rollout(RESPONSE), "t", token_ids(PROMPT), at_ids=ids), scored)
    except AlignmentError as error:
        require_short(error)
        return
    require_likely(score.logprobs.tolist())
    found = score.arrays["at_logprobs"]
    assert found.shape == ids.shape
    assert (found <= 0.01).all()  # NaN is not
    assert found[0, 1] == -np.inf


FORMS: Mapping[str, CompletionForm] = {
    "completion": Completions(),
    "token_completion": TokenCompletions(ByteTokenizer()),
    "sglang_completion": SGLangCompletions(),
}


def completion(form: CompletionForm, data: bytes) -> None:
    """An answer with a completion."""
    body = body_of(data)
    try:
        sampled = form.parse(body, make_request(), "m", 3)
        if not isinstance(form, Completions):
            versions = weight_versions if isinstance(form, TokenCompletions) else sglang_weight_versions
            assert all(isinstance(version, str) for version in versions(body, "it"))
    except AlignmentError as error:
        require_short(error)
        return
    require_sampled(sampled)


def models(data: bytes) -> None:
    """The list of what a server serves."""
    try:
        found = find_model(served_models(body_of(data), "http://a"), "m", "http://a")
        assert found.max_model_len is None or found.max_model_len > 0
    except InputError as error:
        require_short(error)


def response(data: bytes) -> None:
    """A whole response: the first line is status and kind of call, the next ones headers, and then comes the body."""
    head, _, content = data.partition(b"\n\n")
    status, *lines = head.split(b"\n")
    headers = [tuple(line.split(b":", 1)) for line in lines if b":" in line]
    try:
        received = httpx.Response(200 + int.from_bytes(status[:2]) % 400, content=content, headers=headers)
        received.content  # noqa: B018 - what cannot be decompressed is handled by `Connection.send`
    except (httpx.DecodingError, ValueError):
        return
    for lenient in (False, True):
        try:
            read_response(received, "http://a", 1.0, NO_KEY, lenient=lenient)
        except (RefusedError, AttemptError) as error:
            require_short(error)
            require_harmless(str(error), getattr(error, "retry_after", None))


def fireworks(data: bytes) -> None:
    """A stream's choice, as the SDK puts it together and makes a completion of it; it checks little of that."""
    choice = body_of(data)
    if not isinstance(choice, dict):
        return
    sampler = SimpleNamespace(sample_with_prompt_tokens_result=functools.partial(_as_the_sdk_does, choice))
    endpoint: Any = SimpleNamespace(sampler=sampler)
    scored = ScoreRequest(make_rollout(RESPONSE), "t", token_ids(PROMPT))
    for ask in (
        functools.partial(sample_completion, endpoint, make_request(), 3, ByteTokenizer(), 1.0),
        functools.partial(score_completion, endpoint, scored, 1.0),
    ):
        try:
            outcome = asyncio.run(ask())
        except AlignmentError as error:
            require_short(error)
            continue
        if isinstance(outcome, Score):
            require_possible(outcome)
        else:
            require_sampled(outcome)


async def _as_the_sdk_does(choice: Any, prompt: list[int], *, echo: bool = False, **options: Any) -> Any:
    from fireworks.training.sdk.sampling import DeploymentSampler

    parse = functools.partial(DeploymentSampler._parse_completions_result, _SdkSampler())
    return SimpleNamespace(completions=parse({"choices": [choice]}, prompt, None, True, False, echo, False))


class _SdkSampler:
    """As much of the SDK's sampler as its parser asks for."""

    r3_store_id = None

    def __getattr__(self, name: str) -> Any:
        from fireworks.training.sdk.sampling import DeploymentSampler

        return getattr(DeploymentSampler, name)
