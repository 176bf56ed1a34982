"""Scorer `fireworks`: what its scores are, and what becomes of answers that are none."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from builtin.fireworks.conftest import SERVED, TEACHER
from builtin.fireworks.opened_scorers import PROMPT, RESPONSE, opened, score
from builtin.local.conftest import plain_logprobs
from distillkit.arrays import token_ids
from distillkit.errors import AlignmentError, InputError, RunFailedError
from distillkit.records import Failure, Score, ScoreRequest
from distillkit.testing import check_plugin, make_context, make_rollout, make_teacher
from distillkit_builtin.fireworks.scorer import FireworksScorer

pytest.importorskip("fireworks.training.sdk")
if TYPE_CHECKING:
    from distillkit_loopback.fireworks.service import LoopbackService


@pytest.fixture
def scorer(service: "LoopbackService", tiny_model: str) -> Callable[..., FireworksScorer]:
    def make(model: str = TEACHER, **options: Any) -> FireworksScorer:
        plugin = FireworksScorer(base_url=service.base_url, **options)
        return plugin.bind(make_teacher(model=model, tokenizer_model=tiny_model))

    return make


@pytest.mark.parametrize("model", [TEACHER, SERVED])
async def test_scores_are_the_models_own_logprobs_of_the_response(
    service: "LoopbackService", scorer: Callable[..., FireworksScorer], other_tiny_model: str, model: str
) -> None:
    from transformers import AutoModelForCausalLM

    from distillkit_builtin.local.model.causal_lm import PromptAndResponse

    (outcome,) = await score(scorer(model))
    network = AutoModelForCausalLM.from_pretrained(other_tiny_model)
    wanted = plain_logprobs(network, PromptAndResponse(token_ids(PROMPT), token_ids(RESPONSE)))
    assert isinstance(outcome, Score)
    assert outcome.ids_proved
    body = [request.body for request in service.requests if request.path.endswith("/completions")][-1]
    assert isinstance(body, dict)
    assert body["prompt"] == [*PROMPT, *RESPONSE]
    assert (body["echo"], body["max_tokens"], body["temperature"]) == (True, 1, 0.0)
    assert not {"http_timeout", "stop", "seed"} & body.keys()
    np.testing.assert_allclose(outcome.logprobs, wanted.detach().numpy(), atol=1e-4)


async def test_the_most_probable_come_with_each_token_where_they_are_asked_for(
    service: "LoopbackService", scorer: Callable[..., FireworksScorer], other_tiny_model: str
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    plugin = scorer(SERVED)
    assert plugin.capabilities() == {"sampled": None, "topk": 5}
    asked = [ScoreRequest(make_rollout(RESPONSE), "teacher", token_ids(PROMPT), topk=3)]
    async with opened(plugin):
        (outcome,) = [one async for one in plugin.score(asked)]
    assert isinstance(outcome, Score)
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(other_tiny_model)(torch.tensor([[*PROMPT, *RESPONSE]])).logits[0]
    best = logits.log_softmax(-1)[len(PROMPT) - 1 : -1].topk(3, dim=1)
    assert outcome.arrays["topk_ids"].tolist() == best.indices.tolist()
    np.testing.assert_allclose(outcome.arrays["topk_logprobs"], best.values.numpy(), atol=1e-4)
    bodies: list[Any] = [request.body for request in service.requests if request.path.endswith("/completions")]
    assert bodies[-1]["top_logprobs"] == 3


def test_it_keeps_the_contract_of_its_role(scorer: Callable[..., FireworksScorer]) -> None:
    check_plugin(scorer())


@pytest.mark.parametrize("effect", ["WrongIds", "NullLogprob", "MissingLogprobs", "FewerLogprobs"])
async def test_other_ids_and_missing_logprobs_end_the_run(
    service: "LoopbackService", scorer: Callable[..., FireworksScorer], effect: str
) -> None:
    from distillkit_loopback.fireworks import faults

    service.faults.add(getattr(faults, effect)(), where="POST .*/completions$")
    with pytest.raises(AlignmentError):
        await score(scorer(SERVED))


async def test_a_503_is_retried_and_what_goes_on_failing_is_a_failure(
    service: "LoopbackService", scorer: Callable[..., FireworksScorer]
) -> None:
    from distillkit_loopback.fireworks.faults import Status

    service.faults.add(Status(503), times=6, where="POST .*/completions$")
    (outcome,) = await score(scorer(SERVED))
    assert isinstance(outcome, Score)
    service.faults.add(Status(503), times=None, where="POST .*/completions$")
    (outcome,) = await score(scorer(SERVED))
    assert isinstance(outcome, Failure)
    assert outcome.retryable
    assert "HTTP 503" in outcome.reason
    assert "7 attempts" in outcome.reason


async def test_a_request_that_the_service_cannot_take_is_a_failure(
    service: "LoopbackService", scorer: Callable[..., FireworksScorer]
) -> None:
    from distillkit_loopback.fireworks.faults import Status

    service.faults.add(Status(400, message="too long"), where="POST .*/completions$")
    outcomes = await score(scorer(SERVED), count=3)
    (failure,) = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    assert not failure.retryable
    assert "too long" in failure.reason


async def test_a_refused_key_ends_the_run_at_once(
    service: "LoopbackService", scorer: Callable[..., FireworksScorer]
) -> None:
    from distillkit_loopback.fireworks.faults import Status

    service.faults.add(Status(401), times=None, where="POST .*/completions$")
    with pytest.raises(RunFailedError, match="refuses"):
        await score(scorer(SERVED))


async def test_no_more_requests_are_under_way_than_the_window_allows(
    service: "LoopbackService", scorer: Callable[..., FireworksScorer]
) -> None:
    plugin = scorer(SERVED, concurrency={"initial": 2, "max": 2})
    assert len(await score(plugin, count=12)) == 12
    metrics = plugin.metrics()
    slug = plugin.teacher.slug
    assert metrics[f"concurrency/{slug}/max_in_flight"] == 2
    assert metrics[f"concurrency/{slug}/requests"] == 12


async def test_whoever_stops_reading_stops_the_requests(
    service: "LoopbackService", scorer: Callable[..., FireworksScorer]
) -> None:
    requests = [ScoreRequest(make_rollout(RESPONSE, sample=i), "teacher", token_ids(PROMPT)) for i in range(40)]
    async with opened(scorer(SERVED, concurrency={"initial": 1, "max": 1})) as plugin:
        outcomes = plugin.score(requests)
        await anext(outcomes)
        await outcomes.aclose()  # type: ignore[attr-defined]  # it is a generator
    asked = [request for request in service.requests if request.path.endswith("/completions")]
    assert len(asked) < 10


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("accounts/x/models/", {}, "empty part"),
        ("accounts/x/modells/y", {}, "wants accounts/NAME/models/NAME"),
        ("a b", {}, "white space"),
        (TEACHER, {"deployment": {"deployment_id": "a" * 64}}, "64 characters"),
        (TEACHER, {"deployment": {"deployment_id": "No"}}, "only a-z"),
        (TEACHER, {"deployment": {"deployment_shape": "h200"}}, "deployment_shape"),
        (
            SERVED,
            {"deployment": {"replica_count": 2, "deployment_id": "x"}},
            "deployment.deployment_id, deployment.repl",
        ),
    ],
)
def test_wrong_options_are_found_before_anything_is_asked(
    service: "LoopbackService",
    scorer: Callable[..., FireworksScorer],
    model: str,
    options: dict[str, Any],
    message: str,
) -> None:
    plugin, context = scorer(model, **options), make_context()
    plugin.declare(context)
    with pytest.raises(InputError, match=message):
        plugin.check(context)
    assert not service.requests


def test_the_key_is_in_no_message(
    service: "LoopbackService", scorer: Callable[..., FireworksScorer], monkeypatch: pytest.MonkeyPatch
) -> None:
    from distillkit_builtin.fireworks.sdk_errors import explain

    monkeypatch.setenv("FIREWORKS_API_KEY", "fw_secret")
    assert "fw_secret" not in explain(RuntimeError("HTTP 401 for key fw_secret Agent debug: clone https://x"))
    response = httpx.Response(500, text='{"error": {"message": "no fw_secret here"}}')
    assert explain(httpx.HTTPStatusError("x", request=httpx.Request("GET", "http://x"), response=response)) == (
        "HTTP 500 no *** here"
    )


def test_a_missing_sdk_is_said_before_the_key_that_is_missing_too(
    scorer: Callable[..., FireworksScorer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FIREWORKS_API_KEY")
    monkeypatch.setattr("distillkit_builtin.fireworks.requirements.find_spec", lambda name: None)
    plugin, context = scorer(), make_context()
    plugin.declare(context)
    with pytest.raises(InputError) as caught:
        plugin.check(context)
    first, second = str(caught.value).splitlines()
    assert first == "scorer 'fireworks' needs fireworks-ai[training-sdk]: pip install 'distillkit[fireworks]'"
    assert "FIREWORKS_API_KEY is not set" in second
