"""Completions of a sampling client, with stops and logprobs that servers mean differently."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from builtin.tinker.plain_sdk import PLAIN_SDK
from distillkit.arrays import token_ids
from distillkit.errors import AlignmentError, RunFailedError
from distillkit.records import Failure, Rollout
from distillkit.testing import ByteTokenizer
from distillkit.types import SampleKey, SampleRequest, SamplingParams
from distillkit_builtin.remote.admission import Admission
from distillkit_builtin.remote.aimd_window import AimdWindow
from distillkit_builtin.tinker.completions import Endpoint, kept_length, sample_completion
from distillkit_builtin.tinker.scored_response import Asked

END = 7


class Client:
    """Answers with what it is given, or never; scores of a token are minus its id."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []

    def sample(self, prompt: Sequence[int], *, num_samples: int, sampling_params: dict[str, Any], **more: Any) -> Any:
        self.asked.append(sampling_params | {"num_samples": num_samples, "prompt": list(prompt)})
        future: Future[Any] = Future()
        if more.get("include_prompt_logprobs"):
            future.set_result(SimpleNamespace(prompt_logprobs=[None, *(-float(index) for index in prompt[1:])]))
            return future
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        elif answer is not None:
            future.set_result(answer)
        return future


def sequence(ids: list[int], reason: str = "length", logprobs: list[float] | None = None) -> Any:
    found = [-1.0] * len(ids) if logprobs is None else logprobs
    return SimpleNamespace(sequences=[SimpleNamespace(tokens=ids, stop_reason=reason, logprobs=found)])


def endpoint(client: Client, *, raw: bool = True, seconds: float = 5.0) -> Endpoint:
    return Endpoint(PLAIN_SDK, client, Admission(AimdWindow(4, 4, time.monotonic)), seconds, raw)


def request(**params: Any) -> SampleRequest:
    options = SamplingParams(**{"max_tokens": 4, "stop_ids": (END,), **params})
    return SampleRequest(SampleKey("row", 0, 0), token_ids([1, 2, 3]), 2**40 + 5, options)


async def outcome(answer: Any, *, raw: bool = True, seconds: float = 5.0, **params: Any) -> Rollout | Failure:
    found = endpoint(Client(answer), raw=raw, seconds=seconds)
    return await sample_completion(found, request(**params), 3, ByteTokenizer())


async def test_a_request_names_every_field_and_its_own_seed() -> None:
    client = Client(sequence([5, END], "stop"))
    asked = request(temperature=0.5, top_p=0.9, top_k=20)
    found = await sample_completion(endpoint(client), asked, 3, ByteTokenizer())
    assert isinstance(found, Rollout)
    assert (found.policy_version, found.token_ids.tolist(), found.finish_reason) == (3, [5, END], "stop")
    assert client.asked == [
        {
            "max_tokens": 4,
            "seed": 5,
            "stop": [END],
            "temperature": 0.5,
            "top_k": 20,
            "top_p": 0.9,
            "num_samples": 1,
            "prompt": [1, 2, 3],
        }
    ]


async def test_no_more_requests_are_under_way_than_the_limit() -> None:
    """Samples and scores count alike, and one that ends lets the next one go."""
    waiting: list[Future[Any]] = []

    class Slow(Client):
        def sample(self, prompt: Sequence[int], **asked: Any) -> Any:
            waiting.append(Future())
            return waiting[-1]

    found = endpoint(Slow())
    asked = Asked(3, token_ids([5]))
    tasks = [
        *(asyncio.create_task(found.sample([1], SamplingParams(1), 0)) for _ in range(3)),
        *(asyncio.create_task(found.prefill([1, 2, 3, 5], asked, last_n=False)) for _ in range(3)),
    ]
    await asyncio.sleep(0.02)
    assert len(waiting) == 4
    waiting[0].set_result(sequence([5]))
    await asyncio.sleep(0.02)
    assert len(waiting) == 5
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert all(future.done() for future in waiting)


async def test_a_server_that_goes_on_past_an_end_is_cut_there() -> None:
    found = await outcome(sequence([5, END, 6, END]))
    assert isinstance(found, Rollout)
    assert (found.token_ids.tolist(), found.finish_reason, len(found.logprobs)) == ([5, END], "stop", 2)


@pytest.mark.parametrize("count", [0, 2])
async def test_more_or_fewer_completions_than_one_are_refused(count: int) -> None:
    answer = SimpleNamespace(sequences=sequence([5, END], "stop").sequences * count)
    with pytest.raises(AlignmentError, match=f"{count} completions came back for one request"):
        await outcome(answer)


async def test_an_end_that_is_none_of_the_runs_is_refused() -> None:
    with pytest.raises(AlignmentError, match=r"its last token, id 6, is none of the run's ends \[7\]"):
        await outcome(sequence([5, 6], "stop"))


async def test_a_server_with_a_limit_of_its_own_is_refused() -> None:
    with pytest.raises(AlignmentError, match="limits completions by itself"):
        await outcome(sequence([5, 6, 8], "length"))


async def test_a_stop_string_ends_a_completion_behind_the_token_that_completes_it() -> None:
    ids = ByteTokenizer().encode("ab. c")
    found = await outcome(sequence(ids), stop=(". ", "zz"), max_tokens=len(ids))
    assert isinstance(found, Rollout)
    assert (found.text, found.finish_reason) == ("ab. ", "stop")


def test_the_first_of_several_ends_counts() -> None:
    tokenizer = ByteTokenizer()
    ids = tokenizer.encode("abcabc")
    assert kept_length(ids, SamplingParams(9, stop=("c",), stop_ids=(ids[1],)), tokenizer) == 2
    assert kept_length(ids, SamplingParams(9, stop=("b",), stop_ids=(ids[2],)), tokenizer) == 2
    assert kept_length(ids, SamplingParams(9, stop=("ca",)), tokenizer) == 4
    assert kept_length(ids, SamplingParams(9, stop=("x",), stop_ids=(END,)), tokenizer) is None


@pytest.mark.parametrize(("params", "asks"), [({}, False), ({"temperature": 0.5}, True), ({"top_k": 3}, True)])
async def test_logprobs_of_another_distribution_are_replaced_by_scores(params: dict[str, Any], asks: bool) -> None:
    found = await outcome(sequence([5, 6, 8, 9]), raw=False, **params)
    assert isinstance(found, Rollout)
    np.testing.assert_allclose(found.logprobs, [-5, -6, -8, -9] if asks else [-1.0] * 4)


@pytest.mark.parametrize(
    ("logprobs", "said"),
    [
        ([-1.0] * 3, "3 logprobs came back for 4 tokens"),
        ([-1.0, None, -1.0, -1.0], "logprob of token 1 is None"),
        ([-1.0, -1.0, float("nan"), -1.0], "logprob of token 2 is nan"),
        ([0.5, -1.0, -1.0, -1.0], "logprob of token 0 is 0.5"),
        ([float("-inf"), -1.0, -1.0, -1.0], "logprob of token 0 is -inf"),
    ],
)
async def test_logprobs_that_are_none_are_refused(logprobs: Any, said: str) -> None:
    with pytest.raises(AlignmentError, match=said):
        await outcome(sequence([5, 6, 8, 9], logprobs=logprobs))


async def test_what_one_request_meets_is_its_failure_alone() -> None:
    class RefusedError(Exception):
        def __init__(self, status: int, body: object) -> None:
            super().__init__("refused")
            self.status_code, self.body = status, body

    found = await outcome(None, seconds=0.05)
    assert isinstance(found, Failure)
    assert (found.retryable, found.reason) == (True, "no response within 0.05 s (timeouts.request)")
    ids = ", ".join(str(index) for index in range(50))
    found = await outcome(
        RefusedError(422, {"detail": [{"loc": ["prompt"], "msg": f"too long: [{ids}]", "input": ids}]})
    )
    assert isinstance(found, Failure)
    assert (found.retryable, found.reason) == (False, "HTTP 422: prompt too long: [...]")
    with pytest.raises(RunFailedError, match=r"HTTP 401: no.*api_key_env"):
        await outcome(RefusedError(401, {"detail": "no"}))
    with pytest.raises(RunFailedError, match=r"HTTP 402: no.*credit is used up"):
        await outcome(RefusedError(402, {"detail": "no"}))
    with pytest.raises(RunFailedError, match="may not go together"):
        await outcome(AssertionError("asample promises always carry sample_sequence_ids"))
