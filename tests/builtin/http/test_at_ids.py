"""Logprobs of given ids, by vLLM's token interface."""

from typing import Any

import numpy as np
import pytest
from loopback.openai.wire import COMPLETIONS, PROMPT, Serve

from builtin.http.serving import (
    RESPONSE,
    bodies,
    needing,
    opened,
    outcomes,
    score_requests,
    scorer,
    table_at,
    token_answer,
    truth,
)
from distillkit.arrays import token_ids
from distillkit.errors import AlignmentError, InputError
from distillkit.testing import ByteTokenizer, check_plugin, make_context
from distillkit_builtin.http.dialects.dialect import ScoreQuery
from distillkit_builtin.http.dialects.vllm_tokens import VllmTokens
from distillkit_builtin.http.probe import probe_query
from distillkit_loopback.openai import faults
from distillkit_loopback.openai.flavors import Flavor

TOKENS = "/inference/v1/generate"
SCALED_OUT = Flavor(scale_out=True)
IDS = np.array([[3, 80, -1], [200, 5, 17], [-1, -1, -1], [83, 84, -1], [0, 1, 2], [84, 258, 9]])


@pytest.mark.parametrize("dialect", ["auto", "vllm_tokens"])
@pytest.mark.parametrize("topk", [0, 4])
async def test_given_ids_have_the_models_own_logprobs(serve: Serve, dialect: str, topk: int) -> None:
    server = serve(flavor=SCALED_OUT)
    needs = {"at_ids": 3, **({"topk": topk} if topk else {})}
    async with opened(scorer(server, dialect=dialect), needing(**needs)) as plugin:
        assert plugin.provenance()["dialect"] == "PromptLogprobs, VllmTokens"
        server.traffic.clear()
        (score,) = await outcomes(plugin, score_requests(topk=topk, at_ids=IDS))
    assert score.ids_proved
    np.testing.assert_allclose(score.logprobs, truth(), atol=1e-6)
    np.testing.assert_allclose(score.arrays["at_logprobs"], table_at(IDS), atol=1e-6)
    assert server.traffic.counts == {TOKENS: 1, **({COMPLETIONS: 1} if topk else {})}
    if topk:
        np.testing.assert_allclose(score.arrays["topk_logprobs"], table_at(score.arrays["topk_ids"]), atol=1e-6)
        assert score.arrays["topk_ids"].shape == (6, 4)


async def test_more_ids_than_the_server_takes_at_once_are_asked_in_parts(serve: Serve) -> None:
    server = serve(flavor=SCALED_OUT, max_logprobs=4)
    ids = np.random.default_rng(0).integers(0, 259, (len(RESPONSE), 7))
    async with opened(scorer(server, max_logprobs=4), needing(at_ids=7)) as plugin:
        server.traffic.clear()
        (score,) = await outcomes(plugin, score_requests(at_ids=ids))
    assert server.traffic.counts == {TOKENS: 3}
    np.testing.assert_allclose(score.arrays["at_logprobs"], table_at(ids), atol=1e-6)


async def test_a_table_without_columns_is_answered_by_one(serve: Serve) -> None:
    async with opened(scorer(serve(flavor=SCALED_OUT)), needing(at_ids=1)) as plugin:
        (score,) = await outcomes(plugin, score_requests(at_ids=np.zeros((len(RESPONSE), 0), np.int64)))
    assert score.arrays["at_logprobs"].shape == (len(RESPONSE), 0)


def test_it_keeps_the_contract_of_scorers_that_give_ids(serve: Serve) -> None:
    check_plugin(scorer(serve(flavor=SCALED_OUT), dialect="vllm_tokens"))


@pytest.mark.parametrize(
    ("dialect", "needs"), [("auto", {"at_ids": 2}), ("vllm_tokens", {})], ids=["needed", "asked for"]
)
async def test_a_server_without_it_is_refused_at_open_with_how_to_start_one(
    serve: Serve, dialect: str, needs: dict[str, int]
) -> None:
    with pytest.raises(InputError, match=r"Scale-out endpoints are disabled; only vLLM .* --enable-scale-out"):
        async with opened(scorer(serve(), dialect=dialect), needing(**needs)):
            pass


async def test_a_server_that_takes_fewer_ids_than_it_says_is_refused_at_open(serve: Serve) -> None:
    server = serve(flavor=SCALED_OUT, max_logprobs=8)
    with pytest.raises(InputError, match="token ids, which is greater than max allowed: 8"):
        async with opened(scorer(server), needing(at_ids=8)):  # and the sampled one
            pass
    async with opened(scorer(server, max_logprobs=8), needing(at_ids=8)):
        pass


@pytest.mark.parametrize("dialect", ["auto", "vllm_tokens"])
async def test_sampled_tokens_alone_are_scored_without_their_prompts_part(serve: Serve, dialect: str) -> None:
    server, told = serve(flavor=SCALED_OUT), []
    async with opened(scorer(server, dialect=dialect), make_context(notify=told.append)) as plugin:
        server.traffic.clear()
        (score,) = await outcomes(plugin, score_requests())
    assert server.traffic.counts == {TOKENS: 1}
    (body,) = bodies(server, TOKENS)
    assert body["sampling_params"]["prompt_logprob_token_ids"] == [[index] for index in RESPONSE]
    assert score.ids_proved
    np.testing.assert_allclose(score.logprobs, truth(), atol=1e-6)
    assert (score.arrays, told) == ({}, [])


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (403, "Scale-out endpoints are disabled. Restart vllm serve with --enable-scale-out to enable them."),
        (404, "Not Found"),
        (405, "Method Not Allowed"),
        (400, "prompt_logprob_token_ids requires the V2 model runner (VLLM_USE_V2_MODEL_RUNNER=1)."),
    ],
)
async def test_a_server_that_refuses_it_is_asked_for_whole_prompts_which_is_said_once_where_it_has_it(
    serve: Serve, status: int, message: str
) -> None:
    one, other, told = serve(flavor=SCALED_OUT), serve(flavor=SCALED_OUT), []
    other.faults.add(faults.Status(status, message=message), where=TOKENS, times=None)
    async with opened(scorer(one, other), make_context(notify=told.append)) as plugin:
        assert "at_ids" not in plugin.capabilities()
        one.traffic.clear()
        scores = await outcomes(plugin, score_requests(3))
        assert TOKENS not in one.traffic.counts  # a request may go to either
        with pytest.raises(InputError, match="does not give them: only vLLM gives logprobs of given ids"):
            await outcomes(plugin, score_requests(at_ids=IDS))
    for score in scores:
        np.testing.assert_allclose(score.logprobs, truth(), atol=1e-6)
    if status != 400:
        assert not told  # nobody asked for what the server does not have
        return
    (said,) = told
    assert said.startswith(
        f"teacher 'teacher': {other.url}: it is asked for the logprobs of whole prompts; vLLM 0.32 or"
    )
    assert said.endswith(f"({TOKENS}): it answered {status}: {message}")


async def test_a_server_that_ignores_what_it_is_asked_for_is_asked_for_whole_prompts(serve: Serve) -> None:
    server, told = serve(flavor=SCALED_OUT), []
    server.faults.add(faults.Status(200, body={"choices": []}), where=TOKENS)
    async with opened(scorer(server), make_context(notify=told.append)) as plugin:
        assert plugin.provenance()["dialect"] == "PromptLogprobs"
    assert told[0].endswith("the server ignores prompt_logprob_token_ids")


async def test_a_run_of_top_k_alone_does_not_ask_for_it(serve: Serve) -> None:
    server, plugin = serve(flavor=SCALED_OUT), scorer(serve(flavor=SCALED_OUT))
    assert "at_ids" in plugin.capabilities()  # `auto` may find it
    async with opened(scorer(server), needing(topk=2)) as plugin:
        assert "at_ids" not in plugin.capabilities()
        await outcomes(plugin, score_requests(topk=2))
    assert TOKENS not in server.traffic.counts


@pytest.mark.parametrize("needs", [{}, {"at_ids": 1}], ids=["sampled", "given ids"])
async def test_an_array_of_something_else_than_logprobs_is_found_out_at_open(
    serve: Serve, needs: dict[str, int]
) -> None:
    """With a logits --logprobs-mode the array holds logits."""
    server = serve(flavor=SCALED_OUT)
    asked = probe_query("loopback", ByteTokenizer(), {})
    body = token_answer([[-40.0, -40.0]] * len(asked.response_ids)) | {"prompt_token_ids": asked.ids}
    server.faults.add(faults.Status(200, body=body), where=TOKENS)
    with pytest.raises(InputError, match=r"nats from its own logprobs of the same tokens .*raw_logprobs"):
        async with opened(scorer(server), needing(**needs)):
            pass


async def test_the_answer_to_another_request_is_refused(serve: Serve) -> None:
    """Its rows are as many and as long, and hold nothing but numbers."""
    server, other = serve(flavor=SCALED_OUT), [*PROMPT[:-1], PROMPT[-1] + 1]
    async with opened(scorer(server)) as plugin:
        found: list[Any] = await outcomes(plugin, score_requests(prompt=other))
        payload = VllmTokens().payload(ScoreQuery("loopback", token_ids(other), token_ids(RESPONSE)))
        answer = (await plugin._live.client.post_to(server.url, TOKENS, payload)).value
        server.faults.add(faults.Status(200, body=answer), where=TOKENS)
        with pytest.raises(AlignmentError, match=r"score of .* read id \d+ as prompt token \d+, \d+ was sent"):
            await outcomes(plugin, score_requests())
        (score,) = await outcomes(plugin, score_requests())
    assert score.logprobs.tolist() != found[0].logprobs.tolist()


async def test_scores_of_given_ids_are_kept_by_their_ids(serve: Serve, tmp_path: Any) -> None:
    server, path = serve(flavor=SCALED_OUT), str(tmp_path / "scores.sqlite")
    other = np.where(IDS == 3, 4, IDS)
    async with opened(scorer(server, cache=path), needing(at_ids=3)) as plugin:
        (first,) = await outcomes(plugin, score_requests(at_ids=IDS))
        await outcomes(plugin, score_requests())  # without ids it is another question
        server.traffic.clear()
        (again,) = await outcomes(plugin, score_requests(at_ids=IDS))
        (plain,) = await outcomes(plugin, score_requests())
        assert server.traffic.counts == {}
        (changed,) = await outcomes(plugin, score_requests(at_ids=other))
        assert server.traffic.counts == {TOKENS: 1}
    assert plain.arrays == {}
    np.testing.assert_array_equal(again.arrays["at_logprobs"], first.arrays["at_logprobs"])
    assert again.arrays["at_logprobs"].dtype == np.float32
    np.testing.assert_allclose(changed.arrays["at_logprobs"], table_at(other), atol=1e-6)
