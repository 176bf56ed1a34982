"""What becomes of one request that the service could not answer, whose stream was cut, or says that it failed."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import read_jsonl

import distillkit
from builtin.fireworks.runs import make_config, nothing_is_left
from distillkit.errors import AlignmentError, RunFailedError
from distillkit.records import Failure
from distillkit.testing import make_rollout
from distillkit_builtin.fireworks.request_failures import failure_of

sdk = pytest.importorskip("fireworks.training.sdk")
from distillkit_loopback.fireworks.faults import BrokenStream, NoFinishReason, OtherFinish, StreamError  # noqa: E402

if TYPE_CHECKING:
    from distillkit_loopback.fireworks.faults import Fault
    from distillkit_loopback.fireworks.service import LoopbackService
    from distillkit_loopback.transport.messages import Request

COMPLETIONS = "POST .*/completions$"
REQUEST = make_rollout([5, 6]).request
ONE_STEP: Mapping[str, Any] = {"prompt_groups_per_step": 8, "max_failed_fraction": 0.9}
FAULTS = {
    "no finish reason": (NoFinishReason(), "the stream ended without a finish reason (HTTP 200)", True),
    "event": (
        StreamError(code="out_of_memory", kind="server_error"),
        "the stream said that the completion failed (HTTP 200), upstream_error_code=out_of_memory, "
        "upstream_error_type=server_error",
        True,
    ),
    "data": (StreamError(503, as_event=False), "HTTP 503", True),
    "not to pass": (StreamError(422, code="bad_prompt"), "upstream_error_code=bad_prompt", False),
    "finish reason": (OtherFinish("content_filter"), "upstream_finish_reason=content_filter", True),
    "no JSON": (BrokenStream(), "the stream broke off, or is garbled: invalid JSON in completion stream", True),
    "half a character": (BrokenStream(b'data: {"text": "\xc3'), "the stream broke off, or is garbled: 'utf-8'", True),
}


def completions(run_dir: Path) -> dict[tuple[str, int], Any]:
    """What the ledger says of each completion, by row and sample."""
    entries = read_jsonl(run_dir / "ledger.jsonl")
    return {(entry["row_id"], one["sample"]): one for entry in entries for one in entry["completions"]}


@pytest.mark.parametrize("name", FAULTS)
def test_a_rollout_whose_stream_failed_is_a_failure_with_its_reason_and_never_a_short_completion(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    fault, reason, retryable = FAULTS[name]
    whole = distillkit.run(make_config(service, tmp_path, tiny_model, name="whole", train=ONE_STEP))
    monkeypatch.setattr(sdk.DeploymentSampler, "_RETRY_MAX_ATTEMPTS", 1)
    service.faults.add(fault, times=3, where=_is_a_rollout)
    result = distillkit.run(make_config(service, tmp_path, tiny_model, train=ONE_STEP))
    assert (result.summary["failed_completions"], result.summary["trained_completions"]) == (3, 13)
    wanted, found = completions(whole.run_dir), completions(result.run_dir)
    assert found.keys() == wanted.keys()
    lost = [one for one in found.values() if one["outcome"] == "failed"]
    assert len(lost) == 3
    for one in lost:
        assert (one["stage"], one["retryable"]) == ("sample", retryable)
        assert reason in one["reason"]
    kept = {key: one for key, one in found.items() if one["outcome"] == "trained"}
    assert {key: one["tokens"] for key, one in kept.items()} == {key: wanted[key]["tokens"] for key in kept}
    assert nothing_is_left(service)


@pytest.mark.parametrize("fault", [NoFinishReason(), StreamError(503), StreamError(429, as_event=False)], ids=str)
def test_what_may_pass_is_asked_again_and_nothing_is_lost(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, fault: "Fault"
) -> None:
    whole = distillkit.run(make_config(service, tmp_path, tiny_model, name="whole", train=ONE_STEP))
    before = len(service.requests)
    service.faults.add(fault, times=3, where=_is_a_rollout)
    service.faults.add(fault, times=3, where=_is_a_score)
    result = distillkit.run(make_config(service, tmp_path, tiny_model, train=ONE_STEP))
    assert completions(result.run_dir) == completions(whole.run_dir)
    asked = service.requests[before:]
    assert sum(map(_is_a_rollout, asked)) == sum(map(_is_a_score, asked)) == 16 + 3


def test_a_score_whose_stream_failed_is_a_failure_too(
    service: "LoopbackService", tmp_path: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdk.DeploymentSampler, "_RETRY_MAX_ATTEMPTS", 1)
    service.faults.add(NoFinishReason(), times=2, where=_is_a_score)
    service.faults.add(StreamError(code="gone"), times=1, where=_is_a_score)
    result = distillkit.run(make_config(service, tmp_path, tiny_model, train=ONE_STEP))
    lost = [one for one in completions(result.run_dir).values() if one["outcome"] == "failed"]
    assert [one["stage"] for one in lost] == ["score"] * 3
    assert sum("ended without a finish reason" in one["reason"] for one in lost) == 2
    assert sum("upstream_error_code=gone" in one["reason"] for one in lost) == 1
    assert result.summary["trained_completions"] == 13


def _is_a_rollout(request: "Request") -> bool:
    return request.path.endswith("/completions") and "seed" in request.fields  # the deployment's warm-up has none


def _is_a_score(request: "Request") -> bool:
    return request.path.endswith("/completions") and request.fields.get("echo") is True


def test_a_key_that_a_stream_refuses_ends_the_run(service: "LoopbackService", tmp_path: Path, tiny_model: str) -> None:
    service.faults.add(StreamError(403, code="forbidden"), times=None, where=COMPLETIONS)
    with pytest.raises(RunFailedError, match=r"the service refuses requests: .*upstream_error_code=forbidden"):
        distillkit.run(make_config(service, tmp_path, tiny_model))
    assert nothing_is_left(service)


def failure(**said: Any) -> Failure:
    return failure_of(REQUEST, sdk.SamplingRequestError(attempts=2, model="m", **said))


def test_a_reason_is_one_line_without_the_key_and_keeps_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIREWORKS_API_KEY", "fw_secret")
    said = failure(
        final_error_kind="upstream_stream", wire_status=200, request_id="r" * 990, upstream_response_id="a\nfw_secret"
    )
    assert said.reason.endswith("(2 attempts, the stream said that the completion failed (HTTP 200), "
        "upstream_response_id=a ***)")  # fmt: skip
    assert len(said.reason) <= 1000


def test_an_error_without_more_to_say_has_its_attempts_alone() -> None:
    said = failure(final_status=503, final_error_kind="http_status", wire_status=503)
    assert said.reason == "Sampling request failed after 2 attempts: HTTP 503 model=m (2 attempts)"
    assert said.retryable


def test_what_is_no_stream_and_cannot_be_read_still_ends_the_run() -> None:
    with pytest.raises(AlignmentError, match="the SDK cannot read what came back"):
        failure_of(REQUEST, KeyError("raw_output"))
