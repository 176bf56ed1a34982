"""What each dialect asks and reads: the model's own logprobs of the response, and nothing that only looks like them."""

import math
import re
from typing import Any

import numpy as np
import pytest
from loopback.openai.wire import COMPLETIONS, PROMPT, Serve

from builtin.http.serving import RESPONSE, bodies, needing, opened, outcomes, score_requests, scorer, truth
from distillkit.arrays import token_ids
from distillkit.errors import AlignmentError
from distillkit.records import Score, ScoreRequest
from distillkit.testing import make_context, make_rollout, make_teacher
from distillkit.types import Message
from distillkit_builtin.http.dialects.dialect import Dialect, ScoreQuery
from distillkit_builtin.http.dialects.echo import Echo
from distillkit_builtin.http.dialects.prompt_logprobs import PromptLogprobs
from distillkit_builtin.http.dialects.sglang import SGLang
from distillkit_loopback.openai import faults
from distillkit_loopback.openai.categorical import CategoricalModel
from distillkit_loopback.openai.faults import Fault
from distillkit_loopback.openai.flavors import Flavor
from distillkit_loopback.transport.messages import Request

SPOKEN: list[tuple[Any, str, bool, Dialect]] = [
    ("vllm", "auto", True, PromptLogprobs()),
    ("vllm", "auto", False, PromptLogprobs(max_tokens=1)),
    ("vllm", "echo", True, Echo()),
    ("vllm", "echo", False, Echo(max_tokens=1)),
    ("echo", "auto", True, Echo()),
    ("sglang", "sglang", True, SGLang()),
]
spoken = pytest.mark.parametrize(("flavor", "option", "zero", "dialect"), SPOKEN, ids=lambda value: repr(value))


def samples_none(request: Request) -> bool:
    return request.fields.get("max_tokens") == 0


@spoken
@pytest.mark.parametrize("topk", [0, 3])
async def test_scores_are_the_models_own_logprobs(
    serve: Serve, flavor: Any, option: Any, zero: bool, dialect: Dialect, topk: int
) -> None:
    server = serve(flavor=Flavor(flavor))
    if not zero:
        server.faults.add(faults.Status(400), times=None, where=samples_none)
    async with opened(scorer(server, dialect=option), needing(topk=topk)) as plugin:
        assert plugin._live.spoken.dialect == dialect
        (score,) = await outcomes(plugin, score_requests(topk=topk))
    assert score.ids_proved
    np.testing.assert_array_equal(score.logprobs, truth())
    assert bodies(server, dialect.path)[-1] == dialect.payload(
        ScoreQuery("loopback", token_ids(PROMPT), token_ids(RESPONSE), topk)
    )
    if not topk:
        assert score.arrays == {}
        return
    model = CategoricalModel()
    for at, before in enumerate([PROMPT[-1], *RESPONSE[:-1]]):
        expected = model.distribution(before)
        best = np.argsort(-expected, kind="stable")[:topk]
        assert score.arrays["topk_ids"][at].tolist() == best.tolist()
        np.testing.assert_array_equal(score.arrays["topk_logprobs"][at], expected[best].astype(np.float32))


@pytest.mark.parametrize("flavor", ["vllm", "echo", "sglang"])
async def test_scores_are_those_of_the_local_backend(serve: Serve, real: Any, tiny_model: str, flavor: Any) -> None:
    from distillkit_builtin.http.scorer import HttpScorer
    from distillkit_builtin.local.scorer import LocalScorer

    server = serve(real, flavor=Flavor(flavor))
    local: Any = LocalScorer(dtype="float32", device="cpu").bind(make_teacher(model=tiny_model))
    client = HttpScorer(base_url=server.url + "/v1", dialect="sglang" if flavor == "sglang" else "auto")
    client.bind(make_teacher(model="loopback", tokenizer_model=tiny_model))
    tokenizer = local.tokenizer(make_context())
    prompts = [token_ids(tokenizer.render([Message("user", text)], {})) for text in ("Why?", "Answer at length. " * 4)]
    texts = ["Air scatters.", "no\n\n1. yes"]
    requests = [
        ScoreRequest(make_rollout(tokenizer.encode(text), sample=2 * i + j), "teacher", prompt)
        for i, prompt in enumerate(prompts)
        for j, text in enumerate(texts)
    ]
    async with opened(local), opened(client):
        pairs = zip(await outcomes(local, requests), await outcomes(client, requests), strict=True)
    for ours, theirs in pairs:
        assert isinstance(ours, Score)
        assert isinstance(theirs, Score)
        np.testing.assert_allclose(theirs.logprobs, ours.logprobs, atol=1e-4)


WRONG: list[Fault] = [
    faults.WrongId(),
    faults.WrongId(at=-3),
    faults.BadLogprob(math.nan),
    faults.BadLogprob(-math.inf),
    faults.BadLogprob(-9999.0),
    faults.BadLogprob(None, at=-2),
    faults.BadLogprob(0.7),
    faults.Shorter(),
    faults.Shorter(3),
    faults.MissingEntry(),
    faults.DuplicateEntry(),
    faults.SwappedEntries(),
]


@spoken
@pytest.mark.parametrize("topk", [0, 20])
async def test_what_is_no_logprob_of_the_response_is_refused(
    serve: Serve, flavor: Any, option: Any, zero: bool, dialect: Dialect, topk: int
) -> None:
    server = serve(flavor=Flavor(flavor))
    if not zero:
        server.faults.add(faults.Status(400), times=None, where=samples_none)
    refused = []
    async with opened(scorer(server, dialect=option)) as plugin:
        for fault in WRONG:
            server.faults.add(fault, where=dialect.path)
            try:
                await outcomes(plugin, score_requests(topk=topk))
            except AlignmentError as error:
                if re.match(r"score of row .* by teacher 'teacher'", str(error)):
                    refused.append(fault)
        await outcomes(plugin, score_requests())
    assert refused == WRONG


@pytest.mark.parametrize("dialect", [Echo(), SGLang()], ids=repr)
async def test_ids_that_are_not_named_any_more_end_the_run(serve: Serve, dialect: Any) -> None:
    server = serve(flavor=Flavor("sglang"))
    async with opened(scorer(server, dialect=dialect.name)) as plugin:
        server.faults.add(faults.NoIds(), where=dialect.path)
        with pytest.raises(AlignmentError, match="by teacher 'teacher'"):
            await outcomes(plugin, score_requests())


async def test_the_prompt_is_sent_as_ids_to_the_completions_endpoint(serve: Serve) -> None:
    server = serve()
    async with opened(scorer(server, dialect="prompt_logprobs")) as plugin:
        await outcomes(plugin, score_requests())
    assert bodies(server)[-1]["prompt"] == [*PROMPT, *RESPONSE]
    assert set(server.traffic.counts) == {"/v1/models", "/tokenize", "/version", COMPLETIONS}
