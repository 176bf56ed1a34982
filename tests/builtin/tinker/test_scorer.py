"""Scorer `tinker` on a stand-in of the SDK: what it asks for, what it makes of answers, what it refuses."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
from loopback.openai.wire import PROMPT

from builtin.http.serving import RESPONSE, needing, outcomes, score_requests, table_at, truth
from builtin.tinker.fake_sdk import FakeServer, StatusError
from distillkit.context import RunContext
from distillkit.errors import AlignmentError, InputError, RunFailedError
from distillkit.frozen import FrozenDict
from distillkit.records import Failure, Rollout, Score
from distillkit.testing import ByteTokenizer, check_plugin, make_context, make_request, make_teacher
from distillkit.tokenizer import Tokenizer
from distillkit_builtin.tinker import live_teacher, service
from distillkit_builtin.tinker.scorer import TinkerScorer
from distillkit_builtin.tinker.server_facts import ServerFacts

MODEL, ROOT, SAVED = "test/model", "http://tinker.test", "tinker://run-1/sampler_weights/best"
PROBES = 4
"""Completions of a probe that says which logprobs come with them, each scored once."""
Fake = Callable[..., FakeServer]


class ByteScorer(TinkerScorer):
    """Of a model whose tokens are bytes."""

    name: ClassVar[str] = "tinker_bytes"

    def tokenizer(self, run: RunContext) -> Tokenizer:
        return run.share("byte tokenizer", ByteTokenizer)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Puts a server in the place of the SDK, and of what is asked before it is used."""
    monkeypatch.setenv("TINKER_API_KEY", "tml-0123456789")

    def make(
        lengths: dict[str, int | None] | None = None,
        base: str | None = MODEL,
        reads: frozenset[str] | None = None,
        **behaviour: Any,
    ) -> FakeServer:
        server = FakeServer(**behaviour)
        schemas = None if reads is None else FrozenDict({"SampleRequest": reads})
        facts = ServerFacts(ROOT, FrozenDict(lengths or {MODEL: None}), schemas=schemas)
        monkeypatch.setattr(service, "ask_server", lambda root, key: facts)
        monkeypatch.setattr(service, "base_model_of", lambda root, key, run_id: base)
        monkeypatch.setattr(service, "load_sdk", server.sdk)
        monkeypatch.setattr(live_teacher, "load_sdk", server.sdk)
        return server

    return make


def scorer(model: str = MODEL, name: str = "teacher", tokenizer_model: str | None = None, **options: Any) -> ByteScorer:
    plugin = ByteScorer(**{"base_url": ROOT, **options})
    plugin.bind(make_teacher(name, model=model, tokenizer_model=tokenizer_model))
    return plugin


@asynccontextmanager
async def opened(*plugins: Any, run: RunContext | None = None) -> AsyncIterator[Any]:
    run = run or make_context()
    runs = [replace(run, user=f"{run.user} {i}") for i in range(len(plugins))]
    for plugin, own in zip(plugins, runs, strict=True):
        plugin.check(own)
    try:
        for plugin, own in zip(plugins, runs, strict=True):
            await plugin.open(own)
        yield plugins[0]
    finally:
        for plugin, own in zip(plugins, runs, strict=True):
            await plugin.close()
            await own.shared.release(own.user)


async def scores(plugin: Any, run: RunContext | None = None, **asked: Any) -> list[Score | Failure]:
    async with opened(plugin, run=run):
        return await outcomes(plugin, score_requests(**asked))


@pytest.mark.parametrize("old_sdk", [False, True], ids=["0.38", "0.25"])
@pytest.mark.parametrize("leading", [0, 1])
async def test_scores_are_those_of_exactly_the_sampled_tokens(fake: Fake, old_sdk: bool, leading: int) -> None:
    server = fake(old_sdk=old_sdk, leading=leading)
    (outcome,) = await scores(scorer())
    assert isinstance(outcome, Score)
    np.testing.assert_allclose(outcome.logprobs, truth(), rtol=1e-6)
    asked = server.asked[-1]
    assert asked["ids"] == [*PROMPT, *RESPONSE]
    assert (asked["num_samples"], asked["include_prompt_logprobs"], asked["topk_prompt_logprobs"]) == (1, True, 0)
    assert asked["params"] == {"max_tokens": 1, "seed": 0, "temperature": 1.0, "top_k": -1, "top_p": 1.0}


@pytest.mark.parametrize(
    ("last_n", "leading", "served"),
    [("served", 1, True), ("served", 0, True), ("ignored", 1, False), ("refused", 1, False), ("wrong", 1, False)],
)
async def test_a_prompt_is_left_out_where_the_server_can_and_gives_the_same_numbers(
    fake: Fake, last_n: str, leading: int, served: bool
) -> None:
    server, plugin = fake(last_n=last_n, leading=leading), scorer()
    async with opened(plugin):
        (outcome,) = await outcomes(plugin, score_requests())
        assert plugin.provenance()["response_only"] is served
    assert isinstance(outcome, Score)
    np.testing.assert_allclose(outcome.logprobs, truth(), rtol=1e-6)
    assert server.asked[-1]["prompt_logprobs_last_n"] == (len(RESPONSE) if served else None)


async def test_more_than_the_sampled_token_comes_with_it_where_the_loss_needs_it(fake: Fake) -> None:
    fake()
    ids = [[80, 1], [-1, 2], [7, -1], [3, 4], [200, 5], [-1, -1]]
    (outcome,) = await scores(scorer(), needing(topk=3, at_ids=2), topk=3, at_ids=ids)
    assert isinstance(outcome, Score)
    np.testing.assert_allclose(outcome.arrays["at_logprobs"], table_at(ids), rtol=1e-6)
    np.testing.assert_allclose(outcome.arrays["topk_logprobs"], table_at(outcome.arrays["topk_ids"]), rtol=1e-6)
    assert (outcome.arrays["topk_logprobs"][:, 0] >= outcome.logprobs).all()


@pytest.mark.parametrize(
    ("behaviour", "needs", "message"),
    [
        ({"topk": "refused"}, {"topk": 5}, "not give the 5 most probable tokens .*Error code: 400 - not supported"),
        ({"targets": "ignored"}, {"at_ids": 5}, r"not give logprobs of given ids \(target_prompt_logprobs\)"),
        ({"old_sdk": True}, {"at_ids": 5}, "which the Tinker SDK .* cannot ask for; install a newer one"),
    ],
)
async def test_what_is_not_given_is_refused_in_one_sentence_before_anything_is_sampled(
    fake: Fake, behaviour: dict[str, Any], needs: dict[str, int], message: str
) -> None:
    fake(**behaviour)
    with pytest.raises(InputError, match=f"^teacher 'teacher': .*{message}") as error:
        await scores(scorer(), needing(**needs))
    assert "\n" not in str(error.value)


async def test_what_a_server_says_it_does_not_read_is_neither_sent_nor_offered(fake: Fake) -> None:
    server, plugin = fake(reads=frozenset({"prompt_logprobs", "topk_prompt_logprobs"})), scorer()
    assert plugin.capabilities() == {"sampled": None, "topk": 20, "at_ids": None}
    async with opened(plugin):
        assert plugin.capabilities() == {"sampled": None, "topk": 20}
        assert "reads no target_prompt_logprobs" in plugin.way_out("at_ids", 5, 0)
    assert all(asked["prompt_logprobs_last_n"] is None for asked in server.asked)


async def test_what_the_sdk_cannot_ask_for_is_not_offered_once_that_is_known(fake: Fake) -> None:
    fake(old_sdk=True)
    async with opened(plugin := scorer(max_logprobs=None)):
        assert plugin.capabilities() == {"sampled": None, "topk": None}


@pytest.mark.parametrize("leading", [0, 1])
async def test_logprobs_at_other_places_are_found_out_by_changing_the_last_token(fake: Fake, leading: int) -> None:
    fake(shift=1, leading=leading)
    with pytest.raises(InputError, match=r"changes by .* nats with the last token"):
        await scores(scorer())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: None, "no logprobs of the prompt came back"),
        (lambda values: values[2:], "logprobs came back for"),
        (lambda values: [-1.0, *values[1:]], "the first of .* tokens has a logprob"),
        (lambda values: [*values[:-1], None], "the logprob of token .* is missing"),
    ],
)
async def test_a_server_that_cannot_score_is_refused_when_it_is_opened(fake: Fake, change: Any, message: str) -> None:
    def spoil(answer: Any) -> Any:
        answer.prompt_logprobs = change(answer.prompt_logprobs)
        return answer

    fake(spoil=spoil)
    with pytest.raises(InputError, match=f"^teacher 'teacher': the server cannot score given tokens: .*{message}"):
        await scores(scorer())


async def test_a_logprob_that_goes_missing_later_ends_the_run(fake: Fake) -> None:
    server, plugin = fake(), scorer()

    def spoil(answer: Any) -> Any:
        answer.prompt_logprobs = [*answer.prompt_logprobs[:-1], None]
        return answer

    async with opened(plugin):
        server.spoil = spoil
        with pytest.raises(AlignmentError, match=r"by teacher 'teacher' at http://tinker.test: .* token 5 is missing"):
            await outcomes(plugin, score_requests())


FAILURES: list[tuple[BaseException, bool, str]] = [
    (StatusError(400, "too long"), False, "HTTP 400: too long"),
    (StatusError(500, "oops"), True, "HTTP 500: oops"),
    (TimeoutError(), True, "no response within 600 s (timeouts.request)"),
    (RuntimeError("it may predate this feature"), True, "may predate"),
]


@pytest.mark.parametrize(("error", "retryable", "reason"), FAILURES, ids=repr)
async def test_a_request_that_fails_is_lost_alone_and_sent_once(
    fake: Fake, error: BaseException, retryable: bool, reason: str
) -> None:
    server, plugin = fake(), scorer()
    async with opened(plugin):
        before = len(server.asked)
        server.errors = [error]
        found = await outcomes(plugin, score_requests(3))
        assert len(server.asked) == before + 3
    (failure,) = [outcome for outcome in found if isinstance(outcome, Failure)]
    assert failure.retryable is retryable
    assert reason in failure.reason


async def test_a_refused_key_ends_the_run(fake: Fake) -> None:
    server, plugin = fake(), scorer()
    async with opened(plugin):
        server.errors = [StatusError(401, "no such key")]
        with pytest.raises(RunFailedError, match=r"refuses requests: .*no such key"):
            await outcomes(plugin, score_requests())


async def test_no_request_is_waited_for_longer_than_the_limit_and_it_is_cancelled_then(fake: Fake) -> None:
    server, plugin = fake(), scorer(timeouts={"request": 0.05})
    async with opened(plugin):
        server.errors = ["hang"]
        (failure,) = await outcomes(plugin, score_requests())
    assert isinstance(failure, Failure)
    assert failure.retryable
    assert "no response within 0.05 s" in failure.reason
    assert server.cancelled == 1


async def test_a_server_that_does_not_answer_does_not_hold_up_the_start(fake: Fake) -> None:
    fake(errors=["hang"])
    with pytest.raises(InputError, match=r"^teacher 'teacher': asking for the logprobs of a prompt: no response"):
        await scores(scorer(timeouts={"request": 0.05}))


async def test_no_more_requests_are_under_way_than_the_limit(fake: Fake) -> None:
    server, plugin = fake(), scorer(concurrency={"max": 2})
    async with opened(plugin):
        server.most_in_flight = 0
        await outcomes(plugin, score_requests(9))
        slug = plugin.teacher.slug
        assert plugin.metrics() == {f"concurrency/{slug}/window": 2.0, f"concurrency/{slug}/inflight": 2.0}
    assert server.most_in_flight == 2


async def test_routes_to_one_model_share_one_client_and_the_first_has_the_metrics(fake: Fake) -> None:
    server = fake()
    first, second = scorer(name="a"), scorer(name="b")
    async with opened(first, second):
        asked = len(server.asked)
        for plugin in (first, second):
            (outcome,) = await outcomes(plugin, score_requests())
            assert isinstance(outcome, Score)
        assert len(server.asked) == asked + 2
        assert first.metrics()
        assert not second.metrics()
    assert server.clients == [{"model_path": None, "base_model": MODEL}]
    assert server.closed == ["success"]


async def test_whoever_stops_reading_stops_the_requests(fake: Fake) -> None:
    server, plugin = fake(), scorer()
    async with opened(plugin):
        server.errors = ["hang"] * 3

        async def read() -> list[Any]:
            return [outcome async for outcome in plugin.score(score_requests(3))]

        reading = asyncio.create_task(read())
        while server.errors:
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    assert server.cancelled == 3


@pytest.mark.parametrize(("model", "source"), [(MODEL, "base_model"), (SAVED, "model_path")])
async def test_a_model_is_a_base_model_or_weights_saved_for_a_sampler(fake: Fake, model: str, source: str) -> None:
    server = fake(lengths={MODEL: 4096})
    plugin = scorer(model)
    async with opened(plugin):
        assert plugin.context_length(make_context()) == 4095
        assert plugin.provenance()["base_model"] == MODEL
    assert server.clients[0][source] == model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("test/modle", r"model 'test/modle' is not at http://tinker.test"),
        ("tinker://run-1", "is no path of weights: tinker://RUN/sampler_weights/NAME"),
        ("tinker://run-1/weights/step-8", "is a checkpoint of training"),
        ("tinker://run-1/external_weights/final", "is a copy to download, which no server samples"),
    ],
)
def test_another_model_is_refused_before_a_client_exists(fake: Fake, model: str, message: str) -> None:
    server = fake()
    with pytest.raises(InputError, match=f"^teacher 'teacher': .*{message}"):
        scorer(model).check(make_context())
    assert not server.clients


def checked(model: str, tokenizer_model: str | None) -> tuple[TinkerScorer, Sequence[str]]:
    plugin = TinkerScorer(base_url=ROOT)
    plugin.bind(make_teacher(model=model, tokenizer_model=tokenizer_model))
    return plugin, plugin.check(make_context()).notes


def test_the_tokenizer_is_the_one_of_the_base_models_name(fake: Fake, tiny_model: str) -> None:
    fake(lengths={f"{tiny_model}:peft:4096": None}, base=tiny_model)
    for model in (f"{tiny_model}:peft:4096", SAVED):
        plugin, notes = checked(model, model)  # what a config holds that names no tokenizer
        assert len(notes) == 1
        assert plugin.tokenizer(make_context()).encode("a")


def test_another_tokenizer_than_the_base_models_is_told(fake: Fake, tiny_model: str) -> None:
    fake()
    _, notes = checked(MODEL, tiny_model)
    assert f"the server calls its base model {MODEL!r}" in notes[1]


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (None, "set its tokenizer_model; the server does not say"),
        ("no/such", "names no tokenizer; set tokenizer_model"),
    ],
)
def test_a_tokenizer_that_cannot_be_had_is_to_be_named(fake: Fake, base: str | None, message: str) -> None:
    fake(base=base)
    plugin, _ = checked(SAVED, SAVED)
    with pytest.raises(InputError, match=message):
        plugin.tokenizer(make_context())


async def test_ids_that_seem_to_mean_something_else_are_told(fake: Fake) -> None:
    fake()  # a table of random numbers: plain text is nothing to it
    said: list[str] = []
    await scores(scorer(), make_context(notify=said.append))
    assert any("either the model is untrained, or ids mean something else" in message for message in said)


async def test_weights_that_are_not_there_are_refused_in_the_servers_words(fake: Fake) -> None:
    fake(refuses=StatusError(404, "no such checkpoint"))
    with pytest.raises(InputError, match=f"^teacher 'teacher': opening '{SAVED}': HTTP 404: no such checkpoint"):
        await scores(scorer(SAVED))


@pytest.mark.parametrize("old_sdk", [False, True], ids=["0.38", "0.25"])
@pytest.mark.parametrize(("tempered", "temperature"), [(False, 0.5), (True, 0.5), (True, 1.0)])
async def test_a_teachers_own_completions_carry_its_own_logprobs_at_temperature_1(
    fake: Fake, old_sdk: bool, tempered: bool, temperature: float
) -> None:
    server, said = fake(old_sdk=old_sdk, tempered=tempered), list[str]()
    plugin = scorer()
    async with opened(plugin, run=make_context(notify=said.append)):
        asked = len(server.asked)
        requests = [make_request(max_tokens=5, sample=i, temperature=temperature) for i in range(2)]
        found = [outcome async for outcome in plugin.sample(requests) if isinstance(outcome, Rollout)]
        again = [outcome async for outcome in plugin.sample(requests) if isinstance(outcome, Rollout)]
    assert len(found) == len(again) == 2
    assert any("scored once more each" in message for message in said) is tempered
    assert len(server.asked) - asked == PROBES + (4 if tempered and temperature != 1.0 else 0)
    for rollout in (*found, *again):
        wanted = truth([*rollout.token_ids], [int(rollout.request.prompt_ids[-1])])
        np.testing.assert_allclose(rollout.logprobs, wanted, rtol=1e-5)
    ids = [
        {rollout.key: [*rollout.token_ids] for rollout in each if isinstance(rollout, Rollout)}
        for each in (found, again)
    ]
    assert ids[0] == ids[1]


@pytest.mark.parametrize(("tokens", "probed"), [(0, False), (64, True)])
async def test_how_it_samples_is_found_out_at_the_start_of_a_run_in_which_teachers_write(
    fake: Fake, tokens: int, probed: bool
) -> None:
    said: list[str] = []
    run = make_context(notify=said.append)
    assert run.plan is not None
    fake(tempered=True)
    async with opened(scorer(), run=replace(run, plan=replace(run.plan, eval_teacher_tokens=tokens))):
        assert any("scored once more each" in message for message in said) is probed


def test_it_keeps_the_contract_of_its_role(fake: Fake) -> None:
    fake()
    check_plugin(scorer())
