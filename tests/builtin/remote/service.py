"""A service that a test scripts, behind httpx.MockTransport: what each replica does, and what it saw."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from distillkit_builtin.remote.options import RemoteOptions
from distillkit_builtin.remote.service_client import ServiceClient

A, B, C = "http://a:8000", "http://b:8000", "http://c:8000"
PATH = "/v1/completions"
Act = Callable[[httpx.Request], Awaitable[httpx.Response]]


def now() -> float:
    return asyncio.get_running_loop().time()


@dataclass
class Service:
    """Replicas by root; each answers `{"from": root}` after `seconds`, unless acts (a list: one each time) are set."""

    acts: dict[str, Act | list[Act]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    times: list[tuple[float, str]] = field(default_factory=list)
    requests: list[httpx.Request] = field(default_factory=list)
    told: list[tuple[float, str]] = field(default_factory=list)
    in_flight: int = 0
    peak: int = 0
    cancelled: int = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        root = f"{request.url.scheme}://{request.url.netloc.decode()}"
        self.seen[root] += 1
        self.times.append((now(), root))
        self.requests.append(request)
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            act = self.acts.get(root)
            if isinstance(act, list):
                act = act.pop(0) if act else None
            if act is not None:
                return await act(request)
            await asyncio.sleep(self.seconds.get(root, 0.1))
            return httpx.Response(200, json={"from": root})
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1

    @asynccontextmanager
    async def client(self, *roots: str, **options: Any):
        """A ServiceClient that asks this service."""
        client = ServiceClient.open(
            RemoteOptions(base_url=roots or (A,), **options),
            "teacher",
            tell=lambda said, kind="note": self.told.append((now(), said)),
            transport=httpx.MockTransport(self),
        )
        try:
            yield client
        finally:
            await client.close()


def says(status: int, body: Any = None, seconds: float = 0.0, **headers: str) -> Act:
    async def act(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(seconds)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(body, str):
            return httpx.Response(status, text=body, headers=named)
        return httpx.Response(status, json={"error": {"message": "busy"}} if body is None else body, headers=named)

    return act


def breaks(error: type[httpx.TransportError] = httpx.ConnectError, text: str = "All connection attempts failed") -> Act:
    async def act(request: httpx.Request) -> httpx.Response:
        raise error(text, request=request) from ConnectionRefusedError(111, "Connection refused")

    return act


async def hangs(request: httpx.Request) -> httpx.Response:
    await asyncio.sleep(1e6)
    raise AssertionError
