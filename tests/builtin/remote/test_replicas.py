"""Where requests go when there are several replicas, some slow or down."""

import asyncio
import re
from collections import Counter
from typing import Any

import pytest

from builtin.remote.service import PATH, A, B, C, Service, breaks, hangs, now, says
from builtin.remote.virtual import run
from distillkit_builtin.remote.results import UnansweredError


def test_idle_replicas_take_turns() -> None:
    async def scenario() -> list[str]:
        async with Service().client(A, B, C) as client:
            return [(await client.post(PATH, {})).root for _ in range(6)]

    assert run(scenario()) == [A, B, C, A, B, C]


def test_a_slow_replica_gets_fewer_requests() -> None:
    async def scenario() -> Counter[str]:
        service = Service(seconds={A: 0.1, B: 1.0})
        async with service.client(A, B, concurrency={"initial": 8, "max": 8}) as client:
            await asyncio.gather(*(client.post(PATH, {}) for _ in range(100)))
        return service.seen

    seen = run(scenario())
    assert seen[B] < seen[A] / 4


def test_a_retry_goes_to_another_replica() -> None:
    async def scenario() -> list[str]:
        service = Service({A: says(500), B: [says(500)]})
        async with service.client(A, B) as client:
            assert (await client.post(PATH, {})).root == B
        return [root for _, root in service.times]

    assert run(scenario()) == [A, B, A, B]


def test_a_replica_that_asks_for_rest_delays_nobody_while_another_is_healthy() -> None:
    async def scenario() -> None:
        service = Service({A: says(429, retry_after="100")})
        async with service.client(A, B) as client:
            await asyncio.gather(*(client.post(PATH, {}) for _ in range(5)))
            assert now() < 2
            assert service.seen[A] <= 3

    run(scenario())


def test_a_dead_replica_is_left_out_and_probed_by_one_request_at_a_time_until_it_is_back() -> None:
    async def scenario() -> None:
        service = Service({A: breaks()})
        async with service.client(A, B) as client:
            await asyncio.gather(*(client.post(PATH, {}) for _ in range(20)))
            assert client.metrics()["concurrency/teacher/replicas_down"] == 1
            before = service.seen[A]
            await asyncio.gather(*(client.post(PATH, {}) for _ in range(20)))
            assert service.seen[A] <= before + 1
            await asyncio.sleep(60)
            service.acts.clear()
            before = service.seen[A]
            await asyncio.gather(*(client.post(PATH, {}) for _ in range(10)))
            assert service.seen[A] == before + 1  # the probe; by the time that it is answered, the others are too
            assert client.metrics()["concurrency/teacher/replicas_down"] == 0

    run(scenario())


def test_while_all_are_down_requests_wait_for_the_first_that_is_back() -> None:
    async def scenario() -> None:
        service = Service({A: breaks(), B: breaks()})
        async with service.client(A, B) as client:
            posts = [asyncio.create_task(client.post(PATH, {})) for _ in range(10)]
            await asyncio.sleep(20)
            assert client.metrics()["concurrency/teacher/replicas_down"] == 2
            assert service.seen[A] + service.seen[B] < 40  # probes, not a storm
            service.acts.clear()
            assert {(await post).value["from"] for post in posts} <= {A, B}  # type: ignore[index, call-overload]
            assert now() < 60

    run(scenario())


def test_while_all_are_down_waiting_in_line_counts_so_a_long_line_fails_once() -> None:
    async def scenario() -> None:
        service = Service({A: breaks()})
        async with service.client(concurrency={"initial": 2, "max": 2}, timeouts={"retry": 50.0}) as client:
            ends = await asyncio.gather(*(client.post(PATH, {}) for _ in range(40)), return_exceptions=True)
            assert all(isinstance(end, UnansweredError) for end in ends)
            assert now() < 100
            assert "Connection refused".lower() in str(ends[0])
            assert "last failures" in str(ends[-1])

    run(scenario())


def test_time_outs_open_the_breaker_too() -> None:
    async def scenario() -> None:
        service = Service({A: hangs})
        async with service.client(A, B, timeouts={"request": 1.0}) as client:
            await asyncio.gather(*(client.post(PATH, {}) for _ in range(8)))
            assert client.metrics()["concurrency/teacher/replicas_down"] == 1

    run(scenario())


@pytest.mark.parametrize("act", [says(429), says(400)])
def test_what_is_about_the_request_alone_opens_no_breaker(act) -> None:
    async def scenario() -> None:
        async with Service({A: [act] * 8}).client(timeouts={"retry": 1.0}) as client:
            await asyncio.gather(*(client.post(PATH, {}) for _ in range(8)), return_exceptions=True)
            assert client.metrics()["concurrency/teacher/replicas_down"] == 0

    run(scenario())


def test_a_cancelled_probe_lets_the_next_one_probe() -> None:
    async def scenario() -> None:
        service = Service({A: [breaks()] * 3 + [hangs]})
        async with service.client() as client:
            first = asyncio.create_task(client.post(PATH, {}))
            while service.seen[A] < 4:
                await asyncio.sleep(0.5)
            first.cancel()
            assert (await client.post(PATH, {})).root == A

    run(scenario())


def test_an_outage_is_told_once_after_seconds_with_its_reason_and_so_is_its_end() -> None:
    async def scenario() -> list[tuple[float, str]]:
        service = Service({A: breaks()})
        async with service.client(A, timeouts={"retry": 300.0}) as client:
            posts = [asyncio.create_task(client.post(PATH, {})) for _ in range(16)]
            await asyncio.sleep(100)
            assert len(service.told) == 1
            service.acts.clear()
            await asyncio.gather(*posts)
            assert len(service.told) == 2
            service.acts[A] = breaks()
            with pytest.raises(UnansweredError):
                await client.post(PATH, {})
        return service.told

    (at, down), (_, up), (_, again) = run(scenario())
    assert 2 <= at < 15
    assert re.fullmatch(
        rf"no answer from {A}: connection refused; each request is tried again within 300 s \(timeouts\.retry\)", down
    )
    assert re.fullmatch(rf"{A} answers again, after 1\d\d s", up)
    assert again == down


@pytest.mark.parametrize("seconds", [12.0, 30.0])
def test_a_short_budget_is_used_to_its_end_and_the_reason_says_why_it_ends_before(seconds: float) -> None:
    async def scenario() -> tuple[float, list[Any]]:
        service = Service({A: breaks()})
        async with service.client(A, timeouts={"retry": seconds}) as client:
            for _ in range(2):  # the breaker is open when the second begins, as when a step is tried once more
                found = await asyncio.gather(*(client.post(PATH, {}) for _ in range(8)), return_exceptions=True)
        return service.times[-1][0], found

    last, found = run(scenario())
    assert 2 * seconds * (2 / 3) < last < 2 * seconds
    assert all(isinstance(error, UnansweredError) for error in found)
    reasons = [str(error) for error in found]
    assert all(" of timeouts.retry" in reason and "attempt(s)" not in reason for reason in reasons)
    assert any(reason.endswith("of timeouts.retry, and the next would start after them)") for reason in reasons)


@pytest.mark.parametrize("acts", [[breaks()] * 4, [says(429)] * 40, [says(422)] * 40])
def test_a_moments_failure_or_a_busy_service_is_not_told(acts) -> None:
    async def scenario() -> list[tuple[float, str]]:
        service = Service({A: acts})
        async with service.client(A) as client:
            await asyncio.gather(*(client.post(PATH, {}) for _ in range(16)), return_exceptions=True)
        return service.told

    assert run(scenario()) == []


def test_a_replica_that_hangs_is_told_with_its_first_time_outs() -> None:
    async def scenario() -> tuple[float, str]:
        service = Service({A: hangs})
        async with service.client(A, B, timeouts={"request": 30.0}) as client:
            await asyncio.gather(*(client.post(PATH, {}) for _ in range(8)))
        (told,) = service.told
        return told

    at, said = run(scenario())
    assert at == 30
    assert said.startswith(f"no answer from {A}: ")
    assert said.endswith("at the other replicas too")
