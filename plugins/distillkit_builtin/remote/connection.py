"""One exchange with one replica, over a pool of connections. Retries and the choice of a replica are made elsewhere.

httpx logs each request's address at INFO, through its own logger, which neither a run nor the command line shows; hpack
logs headers at DEBUG, and some versions of it the key, which is why that one is quietened.
"""

import asyncio
import logging
import os
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import httpx

from distillkit.errors import InputError
from distillkit_builtin.remote.hedging import SHARE
from distillkit_builtin.remote.keys import Key
from distillkit_builtin.remote.options import RemoteOptions
from distillkit_builtin.remote.response import read_response
from distillkit_builtin.remote.results import AttemptError, GarbledError, Result

log = logging.getLogger("distillkit")
CONNECT_SECONDS = 10.0
MOST_BYTES = 512 * 2**20
"""Of a response, unpacked: three times what 128,000 tokens with 20 alternatives each take."""
CONTROL_CONNECTIONS = 8
"""Beside those of the window and of hedging, for what goes round the window."""


@dataclass(frozen=True, slots=True)
class Connection:
    """All connections to all replicas."""

    client: httpx.AsyncClient
    key: Key
    request_timeout: float
    clock: Callable[[], float]

    @classmethod
    def open(
        cls, options: RemoteOptions, clock: Callable[[], float], transport: httpx.AsyncBaseTransport | None
    ) -> "Connection":
        """Connect at the first request. Raise InputError for a missing key or an unreadable CA bundle."""
        key = Key.read(options.api_key_env)
        if options.verify_tls is False:
            log.warning("verify_tls is false: whoever is between here and %s can read the key", options.roots[0])
        most = options.concurrency.max + max(1, options.concurrency.max // SHARE) + CONTROL_CONNECTIONS
        client = httpx.AsyncClient(
            headers=headers(key),
            http2=True,
            limits=httpx.Limits(max_connections=most, max_keepalive_connections=most),
            verify=tls(options),
            transport=transport,
        )
        return cls(client, key, options.timeouts.request, clock)

    async def send(
        self,
        method: str,
        root: str,
        path: str,
        body: bytes | None = None,
        *,
        timeout: float | None = None,
        lenient: bool = False,
    ) -> Result:
        """One attempt, of at most `timeout` seconds (None: `timeouts.request`). `lenient` as in `read_response`.

        Raises:
            RefusedError, AttemptError: as `read_response` does; the latter also if nothing came back, or not in time.
        """
        limit, started = timeout or self.request_timeout, self.clock()
        kind = {} if body is None else {"Content-Type": "application/json"}
        try:
            async with asyncio.timeout(limit):  # httpx's own are for each read, and a server may trickle
                async with self.client.stream(
                    method, address(root, path), content=body, headers=kind, timeout=timeouts(limit)
                ) as stream:
                    response = await read_body(stream, root)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise AttemptError(root, f"no answer within {limit:g} s", overload=True) from error
        except httpx.TransportError as error:
            raise AttemptError(root, self.key.redacted(explain(error))) from error
        except httpx.DecodingError as error:
            raise GarbledError(root, f"a body that cannot be decompressed ({error})") from error
        return read_response(response, root, self.clock() - started, self.key, lenient=lenient)


async def read_body(stream: httpx.Response, root: str) -> httpx.Response:
    """The response with its body read and unpacked. Raises GarbledError for one that would not fit into memory."""
    body = bytearray()
    async for part in stream.aiter_bytes():
        body += part
        if len(body) > MOST_BYTES:
            raise GarbledError(root, f"a body of more than {MOST_BYTES // 2**20} MiB")
    sent = [(name, value) for name, value in stream.headers.multi_items() if name != "content-encoding"]
    return httpx.Response(stream.status_code, headers=sent, content=bytes(body), extensions=stream.extensions)


def headers(key: Key) -> dict[str, str]:
    """The headers of every request, with the API key."""
    quieten()
    return {"User-Agent": f"distillkit/{version('distillkit')}", "Accept": "application/json", **key.headers()}


def quieten() -> None:
    """Keep libraries from logging the headers of requests, unless their level was set on purpose."""
    hpack = logging.getLogger("hpack")
    if hpack.level == logging.NOTSET:
        hpack.setLevel(logging.INFO)


def address(root: str, path: str) -> str:
    """Where `path`, such as `/v1/completions`, is at one replica."""
    return f"{root}/{path.lstrip('/')}"


def timeouts(limit: float) -> httpx.Timeout:
    """For one attempt of `limit` seconds; the pool may be waited for as long as the attempt lasts."""
    return httpx.Timeout(limit, connect=min(CONNECT_SECONDS, limit), pool=None)


def tls(options: RemoteOptions) -> ssl.SSLContext | bool:
    """What `verify_tls` stands for. Raise InputError for a CA bundle that cannot be read."""
    if isinstance(options.verify_tls, bool):
        return options.verify_tls
    bundle = Path(options.verify_tls).expanduser()
    try:
        if bundle.is_dir():
            return ssl.create_default_context(capath=str(bundle))
        return ssl.create_default_context(cafile=str(bundle))
    except OSError as error:  # SSLError is one
        raise InputError(f"verify_tls: {bundle} is no CA bundle that can be read: {error}") from error


def explain(error: httpx.RequestError) -> str:
    """What a failed connection failed of: httpx says only that all attempts did, what caused it says why."""
    text, cause = str(error) or type(error).__name__, _cause_of(error)
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None and not isinstance(cause, ssl.SSLError):
            by_number = cause.errno > 0  # below 0 it is of looking up the name
            text = os.strerror(cause.errno) if by_number else cause.strerror or text
        cause = _cause_of(cause)
    return f"{text[0].lower()}{text[1:]}" if re.match("[A-Z][a-z]", text) else text


def _cause_of(error: BaseException) -> BaseException | None:
    """The causes that httpcore hides stay as contexts; one exception stands for a group of them."""
    cause = error.__cause__ or error.__context__
    return cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause
