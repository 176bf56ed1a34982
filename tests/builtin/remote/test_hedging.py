import asyncio

import pytest

from builtin.remote.service import PATH, A, B, Service, breaks, hangs, now, says
from builtin.remote.virtual import run
from distillkit_builtin.remote.hedging import Hedging
from distillkit_builtin.remote.results import RefusedError, UnansweredError


def test_a_request_without_a_result_goes_to_another_replica_too_and_the_first_result_wins() -> None:
    async def scenario() -> None:
        service = Service({A: hangs})
        async with service.client(A, B, timeouts={"hedge_after": 5.0}) as client:
            answer = await client.post(PATH, {})
            assert (answer.root, round(answer.seconds, 6)) == (B, 0.1)
            assert round(now(), 6) == 5.1
            assert service.cancelled == 1
            assert service.in_flight == 0
            assert client.metrics()["concurrency/teacher/hedged"] == 1

    run(scenario())


def test_a_result_in_time_is_not_hedged() -> None:
    async def scenario() -> None:
        service = Service(seconds={A: 4.9})
        async with service.client(A, B, timeouts={"hedge_after": 5.0}) as client:
            assert (await client.post(PATH, {})).root == A
            assert not service.seen[B]

    run(scenario())


def test_the_first_may_win_after_all() -> None:
    async def scenario() -> None:
        service = Service(seconds={A: 6.0, B: 60.0})
        async with service.client(A, B, timeouts={"hedge_after": 5.0}) as client:
            assert (await client.post(PATH, {})).root == A
            assert now() == 6.0
            assert service.cancelled == 1

    run(scenario())


@pytest.mark.parametrize("act", [breaks(), says(500), says(404)])
def test_a_hedge_that_fails_is_nobodys_loss(act) -> None:
    async def scenario() -> None:
        service = Service({B: act}, seconds={A: 8.0})
        async with service.client(A, B, timeouts={"hedge_after": 5.0}) as client:
            assert (await client.post(PATH, {})).root == A
            assert now() == 8.0

    run(scenario())


def test_where_the_first_fails_its_hedge_is_waited_for() -> None:
    async def scenario() -> None:
        service = Service({A: says(500, seconds=6.0)}, seconds={B: 4.0})
        async with service.client(A, B, timeouts={"hedge_after": 5.0}) as client:
            assert (await client.post(PATH, {})).root == B
            assert now() == 9.0
            assert client.metrics()["concurrency/teacher/retries"] == 0

    run(scenario())


def test_where_both_fail_the_first_failure_counts_and_a_refusal_of_the_first_ends_it() -> None:
    async def scenario() -> None:
        service = Service({A: says(500, {"message": "first"}, seconds=6.0), B: says(500, seconds=6.0)})
        async with service.client(A, B, timeouts={"hedge_after": 5.0, "retry": 0}) as client:
            with pytest.raises(UnansweredError, match="first"):
                await client.post(PATH, {})
        service = Service({A: says(400, seconds=6.0), B: hangs})
        async with service.client(A, B, timeouts={"hedge_after": 5.0}) as client:
            with pytest.raises(RefusedError):
                await client.post(PATH, {})
            assert service.cancelled == 1

    run(scenario())


def test_a_tenth_of_the_requests_may_be_hedged_at_once() -> None:
    async def scenario() -> None:
        service = Service(seconds={A: 20.0, B: 20.0})
        async with service.client(
            A, B, timeouts={"hedge_after": 5.0}, concurrency={"initial": 40, "max": 40}
        ) as client:
            await asyncio.gather(*(client.post(PATH, {}) for _ in range(40)))
            assert client.metrics()["concurrency/teacher/hedged"] == 4
        assert service.peak == 44

    run(scenario())
    assert Hedging(1.0).may_start(1)
    assert not Hedging(1.0, active=1).may_start(19)


def test_no_hedge_goes_to_a_replica_that_is_down() -> None:
    async def scenario() -> None:
        service = Service({B: breaks()})
        async with service.client(A, B, timeouts={"hedge_after": 5.0}) as client:
            await asyncio.gather(*(client.post(PATH, {}) for _ in range(8)))
            before, service.seconds[A] = service.seen[B], 10.0
            await client.post(PATH, {})
            assert service.seen[B] <= before + 1
            assert client.metrics()["concurrency/teacher/hedged"] == 0

    run(scenario())
