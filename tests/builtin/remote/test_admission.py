import asyncio
import contextlib

from builtin.remote.virtual import run
from distillkit_builtin.remote.admission import Admission
from distillkit_builtin.remote.aimd_window import AimdWindow


def admission(slots: int) -> Admission:
    return Admission(AimdWindow(slots, slots, lambda: asyncio.get_running_loop().time()))


def test_first_come_first_served_and_a_retry_keeps_its_place() -> None:
    async def scenario() -> list[int]:
        it, order = admission(1), []

        async def one(ticket: int) -> None:
            async with it.slot(ticket):
                order.append(ticket)
                await asyncio.sleep(1)

        tickets = [it.ticket() for _ in range(5)]
        later = [asyncio.create_task(one(ticket)) for ticket in tickets[1:]]
        await asyncio.sleep(0.5)
        await asyncio.gather(one(tickets[0]), *later)
        return order

    assert run(scenario()) == [1, 0, 2, 3, 4]


def test_cancellation_gives_slots_back_whether_waiting_or_holding_or_just_granted() -> None:
    async def scenario() -> None:
        it = admission(1)

        async def hold() -> None:
            async with it.slot(it.ticket()):
                await asyncio.sleep(10)

        holding, waiting, last = (asyncio.create_task(hold()) for _ in range(3))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.sleep(0)
        assert it.in_use == 1
        holding.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await holding
        assert it.in_use == 1  # granted to the last
        last.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await last
        assert it.in_use == 0

    run(scenario())


def test_the_peak_is_since_the_last_look() -> None:
    async def scenario() -> None:
        it = admission(3)
        async with it.slot(it.ticket()):
            async with it.slot(it.ticket()):
                pass
            assert it.take_peak() == 2
            assert it.take_peak() == 1

    run(scenario())
