"""A completion of the token interface: what it is asked for by, and what is no answer."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loopback.openai.wire import COMPLETIONS, Serve

from builtin.http.serving import bodies, opened, table_at
from builtin.vllm.pushes import require_sampled_by, sample, sampler, with_weights
from distillkit.arrays import token_ids
from distillkit.errors import AlignmentError
from distillkit.records import Failure, Rollout, Weights
from distillkit.testing import ByteTokenizer, make_context, make_request
from distillkit.types import SampleKey, SampleRequest, SamplingParams
from distillkit_builtin.vllm.token_completions import TokenCompletions, weight_versions
from distillkit_loopback.openai.categorical import CategoricalModel
from distillkit_loopback.openai.flavors import Flavor

TOKENS = "/inference/v1/generate"
SCALED_OUT = Flavor(scale_out=True)
FORM = TokenCompletions(ByteTokenizer())


# Requests


async def test_the_most_probable_are_all_there_although_the_sampled_token_takes_a_place(
    serve: Serve, adapters: Sequence[Weights]
) -> None:
    needing = replace(make_context(), sampler_needs={"topk": 3})
    asked = [replace(make_request(sample=i, max_tokens=6), wanted={"topk": 3}) for i in range(6)]
    server, outside = serve(flavor=SCALED_OUT), 0
    async with opened(sampler(server), needing) as plugin:
        await plugin.sync(adapters[0])
        found = [outcome async for outcome in plugin.sample(asked)]
    for rollout in found:
        assert isinstance(rollout, Rollout)
        ids = rollout.token_ids.tolist()
        every = np.tile(np.arange(259), (len(ids), 1))
        whole = table_at(every, ids, rollout.request.prompt_ids.tolist(), with_weights(adapters[0]))
        best = np.argsort(-whole, axis=1, kind="stable")[:, :3]
        assert rollout.arrays["topk_ids"].tolist() == best.tolist()
        outside += sum(index not in row for index, row in zip(ids, best, strict=True))
    assert outside
    assert {body["sampling_params"]["logprobs"] for body in bodies(server, TOKENS)} == {4, 0}


async def test_as_many_as_the_server_gives_at_most_are_asked_for_elsewhere(serve: Serve) -> None:
    for most, path in ((4, TOKENS), (3, COMPLETIONS)):
        server = serve(flavor=SCALED_OUT, max_logprobs=most)
        needing = replace(make_context(), sampler_needs={"topk": 3})
        async with opened(sampler(server, max_logprobs=most), needing) as plugin:
            assert plugin.provenance()["completions"] == path


def test_what_a_config_asks_for_is_sent() -> None:
    asked = SampleRequest(
        SampleKey("1-a", 0, 0), token_ids([1, 2]), 7, SamplingParams(9, 0.6, 0.9, 40, ("\n",), stop_ids=(5,))
    )
    payload: Any = FORM.payload(asked, "m", "salt")
    sent = payload["sampling_params"]
    names = ("max_tokens", "temperature", "top_p", "top_k", "stop", "stop_token_ids", "seed")
    assert [sent[name] for name in names] == [9, 0.6, 0.9, 40, ["\n"], [5], 7]
    assert sent["detokenize"] is True  # or the server refuses stop strings
    assert (payload["token_ids"], payload["cache_salt"]) == ([1, 2], "salt")
    assert "cache_salt" not in FORM.payload(asked, "m")
    free: Any = FORM.payload(replace(asked, params=SamplingParams(9)), "m")
    assert (free["sampling_params"]["top_k"], free["sampling_params"]["detokenize"]) == (-1, False)


async def test_stop_strings_and_ids_end_completions_and_stay_in_them(serve: Serve, adapters: Sequence[Weights]) -> None:
    async with opened(sampler(serve(flavor=SCALED_OUT))) as plugin:
        await plugin.sync(adapters[0])

        async def ids(**params: Any) -> Any:
            request = replace(make_request(max_tokens=8), params=SamplingParams(**{"max_tokens": 8, **params}))
            (found,) = [one async for one in plugin.sample([request])]
            return found

        free = await ids()
        whole = free.token_ids.tolist()
        for params in ({"stop_ids": (whole[3],)}, {"stop": (ByteTokenizer().decode([whole[3]]),)}):
            if whole[3] >= 128 and "stop" in params:
                continue
            cut = await ids(**params)
            at = whole.index(whole[3])
            assert cut.token_ids.tolist() == whole[: at + 1]
            assert cut.finish_reason == "stop"


# Answers

ASKED = SampleRequest(SampleKey("1-a", 0, 0), token_ids([1, 2]), 7, SamplingParams(2))
SPANS = [{"version": "v", "start": 0, "end": 2}]


def entry(index: int, logprob: Any, *top: tuple[int, Any]) -> dict[str, Any]:
    named = [{"token_id": i, "logprob": value, "rank": 1} for i, value in top]
    return {"token_id": index, "logprob": logprob, "rank": 1, "top_logprobs": named}


def answer(**changes: Any) -> dict[str, Any]:
    choice = {
        "token_ids": [3, 4],
        "finish_reason": "length",
        "logprobs": {"content": [entry(3, -1.0), entry(4, -2.0)]},
        "weight_versions": SPANS,
    }
    whole = {name: changes.pop(name) for name in ("model", "prompt_token_ids") if name in changes}
    return {"model": "m", "prompt_token_ids": [1, 2], **whole, "choices": [choice | changes]}


def test_an_answer_is_read() -> None:
    rollout = FORM.parse(answer(), ASKED, "m", 3)
    assert isinstance(rollout, Rollout)
    assert (rollout.token_ids.tolist(), rollout.logprobs.tolist()) == ([3, 4], [-1.0, -2.0])
    assert (rollout.policy_version, rollout.finish_reason, rollout.text) == (3, "length", "\x03\x04")
    assert weight_versions(answer(), "this") == {"v"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "other"}, "of model 'other', not of 'm'"),
        ({"model": None}, "of model None, not of 'm'"),
        ({"prompt_token_ids": [1]}, "other prompt tokens than were sent"),
        ({"token_ids": None}, "holds no token_ids"),
        ({"token_ids": [3]}, "2 logprobs where 1 were expected"),
        ({"token_ids": [3, True]}, "valid integer"),
        ({"token_ids": [3, 5]}, "token 1 is id 5, and its logprob is that of 4"),
        ({"logprobs": None}, "holds no logprobs"),
        ({"logprobs": {"content": None}}, "holds no logprobs"),
        ({"logprobs": {"content": [entry(3, -1.0), entry(4, None)]}}, "valid number"),
        ({"logprobs": {"content": [entry(3, -1.0), entry(4, -9999.0)]}}, "token 1 is minus infinity"),
        ({"logprobs": {"content": [entry(3, -1.0), entry(4, 0.5)]}}, "a probability of more than one"),
        ({"logprobs": {"content": [entry(3, float("nan")), entry(4, -1.0)]}}, "is nan"),
        ({"token_ids": [3], "logprobs": {"content": [entry(3, -1.0)]}}, "1 tokens were sampled before a limit"),
    ],
)
def test_what_is_no_completion_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(AlignmentError, match=message):
        FORM.parse(answer(**changes), ASKED, "m", 0)


def test_one_that_was_aborted_or_is_empty_is_a_failure() -> None:
    aborted = FORM.parse(answer(finish_reason="abort"), ASKED, "m", 0)
    assert isinstance(aborted, Failure)
    assert (aborted.reason, aborted.retryable) == ("the completion ended by 'abort'", True)
    empty = FORM.parse(answer(token_ids=[], logprobs={"content": []}), ASKED, "m", 0)
    assert isinstance(empty, Failure)
    assert weight_versions(answer(token_ids=[], weight_versions=[]), "this") == frozenset()


@pytest.mark.parametrize(
    "top",
    [
        ([(3, -1.0)], [(4, -2.0), (5, -1.0)]),
        ([(3, -1.0), (3, -1.0)], [(4, -2.0), (5, -1.0)]),
        ([(3, -1.0), (6, 0.5)], [(4, -2.0), (5, -1.0)]),
    ],
    ids=["too few", "one twice", "no logprob"],
)
def test_what_is_no_top_k_is_refused(top: Any) -> None:
    content = [entry(index, value, *best) for (index, value), best in zip([(3, -1.0), (4, -2.0)], top, strict=True)]
    with pytest.raises(AlignmentError, match=r"completion .* top-k"):
        FORM.parse(answer(logprobs={"content": content}), replace(ASKED, wanted={"topk": 2}), "m", 0)


@pytest.mark.parametrize(
    "spans",
    [
        None,
        [],
        [{"version": "v", "start": 0, "end": 1}],
        [{"version": "v", "start": 0, "end": 3}],
        [{"version": "v", "start": 1, "end": 2}],
        [{"version": "v", "start": 0, "end": 1}, {"version": "w", "start": 0, "end": 2}],
        [{"version": "v", "start": 0, "end": 3}, {"version": "w", "start": 3, "end": 2}],
        [{"version": None, "start": 0, "end": 2}],
    ],
    ids=str,
)
def test_each_token_has_the_weights_that_sampled_it_or_the_answer_is_refused(spans: Any) -> None:
    with pytest.raises(AlignmentError, match="this"):
        weight_versions(answer(weight_versions=spans), "this")


async def test_two_servers_share_the_completions(serve: Serve, models: Sequence[Weights], tmp_path: Path) -> None:
    servers = serve(flavor=SCALED_OUT, delay=0.01), serve(flavor=SCALED_OUT, delay=0.01)
    async with opened(sampler(*servers)) as plugin:
        await plugin.sync(models[0])
        found = await sample(plugin, 8)
    model: CategoricalModel = with_weights(models[0])
    require_sampled_by(found, model, 0)
    assert all(server.traffic.counts[TOKENS] > 1 for server in servers)
