"""Whether a service can be reached at all, before a run: one blocking request, whose error says what to fix."""

import time

import httpx

from distillkit.errors import InputError
from distillkit_builtin.remote.connection import address, explain, headers, timeouts, tls
from distillkit_builtin.remote.keys import Key
from distillkit_builtin.remote.options import RemoteOptions
from distillkit_builtin.remote.response import read_response
from distillkit_builtin.remote.results import AttemptError, RefusedError, Result


def send_preflight_request(
    options: RemoteOptions, path: str, *, timeout: float = 10.0, transport: httpx.BaseTransport | None = None
) -> Result:
    """GET `path` (with its /v1) from the first replica that responds; each is tried once, for `timeout` seconds.

    Raises:
        InputError: if none does: the addresses, what happened at each, and what to check; never the key.
    """
    key, problems = Key.read(options.api_key_env), []
    with httpx.Client(
        headers=headers(key), http2=True, verify=tls(options), transport=transport, timeout=timeouts(timeout)
    ) as client:
        for root in options.roots:
            url, started = address(root, path), time.perf_counter()
            try:
                response = client.get(url)
                return read_response(response, root, time.perf_counter() - started, key, lenient=True)
            except RefusedError as error:
                problems.append(f"{url}: HTTP {error.status}: {error.message}{_advice(error.status, key)}")
            except AttemptError as error:
                problems.append(f"{url}: {error.what}")
            except httpx.TimeoutException:
                problems.append(f"{url}: no answer within {timeout:g} s; is the service up?")
            except httpx.RequestError as error:
                problems.append(f"{url}: {key.redacted(explain(error))}{_hint(error)}")
    raise InputError("\n".join(problems))


def _advice(status: int, key: Key) -> str:
    if status in (401, 403):
        return "; set api_key_env" if key.variable is None else f"; is ${key.variable} the right key?"
    return "; is base_url the address of this kind of service, as far as /v1?" if status in (404, 405) else ""


def _hint(error: httpx.RequestError) -> str:
    said = str(error).lower()
    if "certificate" in said:
        return "; verify_tls takes the path of the CA bundle that signed it"
    if "wrong_version_number" in said or "record layer failure" in said:
        return "; this is what https says to a server that speaks http: begin base_url with http://"
    return "; is the service up, and base_url its address?" if isinstance(error, httpx.ConnectError) else ""
