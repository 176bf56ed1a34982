"""A teacher's vLLM that is started again without its token interface."""

from typing import Any

import numpy as np
import pytest
from loopback.openai.wire import COMPLETIONS, Serve

from builtin.http.serving import RESPONSE, needing, opened, outcomes, score_requests, scorer, truth
from distillkit.errors import RunFailedError
from distillkit.records import Failure
from distillkit.testing import make_context
from distillkit_loopback.openai import faults
from distillkit_loopback.openai.flavors import Flavor

TOKENS = "/inference/v1/generate"
SCALED_OUT = Flavor(scale_out=True)


@pytest.mark.parametrize("status", [403, 404, 405])
async def test_its_scores_are_the_same_for_whole_prompts_and_it_is_said_once(serve: Serve, status: int) -> None:
    server, told = serve(flavor=SCALED_OUT), []
    async with opened(scorer(server), make_context(notify=told.append)) as plugin:
        before = await outcomes(plugin, score_requests(2))
        server.faults.add(faults.Status(status, message="Scale-out endpoints are disabled"), where=TOKENS, times=None)
        server.traffic.clear()
        after = await outcomes(plugin, score_requests(2))
        assert server.traffic.counts == {TOKENS: 2, COMPLETIONS: 2}
        await outcomes(plugin, score_requests(2))
        assert server.traffic.counts == {TOKENS: 2, COMPLETIONS: 4}
    for one, other in zip(before, after, strict=True):
        assert not isinstance(one, Failure)
        assert not isinstance(other, Failure)
        np.testing.assert_allclose(other.logprobs, one.logprobs, atol=1e-6)
        np.testing.assert_allclose(other.logprobs, truth(), atol=1e-6)
    (message,) = told
    assert f"{server.url} has no {TOKENS} any more (it answered {status}: Scale-out" in message
    assert "it is asked for the logprobs of whole prompts" in message


@pytest.mark.parametrize("by_choice", [False, True])
async def test_what_no_other_way_gives_ends_the_run(serve: Serve, by_choice: bool) -> None:
    server = serve(flavor=SCALED_OUT)
    asked: Any = {} if by_choice else {"at_ids": np.array([[1, 2]] * len(RESPONSE))}
    run = make_context() if by_choice else needing(at_ids=2)
    async with opened(scorer(server, dialect="vllm_tokens" if by_choice else "auto"), run) as plugin:
        server.faults.add(faults.Status(403), where=TOKENS, times=None)
        with pytest.raises(RunFailedError, match=r"teacher 'teacher': .* any more .* started with --enable-scale-out"):
            await outcomes(plugin, score_requests(**asked))
