"""Completions that a teacher of scorer `http` writes."""

from typing import Any

import numpy as np
import pytest
from loopback.openai.wire import COMPLETIONS, Serve

from builtin.http.serving import bodies, opened, scorer, truth
from distillkit.arrays import token_ids
from distillkit.errors import AlignmentError
from distillkit.records import Failure, Rollout
from distillkit.testing import make_request
from distillkit_loopback.openai import faults


async def sample(plugin: Any, count: int = 3, **params: Any) -> list[Any]:
    requests = [make_request(sample=i, max_tokens=6, **params) for i in range(count)]
    found = [outcome async for outcome in plugin.sample(requests)]
    assert len(found) == count
    return sorted(found, key=lambda outcome: outcome.request.key)


async def test_the_teacher_samples_with_each_requests_own_seed(serve: Serve) -> None:
    server = serve()
    async with opened(scorer(server)) as plugin:
        first = await sample(plugin)
        again = await sample(plugin)
    for one, other in zip(first, again, strict=True):
        assert isinstance(one, Rollout)
        assert one.policy_version == 0
        assert one.finish_reason == "length"
        assert one.token_ids.tolist() == other.token_ids.tolist()
        ids, prompt = one.token_ids.tolist(), one.request.prompt_ids.tolist()
        np.testing.assert_array_equal(one.logprobs, truth(ids, prompt))
    assert first[0].token_ids.tolist() != first[1].token_ids.tolist()


async def test_what_is_requested_of_a_completion(serve: Serve) -> None:
    server = serve()
    async with opened(scorer(server)) as plugin:
        await sample(plugin, 1, temperature=0.5, top_p=0.9, top_k=7, stop=("x",), stop_ids=(257, 3))
    body = bodies(server)[-1]
    assert body["stop_token_ids"] == [257, 3]
    assert (body["temperature"], body["top_p"], body["top_k"], body["stop"]) == (0.5, 0.9, 7, ["x"])
    assert body["include_stop_str_in_output"] is True
    assert (body["logprobs"], body["return_token_ids"], body["max_tokens"]) == (1, True, 6)
    assert body["seed"] == make_request().seed


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (faults.NoIds(), "does not say which token ids it sampled"),
        (faults.Shorter(), "5 logprobs where 6 were expected"),
        (faults.BadLogprob(None, at=2), "the logprob of token 2 is null"),
        (faults.BadLogprob(-9999.0, at=2), r"completion row .*: the logprob of token 2 is minus infinity"),
        (faults.BadLogprob(-np.inf), "token 5 is minus infinity"),
        (faults.BadLogprob(np.nan), "token 5 is nan"),
        (faults.BadLogprob(0.7), "a probability of more than one"),
    ],
    ids=repr,
)
async def test_completions_without_proper_logprobs_are_refused(serve: Serve, fault: Any, message: str) -> None:
    server = serve()
    async with opened(scorer(server)) as plugin:
        server.faults.add(fault, where=COMPLETIONS)
        with pytest.raises(AlignmentError, match=message):
            await sample(plugin)


def answer(**changes: Any) -> Any:
    choice = {"text": "", "finish_reason": "stop", "logprobs": {"token_logprobs": [-1.0]}, "token_ids": [7]}
    choice |= {name: value for name, value in changes.items() if name != "model"}
    return {"model": changes.get("model", "m"), "choices": [choice]}


def read(said: Any) -> Any:
    from distillkit_builtin.http.completions import parse_completion

    return parse_completion(said, make_request(), "m", 3)


def test_a_response_of_another_model_or_prompt_is_refused() -> None:
    assert read(answer()).policy_version == 3
    prompt = make_request().prompt_ids.tolist()
    assert read(answer(prompt_token_ids=prompt)).token_ids.tolist() == token_ids([7]).tolist()
    with pytest.raises(AlignmentError, match="the response is of model 'other', not of 'm'"):
        read(answer(model="other"))
    with pytest.raises(AlignmentError, match="other prompt tokens than were sent"):
        read(answer(prompt_token_ids=prompt[1:]))
    with pytest.raises(AlignmentError, match="the response holds no logprobs"):
        read(answer(logprobs=None))


def test_a_completion_that_is_none_is_a_failure() -> None:
    assert read(answer(token_ids=[], logprobs={"token_logprobs": []})).reason == "the server sampled no token at all"
    aborted = read(answer(finish_reason="abort"))
    assert (aborted.reason, aborted.retryable) == ("the completion ended by 'abort'", True)


async def test_refusals_of_a_completion_are_failures(serve: Serve) -> None:
    server = serve()
    async with opened(scorer(server)) as plugin:
        server.faults.add(faults.Status(400), where=COMPLETIONS)
        found = await sample(plugin)
    assert [isinstance(outcome, Failure) for outcome in found].count(True) == 1
