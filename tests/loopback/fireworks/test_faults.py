"""Completions of the loopback service fail as ordered, and the real SDK sees it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("fireworks.training.sdk")
import httpx
from builtin.fireworks.conftest import TEACHER, ask
from fireworks.training.sdk import DeploymentSampler, SamplingRequestError

from distillkit_loopback.fireworks import faults
from distillkit_loopback.fireworks.faults import Fault
from distillkit_loopback.fireworks.service import LoopbackService

if TYPE_CHECKING:
    SamplerOf = Callable[..., DeploymentSampler]
PROMPT = [1, 70, 80, 90, 75]
COMPLETIONS = "POST .*/completions$"


@pytest.mark.parametrize(
    "fault",
    [
        *(faults.Status(429), faults.Status(500), faults.Status(503), faults.CutStream(), faults.Hangup()),
        *(faults.NoFinishReason(), faults.StreamError(503), faults.StreamError(429, as_event=False)),
    ],
    ids=lambda fault: str(fault),
)
async def test_a_completion_that_fails_twice_comes_at_the_third_attempt(
    service: LoopbackService, sampler_of: "SamplerOf", fault: Fault
) -> None:
    service.faults.add(fault, times=2, where=COMPLETIONS)
    completion = await ask(sampler_of(), PROMPT, max_tokens=4)
    assert completion.completion_len >= 1
    assert len(service.requests) == 3


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (faults.Status(503), "http_status"),
        (faults.CutStream(), "sse_truncation"),
        (faults.NoFinishReason(), "sse_truncation"),
        (faults.StreamError(503), "upstream_stream"),
    ],
)
async def test_a_completion_that_fails_every_time_is_an_error_after_seven_attempts(
    service: LoopbackService, sampler_of: "SamplerOf", fault: Fault, kind: str
) -> None:
    service.faults.add(fault, times=None, where=COMPLETIONS)
    with pytest.raises(SamplingRequestError) as caught:
        await ask(sampler_of(), PROMPT, max_tokens=4)
    assert caught.value.final_error_kind == kind
    assert len(service.requests) == 7
    service.faults.clear()
    assert (await ask(sampler_of(), PROMPT, max_tokens=4)).completion_len >= 1


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (faults.StreamError(code="out_of_memory", kind="server_error"), ("out_of_memory", "server_error", None)),
        (faults.StreamError(400, code="bad_prompt", kind=None, as_event=False), ("bad_prompt", None, None)),
        (faults.OtherFinish("content_filter"), (None, None, "content_filter")),
    ],
    ids=["event", "data", "finish reason"],
)
async def test_a_stream_that_says_it_failed_is_not_tried_again_and_its_words_come_through(
    service: LoopbackService, sampler_of: "SamplerOf", fault: Fault, said: tuple[str | None, ...]
) -> None:
    service.faults.add(fault, where=COMPLETIONS)
    with pytest.raises(SamplingRequestError) as caught:
        await ask(sampler_of(), PROMPT, max_tokens=4)
    error = caught.value
    assert (error.upstream_error_code, error.upstream_error_type, error.upstream_finish_reason) == said
    assert (error.final_error_kind, error.wire_status, error.attempts) == ("upstream_stream", 200, 1)
    assert error.final_status == getattr(fault, "status", None)
    assert len(service.requests) == 1


@pytest.mark.parametrize("frame", [b'data: {"choices": [{"index"\n\n', b"data: []\n\n", b'data: {"text": "\xc3'])
async def test_a_frame_that_cannot_be_read_is_an_error_of_the_parser(
    service: LoopbackService, sampler_of: "SamplerOf", frame: bytes
) -> None:
    service.faults.add(faults.BrokenStream(frame), where=COMPLETIONS)
    with pytest.raises(ValueError, match=r"stream|decode"):
        await ask(sampler_of(), PROMPT, max_tokens=4)
    assert len(service.requests) == 1


async def test_retry_after_is_sent(
    service: LoopbackService, sampler_of: "SamplerOf", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DeploymentSampler, "_RETRY_MAX_BACKOFF_S", 1.0)
    service.faults.add(faults.Status(429, retry_after=0.3), where=COMPLETIONS)
    await ask(sampler_of(), PROMPT, max_tokens=4)
    first, second = service.requests
    assert second.received - first.received > 0.25


@pytest.mark.parametrize("status", [400, 401])
async def test_some_statuses_are_not_tried_again(
    service: LoopbackService, sampler_of: "SamplerOf", status: int
) -> None:
    service.faults.add(faults.Status(status, message="go away"), where=COMPLETIONS)
    with pytest.raises(httpx.HTTPStatusError) as caught:
        await ask(sampler_of(), PROMPT, max_tokens=4)
    assert "go away" in caught.value.response.text
    assert len(service.requests) == 1


async def test_one_models_completions_fail_and_no_others(service: LoopbackService, sampler_of: "SamplerOf") -> None:
    service.faults.add(
        faults.Status(400), times=None, where=lambda request: request.model.endswith("deployedModels/served")
    )
    with pytest.raises(httpx.HTTPStatusError):
        await ask(sampler_of(), PROMPT, max_tokens=4)
    assert (await ask(sampler_of(TEACHER), PROMPT, max_tokens=4)).completion_len >= 1


async def test_404_is_a_deployment_that_is_not_ready_yet(service: LoopbackService, sampler_of: "SamplerOf") -> None:
    service.faults.add(faults.Status(404), times=2, where=COMPLETIONS)
    await ask(sampler_of(), PROMPT, max_tokens=4, hotload_retry_interval=0.01)
    assert len(service.requests) == 3


async def test_a_late_response_is_a_time_out(service: LoopbackService, sampler_of: "SamplerOf") -> None:
    service.faults.add(faults.Delay(1.0), after=1, where=COMPLETIONS)
    assert (await ask(sampler_of(), PROMPT, max_tokens=2, http_timeout=0.3)).completion_len >= 1
    assert (await ask(sampler_of(), PROMPT, max_tokens=2, http_timeout=0.3)).completion_len >= 1
    assert len(service.requests) >= 3  # on a busy machine other answers may be late, too


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("fault", [faults.MissingLogprobs(), faults.NullLogprob(0), faults.NullLogprob(-1)])
async def test_a_missing_or_null_logprob_reaches_the_client_as_none(
    service: LoopbackService, sampler_of: "SamplerOf", fault: Fault, echo: bool
) -> None:
    service.faults.add(fault, where=COMPLETIONS)
    completion = await ask(sampler_of(), PROMPT, max_tokens=4, echo=echo)
    assert completion.inference_logprobs is None


async def test_a_logprob_too_few_is_a_shorter_list_or_an_error(
    service: LoopbackService, sampler_of: "SamplerOf"
) -> None:
    service.faults.add(faults.FewerLogprobs(), times=2, where=COMPLETIONS)
    completion = await ask(sampler_of(), PROMPT, max_tokens=4, seed=1)
    assert len(completion.inference_logprobs) == completion.completion_len - 1
    with pytest.raises(RuntimeError, match="do not align"):
        await ask(sampler_of(), PROMPT, max_tokens=1, echo=True)


async def test_another_id_is_in_the_prompt_that_comes_back(service: LoopbackService, sampler_of: "SamplerOf") -> None:
    service.faults.add(faults.WrongIds(2), times=2, where=COMPLETIONS)
    completion = await ask(sampler_of(), PROMPT, max_tokens=4)
    assert completion.full_tokens[: completion.prompt_len] == [1, 70, 81, 90, 75]
    with pytest.raises(RuntimeError, match="Echo response format mismatch"):
        await ask(sampler_of(), PROMPT, max_tokens=1, echo=True)
