"""A server as a whole: its address, its key."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from distillkit_loopback.openai.categorical import CategoricalModel
from distillkit_loopback.openai.server import LoopbackServer
from loopback.openai.wire import (
    COMPLETIONS,
    PROMPT,
    SCORING,
    Serve,
)


def test_a_key_is_needed_where_there_is_one(serve: Serve) -> None:
    server = serve(api_key="right")
    url = server.url + "/v1/models"
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, headers={"authorization": "Bearer wrong"}).json() == {"error": "Unauthorized"}
    assert httpx.get(url, headers={"x-api-key": "right"}).status_code == 401
    assert httpx.get(url, headers={"authorization": "Bearer right"}).status_code == 200
    assert httpx.get(server.url + "/health").status_code == 200
    assert all("authorization" not in request.headers for request in server.traffic.requests())


def test_64_requests_are_delayed_together(serve: Serve) -> None:
    server = serve(delay=0.7)  # one after the other: 45 s
    body = {**SCORING, "prompt": PROMPT * 4}
    limits = httpx.Limits(max_connections=64)
    with httpx.Client(limits=limits, timeout=60) as client, ThreadPoolExecutor(64) as pool:
        began = time.monotonic()
        answers = list(pool.map(lambda _: client.post(server.url + COMPLETIONS, json=body).status_code, range(64)))
        took = time.monotonic() - began
    assert answers == [200] * 64
    assert server.traffic.most_at_once > 8
    assert took < 20


def test_what_computes_nothing_is_not_delayed(serve: Serve) -> None:
    assert httpx.get(serve(delay=600.0).url + "/v1/models", verify=False, timeout=60).status_code == 200


def test_a_server_without_a_port_has_no_address() -> None:
    with pytest.raises(RuntimeError, match="before its first start"):
        _ = LoopbackServer(CategoricalModel()).url
