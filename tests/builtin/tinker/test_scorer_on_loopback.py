"""Scorer `tinker` through the real SDK, on the loopback service as the hosted one and as SkyRL answer."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest

from builtin.http.serving import needing, opened, outcomes
from builtin.local.conftest import plain_logprobs
from distillkit.arrays import token_ids
from distillkit.errors import AlignmentError, InputError, RunFailedError
from distillkit.records import Failure, Rollout, Score, ScoreRequest
from distillkit.testing import check_plugin, make_context, make_request, make_rollout, make_teacher
from distillkit_builtin.tinker.scorer import TinkerScorer

pytest.importorskip("tinker")
if TYPE_CHECKING:
    from distillkit_loopback.tinker.service import TinkerService

MODEL = "org/teacher"
PROMPT, RESPONSE = [1, 70, 71, 72], [80, 81, 82, 83, 84]
Kind = Literal["hosted", "skyrl"]
KINDS: tuple[Kind, ...] = ("hosted", "skyrl")
SAMPLE = "POST .*/asample$"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINKER_API_KEY", "tml-loopback")
    monkeypatch.setenv("TINKER_TELEMETRY", "0")


@pytest.fixture
def serve(tiny_model: str) -> Iterator[Callable[..., "TinkerService"]]:
    from distillkit_loopback.tinker.service import TinkerService

    running: list[TinkerService] = []

    def start(kind: Kind, **options: Any) -> TinkerService:
        running.append(TinkerService({MODEL: tiny_model}, kind=kind, **options))
        return running[-1]

    yield start
    for service in running:
        service.close()


@pytest.fixture
def scorer(tiny_model: str) -> Callable[..., TinkerScorer]:
    def make(service: "TinkerService", model: str = MODEL, **options: Any) -> TinkerScorer:
        plugin = TinkerScorer(base_url=service.base_url, **options)
        return plugin.bind(make_teacher(model=model, tokenizer_model=tiny_model))

    return make


def requests(count: int = 1, **asked: Any) -> list[ScoreRequest]:
    return [ScoreRequest(make_rollout(RESPONSE, sample=i), "teacher", token_ids(PROMPT), **asked) for i in range(count)]


def wanted(directory: str) -> Any:
    from transformers import AutoModelForCausalLM

    from distillkit_builtin.local.model.causal_lm import PromptAndResponse

    model = AutoModelForCausalLM.from_pretrained(directory)
    return plain_logprobs(model, PromptAndResponse(token_ids(PROMPT), token_ids(RESPONSE))).detach().numpy()


@pytest.mark.parametrize("kind", KINDS)
async def test_scores_are_transformers_own(serve: Any, scorer: Any, tiny_model: str, kind: Kind) -> None:
    service = serve(kind)
    plugin = scorer(service)
    async with opened(plugin):
        found = await outcomes(plugin, requests(3))
        assert plugin.provenance()["response_only"] is (kind == "hosted")
    for outcome in found:
        assert isinstance(outcome, Score)
        np.testing.assert_allclose(outcome.logprobs, wanted(tiny_model), atol=1e-4)


async def test_more_than_the_sampled_token_comes_where_the_server_gives_it(
    serve: Any, scorer: Any, tiny_model: str
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    ids = np.array([[80, 5], [-1, 6], [82, 7], [83, -1], [9, 8]])
    plugin = scorer(serve("hosted"))
    async with opened(plugin, needing(topk=3, at_ids=2)):
        (outcome,) = await outcomes(plugin, requests(topk=3, at_ids=ids))
    assert isinstance(outcome, Score)
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(tiny_model)(torch.tensor([[*PROMPT, *RESPONSE]])).logits[0]
    rows = logits.log_softmax(-1)[len(PROMPT) - 1 : -1].numpy()
    np.testing.assert_allclose(outcome.arrays["topk_logprobs"], -np.sort(-rows, axis=1)[:, :3], atol=1e-4)
    at = np.where(ids < 0, -np.inf, np.take_along_axis(rows, np.maximum(ids, 0), axis=1))
    np.testing.assert_allclose(outcome.arrays["at_logprobs"], at, atol=1e-4)


@pytest.mark.parametrize(("need", "said"), [("topk", "not supported by the JAX backend"), ("at_ids", "came back")])
async def test_what_skyrl_does_not_give_is_refused(serve: Any, scorer: Any, need: str, said: str) -> None:
    with pytest.raises(InputError, match=f"^teacher 'teacher': the server does not give .*{said}"):
        async with opened(scorer(serve("skyrl")), needing(**{need: 2})):
            pass


@pytest.mark.parametrize("kind", KINDS)
async def test_what_an_open_teacher_gives_is_what_its_server_does(
    serve: Any, scorer: Any, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = scorer(serve(kind))
    assert plugin.capabilities()["topk"] == 20
    async with opened(plugin):
        given = plugin.capabilities()
    assert "non-retryable" not in caplog.text  # as the SDK logs what a server refuses
    assert ("topk" in given, "at_ids" in given) == ((True, True) if kind == "hosted" else (False, False))


@pytest.mark.parametrize("tempered", [False, True])
async def test_a_teachers_own_completions_carry_its_own_logprobs(serve: Any, scorer: Any, tempered: bool) -> None:
    plugin = scorer(serve("hosted", tempered=tempered))
    async with opened(plugin):
        asked = [make_request(max_tokens=4, sample=i, temperature=0.5) for i in range(2)]
        found = [outcome async for outcome in plugin.sample(asked)]
        for rollout in found:
            assert isinstance(rollout, Rollout)
            again = [ScoreRequest(rollout, "teacher", rollout.request.prompt_ids)]
            (score,) = await outcomes(plugin, again)
            assert isinstance(score, Score)
            np.testing.assert_allclose(rollout.logprobs, score.logprobs, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", ["MissingLogprobs", "FewerLogprobs", "NaNLogprob"])
async def test_missing_logprobs_end_the_run(serve: Any, scorer: Any, kind: Kind, fault: str) -> None:
    from distillkit_loopback.tinker import faults

    service = serve(kind)
    plugin = scorer(service)
    async with opened(plugin):
        service.faults.add(getattr(faults, fault)(), where=SAMPLE)
        with pytest.raises(AlignmentError):
            await outcomes(plugin, requests())


@pytest.mark.parametrize("kind", KINDS)
async def test_a_refused_request_is_lost_alone(serve: Any, scorer: Any, kind: Kind) -> None:
    from distillkit_loopback.transport.faults import Status

    service = serve(kind)
    plugin = scorer(service)
    async with opened(plugin):
        service.faults.add(Status(400, message="too long"), where=SAMPLE)
        found = await outcomes(plugin, requests(3))
    (failure,) = [outcome for outcome in found if isinstance(outcome, Failure)]
    assert not failure.retryable
    assert "too long" in failure.reason


async def test_a_refused_key_ends_the_run(serve: Any, scorer: Any) -> None:
    from distillkit_loopback.transport.faults import Status

    service = serve("hosted")
    plugin = scorer(service)
    async with opened(plugin):
        service.faults.add(Status(401), where=SAMPLE)
        with pytest.raises(RunFailedError, match="refuses requests"):
            await outcomes(plugin, requests())


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_that_dies_is_given_up_after_the_limit(serve: Any, scorer: Any, kind: Kind) -> None:
    service = serve(kind)
    plugin = scorer(service, timeouts={"request": 5.0})
    async with opened(plugin):
        service.stop()
        plugin._live.opened.endpoint.seconds = 0.3
        (failure,) = await outcomes(plugin, requests())
        service.start()
    assert isinstance(failure, Failure)
    assert failure.retryable
    assert "no response within" in failure.reason


def test_it_keeps_the_contract_of_its_role(serve: Any, scorer: Any) -> None:
    check_plugin(scorer(serve("hosted")))


async def test_the_session_ends_with_the_run(serve: Any, scorer: Any) -> None:
    service = serve("hosted")
    plugin = scorer(service)
    async with opened(plugin, make_context()):
        assert service.sessions
    assert not service.sessions
