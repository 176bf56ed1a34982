"""Requests on their way: retries, the window, cancellation, budgets."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise

import httpx
import pytest

from builtin.remote.service import PATH, A, B, Service, breaks, hangs, now, says
from builtin.remote.virtual import run
from distillkit_builtin.remote.options import RemoteOptions
from distillkit_builtin.remote.results import RefusedError, Result, UnansweredError
from distillkit_builtin.remote.service_client import ServiceClient


def post(service: Service, *roots: str, **options: object) -> Result:
    async def scenario() -> Result:
        async with service.client(*roots, **options) as client:
            return await client.post(PATH, {"prompt": [1, 2]})

    return run(scenario())


def test_a_result_says_who_gave_it_and_how_long_it_took() -> None:
    service = Service()
    answer = post(service)
    assert (answer.root, answer.value, round(answer.seconds, 6)) == (A, {"from": A}, 0.1)
    (request,) = service.requests
    assert str(request.url) == f"{A}{PATH}"
    assert request.content == b'{"prompt":[1,2]}'
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"].startswith("distillkit/")


@pytest.mark.parametrize(
    "act",
    [says(429), says(500), says(503), says(200, "<html>"), breaks(), breaks(httpx.RemoteProtocolError, "cut short")],
)
def test_what_may_pass_is_tried_again(act) -> None:
    service = Service({A: [act, act]})
    assert post(service).value == {"from": A}
    assert service.seen[A] == 3


def test_a_refusal_is_not_tried_again() -> None:
    service = Service({A: says(422, {"detail": "no logprobs here"})})
    with pytest.raises(RefusedError, match="no logprobs here"):
        post(service)
    assert service.seen[A] == 1


def test_a_spent_budget_names_the_last_failure_the_replica_attempts_and_seconds() -> None:
    service = Service({A: says(429, seconds=1.0)})
    with pytest.raises(UnansweredError) as caught:
        post(service, timeouts={"retry": 30.0})
    error = caught.value
    assert service.seen[A] == error.attempts >= 4
    assert f"{A}: HTTP 429: busy ({error.attempts} attempts in " in error.reason
    assert "of the 30 s of timeouts.retry" in error.reason
    assert error.retry_after is None
    assert service.times[-1][0] < 30.0


def test_backing_off_takes_longer_and_longer_up_to_a_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    service = Service({A: says(429)})
    with pytest.raises(UnansweredError):
        post(service, timeouts={"retry": 60.0})
    times = [at for at, _ in service.times]
    assert [round(b - a, 3) for a, b in pairwise(times)] == [0.5, 1, 2, 4, 8, 10, 10, 10, 10]


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_kept_by_every_request_to_that_replica(as_date: bool) -> None:
    at = datetime(2026, 3, 3, 10, tzinfo=UTC)
    headers = {"Retry_After": format_datetime(at + timedelta(seconds=20), usegmt=True), "Date": format_datetime(at)}
    service = Service({A: [says(429, **(headers if as_date else {"Retry_After": "20"}))]})

    async def scenario() -> None:
        async with service.client() as client:
            first = asyncio.create_task(client.post(PATH, {}))
            await asyncio.sleep(1)
            await client.post(PATH, {})
            await first

    run(scenario())
    assert [round(at) for at, _ in service.times] == [0, 20, 20]


def test_a_retry_after_beyond_the_budget_ends_it_now() -> None:
    service = Service({A: says(503, retry_after="3600")})

    async def scenario() -> float:
        async with service.client() as client:
            with pytest.raises(UnansweredError) as caught:
                await client.post(PATH, {})
            assert caught.value.retry_after == pytest.approx(3600, abs=11)
            assert "HTTP 503: busy" in caught.value.reason
            assert caught.value.attempts == 1
            with pytest.raises(UnansweredError) as caught:
                await client.post(PATH, {})
            assert caught.value.attempts == 0
            return now()

    assert run(scenario()) < 11
    assert service.seen[A] == 1


def test_no_response_in_time_ends_an_attempt_and_halves_the_window() -> None:
    async def scenario() -> None:
        service = Service({A: [hangs]})
        async with service.client(timeouts={"request": 7.0}) as client:
            assert (await client.post(PATH, {})).value == {"from": A}
            assert 7.0 <= service.times[1][0] < 8.0
            metrics = client.metrics()
            assert metrics["concurrency/teacher/window"] == 8
            assert metrics["concurrency/teacher/overloaded"] == 1
            assert metrics["concurrency/teacher/retries"] == 1
            assert client.metrics()["concurrency/teacher/retries"] == 0

    run(scenario())


def test_a_hundred_posts_never_exceed_the_window_and_arrive_in_order() -> None:
    service = Service()

    async def scenario() -> None:
        async with service.client(concurrency={"initial": 4, "max": 6}) as client:
            answers = await asyncio.gather(*(client.post(PATH, {"n": n}) for n in range(100)))
            assert len(answers) == 100
            assert client.metrics()["concurrency/teacher/inflight"] == 6

    run(scenario())
    assert service.peak == 6
    assert [request.content for request in service.requests] == [b'{"n":%d}' % n for n in range(100)]


def test_a_busy_service_gets_fewer_at_once() -> None:
    async def scenario() -> None:
        service = Service({A: [says(429, seconds=0.5)] * 16})
        async with service.client() as client:
            await asyncio.gather(*(client.post(PATH, {}) for _ in range(16)))
            assert client.metrics()["concurrency/teacher/window"] == 8

    run(scenario())


@pytest.mark.parametrize("roots", [(A,), (A, B)])
def test_a_cancelled_request_ends_at_once_and_gives_back_its_slot(roots: tuple[str, ...]) -> None:
    async def scenario() -> None:
        service = Service({root: [hangs] for root in roots})
        hedged = {"timeouts": {"hedge_after": 2.0}} if len(roots) > 1 else {}
        async with service.client(*roots, concurrency={"initial": 1, "max": 1}, **hedged) as client:
            first = asyncio.create_task(client.post(PATH, {}))
            second = asyncio.create_task(client.post(PATH, {}))
            await asyncio.sleep(5)
            first.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await first
            assert now() == 5.0
            assert service.cancelled == len(roots)
            await second
            assert round(now(), 6) == 5.1

    run(scenario())


def test_cancelling_while_it_backs_off_ends_it_at_once() -> None:
    async def scenario() -> None:
        service = Service({A: says(500)})
        async with service.client(concurrency={"initial": 1}) as client:
            task = asyncio.create_task(client.post(PATH, {}))
            await asyncio.sleep(4)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert now() == 4.0

    run(scenario())


def test_a_request_that_backs_off_holds_no_slot() -> None:
    async def scenario() -> None:
        service = Service({A: [says(429, retry_after="0")]})
        async with service.client(concurrency={"initial": 2, "max": 2}) as client:
            await asyncio.gather(*(client.post(PATH, {}) for _ in range(4)))
        assert service.peak <= 2

    run(scenario())


def test_control_calls_go_round_the_window_to_the_replica_that_was_named() -> None:
    async def scenario() -> None:
        service = Service({A: [hangs], B: [says(503, retry_after="5"), says(200, "Success: loaded")]})
        async with service.client(A, B, concurrency={"initial": 1, "max": 1}) as client:
            waiting = asyncio.create_task(client.post(PATH, {}))
            await asyncio.sleep(0)
            assert (await client.post_to(B, "/v1/load_lora_adapter", {"lora_name": "x"})).value == "Success: loaded"
            assert [at >= 5.0 for at, root in service.times if root == B] == [False, True]
            assert (await client.get_from(B, "v1/models")).value == {"from": B}
            assert str(service.requests[-1].url) == f"{B}/v1/models"
            assert client.metrics()["concurrency/teacher/inflight"] == 1
            with pytest.raises(ValueError, match="is not a replica of teacher"):
                await client.post_to("http://other", PATH, {})
            waiting.cancel()

    run(scenario())


def test_a_control_calls_attempt_has_its_own_time() -> None:
    async def scenario() -> None:
        service = Service({A: hangs})
        async with service.client(timeouts={"retry": 0}) as client:
            with pytest.raises(UnansweredError, match="no answer within 3 s"):
                await client.get_from(A, "/health", timeout=3.0)
            assert now() == 3.0

    run(scenario())


def test_metrics_can_be_read_without_an_event_loop() -> None:
    client = ServiceClient.open(RemoteOptions(base_url=A), "t", transport=httpx.MockTransport(Service()))
    assert client.roots == (A,)
    assert client.metrics() == {
        "concurrency/t/window": 16,
        "concurrency/t/inflight": 0,
        "concurrency/t/retries": 0,
        "concurrency/t/overloaded": 0,
        "concurrency/t/hedged": 0,
        "concurrency/t/replicas_down": 0,
    }
