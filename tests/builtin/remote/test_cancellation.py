"""A cancellation at each moment of a wait that has a limit: none is lost, whatever ends in the same turn."""

import asyncio
from contextlib import ExitStack, suppress

from helpers.cancellation import count_cancellations

from builtin.remote.service import PATH, A, Service, says
from builtin.remote.virtual import run
from distillkit_builtin.remote.circuit_breaker import FAILURES
from distillkit_builtin.remote.replicas import Lease, Replicas
from distillkit_builtin.remote.results import AttemptError
from distillkit_builtin.remote.retries import Budget


def test_of_a_request() -> None:
    async def scenario() -> None:
        async with Service({A: says(200, {})}).client(A) as client:
            assert await count_cancellations(lambda: client.post(PATH, {})) > 1

    run(scenario())


async def lease_once_it_answers_again() -> Lease:
    """The only replica has failed, and answers an earlier request while it is waited for."""
    clock = asyncio.get_running_loop().time
    replicas, budget = Replicas([A], clock, lambda said, kind="note": None, 600.0), Budget(600.0, clock)
    earlier = ExitStack()
    earlier.enter_context(replicas.use(await replicas.lease(budget, None)))
    for _ in range(FAILURES):
        with suppress(AttemptError), replicas.use(await replicas.lease(budget, None)):
            raise AttemptError(A, "no answer")
    asyncio.get_running_loop().call_soon(earlier.close)
    return await replicas.lease(budget, None)


def test_of_waiting_for_a_replica() -> None:
    assert run(count_cancellations(lease_once_it_answers_again)) > 1
