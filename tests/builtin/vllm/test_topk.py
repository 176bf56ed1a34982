"""What sampler `vllm` gives of more tokens than the sampled one."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from loopback.openai.wire import Serve

from builtin.http.serving import opened, table_at
from builtin.vllm.pushes import sampler, with_weights
from distillkit.arrays import token_ids
from distillkit.errors import AlignmentError, InputError
from distillkit.records import Rollout, Weights
from distillkit.testing import make_context, make_request
from distillkit.types import SampleKey, SampleRequest, SamplingParams
from distillkit_builtin.http.completions import completion_payload, parse_completion

TOPK = 3
EVERY_ID = np.arange(259)


async def test_the_most_probable_come_with_each_sampled_token(serve: Serve, adapters: Sequence[Weights]) -> None:
    needing = replace(make_context(), sampler_needs={"topk": TOPK})
    asked = [replace(make_request(sample=i, max_tokens=6), wanted={"topk": TOPK}) for i in range(6)]
    async with opened(sampler(serve()), needing) as plugin:
        await plugin.sync(adapters[0])
        found = [outcome async for outcome in plugin.sample(asked)]
        plain = [outcome async for outcome in plugin.sample([replace(one, wanted={}) for one in asked])]
    outside, model = 0, with_weights(adapters[0])
    for rollout in found:
        assert isinstance(rollout, Rollout)
        ids = rollout.token_ids.tolist()
        whole = table_at(np.tile(EVERY_ID, (len(ids), 1)), ids, rollout.request.prompt_ids.tolist(), model)
        best = np.argsort(-whole, axis=1, kind="stable")[:, :TOPK]
        assert rollout.arrays["topk_ids"].tolist() == best.tolist()
        np.testing.assert_array_equal(rollout.arrays["topk_logprobs"], np.take_along_axis(whole, best, axis=1))
        outside += sum(index not in row for index, row in zip(ids, best, strict=True))
    assert outside  # vLLM names a sampled token that is none of the K besides: it is left out
    assert all(not rollout.arrays for rollout in plain)
    order = [sorted((o for o in each), key=lambda o: o.request.key) for each in (found, plain)]
    assert [o.token_ids.tolist() for o in order[0]] == [o.token_ids.tolist() for o in order[1]]


async def test_more_than_the_server_gives_is_refused_at_open_with_its_flag(serve: Serve) -> None:
    plugin = sampler(serve(max_logprobs=5), max_logprobs=8)
    assert plugin.sampling_capabilities() == {"topk": 8}
    with pytest.raises(InputError) as caught:
        async with opened(plugin, replace(make_context(), sampler_needs={"topk": 6})):
            pass
    assert "greater than max allowed: 5" in str(caught.value)
    assert str(caught.value).endswith("start vLLM with --max-logprobs 6 and set max_logprobs: 6")


ASKED = SampleRequest(SampleKey("1-a", 0, 0), token_ids([1, 2]), 7, SamplingParams(2), {"topk": 2})


def answer(*top: Any) -> dict[str, Any]:
    logprobs = {"token_logprobs": [-1.0, -5.0], "top_logprobs": None if None in top else [*top]}
    choice = {"text": "", "finish_reason": "length", "token_ids": [3, 4], "logprobs": logprobs}
    return {"model": "m", "choices": [choice]}


def test_candidates_are_read_by_id_and_the_sampled_tokens_own_beyond_them_is_left_out() -> None:
    top = ({"token_id:9": -2.0, "token_id:3": -1.0}, {"token_id:4": -5.0, "token_id:8": -1.5, "token_id:7": -1.0})
    rollout = parse_completion(answer(*top), ASKED, "m", 0)
    assert isinstance(rollout, Rollout)
    assert rollout.arrays["topk_ids"].tolist() == [[3, 9], [7, 8]]
    assert rollout.arrays["topk_logprobs"].tolist() == [[-1.0, -2.0], [-1.0, -1.5]]
    payload = completion_payload(ASKED, "m")
    assert (payload["logprobs"], payload["return_tokens_as_token_ids"]) == (2, True)
    assert "return_tokens_as_token_ids" not in completion_payload(replace(ASKED, wanted={}), "m")


FINE = {"token_id:9": -2.0, "token_id:3": -1.0}


@pytest.mark.parametrize(
    ("top", "message"),
    [
        ((FINE, None), "holds no top_logprobs"),
        ((FINE,), "1 top_logprobs where 2 were expected"),
        ((FINE, {"token_id:4": -5.0}), "1 top-k tokens at token 1 where 2 were expected"),
        ((FINE, {"token_id:4": -5.0, " the": -1.0}), "names tokens by text"),
        ((FINE, {"token_id:4": -5.0, "token_id:5": np.nan}), "top-k tokens at token 1 is nan"),
        ((FINE, {"token_id:4": -5.0, "token_id:5": 0.5}), "top-k tokens at token 1 is 0.5"),
        ((FINE, {"token_id:5": -5.0, "token_id:05": -1.0}), "id 5 twice among the top-k at token 1"),
    ],
)
def test_what_is_no_top_k_is_refused(top: Any, message: str) -> None:
    with pytest.raises(AlignmentError, match=f"completion .*{message}"):
        parse_completion(answer(*top), ASKED, "m", 0)
