"""Over real connections to this machine."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from builtin.remote.service import PATH
from distillkit_builtin.remote.options import RemoteOptions
from distillkit_builtin.remote.results import Result, UnansweredError
from distillkit_builtin.remote.service_client import ServiceClient

Speak = Callable[[asyncio.StreamWriter], Awaitable[None]]
GOOD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n"


async def well(writer: asyncio.StreamWriter) -> None:
    writer.write(GOOD + b'{"a":1}')


async def cut_short(writer: asyncio.StreamWriter) -> None:
    writer.write(GOOD + b'{"a')


async def trickle(writer: asyncio.StreamWriter) -> None:
    writer.write(GOOD)
    for byte in b'{"a":1}':
        await asyncio.sleep(0.03)
        writer.write(bytes([byte]))
        await writer.drain()


@asynccontextmanager
async def served(*speaks: Speak):
    """The address of a server that treats one connection after the other so."""
    left, serving = list(speaks), set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        try:
            await reader.readuntil(b"\r\n\r\n")
            await left.pop(0)(writer)
        except ConnectionError:
            pass  # whoever asked has gone
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.gather(*serving)
        await server.wait_closed()


async def post(url: str, **options: float) -> Result:
    client = ServiceClient.open(RemoteOptions(base_url=url, **options), "t")
    try:
        return await client.post(PATH, {})
    finally:
        await client.close()


@pytest.fixture(autouse=True)
def _no_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: 0.0)


async def test_a_result() -> None:
    async with served(well) as url:
        assert (await post(url)).value == {"a": 1}


async def test_a_body_that_is_cut_short_is_requested_again() -> None:
    async with served(cut_short, well) as url:
        assert (await post(url)).value == {"a": 1}


async def test_a_body_that_trickles_in_does_not_prolong_an_attempt() -> None:
    async with served(trickle) as url:
        with pytest.raises(UnansweredError, match=r"no answer within 0\.05 s"):
            await post(url, timeouts={"request": 0.05, "retry": 0.0})


async def test_a_refused_connection_says_so() -> None:
    async with served() as url:
        pass
    with pytest.raises(UnansweredError, match=rf"{url}: connection refused"):
        await post(url, timeouts={"retry": 0.0})
