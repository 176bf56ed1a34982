"""Each way in which the loopback server can be told to misbehave, and what it remembers of its requests."""

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from distillkit_loopback.openai import faults
from distillkit_loopback.openai.faults import Fault
from distillkit_loopback.openai.flavors import Flavor
from distillkit_loopback.openai.server import LoopbackServer
from loopback.openai.wire import (
    COMPLETIONS,
    PROMPT,
    SCORING,
    Serve,
    complete,
    expected,
    generate,
    post,
    refused,
)


def test_a_status_comes_as_often_as_it_was_ordered(serve: Serve) -> None:
    server = serve()
    server.faults.add(faults.Status(503, retry_after=1.5), where=COMPLETIONS, times=2)
    server.faults.add(faults.Status(418, body={"teapot": True}), where=COMPLETIONS)
    assert httpx.get(server.url + "/health").status_code == 200
    for _ in range(2):
        busy = post(server, COMPLETIONS, **SCORING)
        assert (busy.status_code, busy.headers["retry-after"]) == (503, "1.5")
    own = post(server, COMPLETIONS, **SCORING)
    assert (own.status_code, own.json()) == (418, {"teapot": True})
    assert server.faults.pending == 0
    complete(server, **SCORING)


def test_a_late_response_is_right(serve: Serve) -> None:
    server = serve()
    right = complete(server, **SCORING)
    server.faults.add(faults.Delay(0.2))
    began = time.monotonic()
    assert complete(server, **SCORING) == right
    assert time.monotonic() - began >= 0.2
    server.faults.add(faults.Delay(0.5))
    with pytest.raises(httpx.ReadTimeout):
        post(server, COMPLETIONS, timeout=0.1, **SCORING)


def test_a_request_that_hangs_ends_when_the_server_stops(serve: Serve) -> None:
    server = serve()
    server.faults.add(faults.Hang())
    with pytest.raises(httpx.ReadTimeout):
        post(server, COMPLETIONS, timeout=0.1, **SCORING)
    server.faults.add(faults.Hang())
    server.traffic.clear()

    def stop() -> None:
        while not server.traffic.counts:
            time.sleep(0.01)
        server.stop()

    stopping = threading.Thread(target=stop)
    stopping.start()
    with pytest.raises(httpx.RemoteProtocolError):
        post(server, COMPLETIONS, **SCORING)
    stopping.join()


@pytest.mark.parametrize("fault", [faults.Hangup(), faults.ShortBody()])
def test_a_connection_that_is_cut(serve: Serve, fault: Fault) -> None:
    server = serve()
    server.faults.add(fault)
    with httpx.Client() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            client.post(server.url + COMPLETIONS, json=SCORING)
        assert client.post(server.url + COMPLETIONS, json=SCORING).status_code == 200


def test_garbage_is_no_json(serve: Serve) -> None:
    server = serve()
    server.faults.add(faults.Garbage())
    response = post(server, COMPLETIONS, **SCORING)
    assert response.status_code == 200
    with pytest.raises(ValueError, match="Expecting value"):
        response.json()


RIGHT = list(zip(PROMPT[1:], expected(PROMPT), strict=True))
WRONG_ID = [*RIGHT[:3], (76, RIGHT[3][1])]
DISTORTED: list[tuple[Fault, Any]] = [
    (faults.WrongId(), WRONG_ID),
    (faults.BadLogprob(0.7), [*RIGHT[:3], (75, 0.7)]),
    (faults.BadLogprob(None, at=2), [RIGHT[0], (80, None), *RIGHT[2:]]),
    (faults.BadLogprob(-math.inf, at=1), [(70, -math.inf), *RIGHT[1:]]),
    (faults.Shorter(2), RIGHT[:2]),
    (faults.MissingEntry(), [*RIGHT[:2], RIGHT[3]]),
    (faults.DuplicateEntry(), [*RIGHT, RIGHT[3]]),
    (faults.SwappedEntries(), [*RIGHT[:2], RIGHT[3], RIGHT[2]]),
]


def in_prompt_logprobs(server: LoopbackServer) -> Any:
    entries = complete(server, **SCORING)["prompt_logprobs"]
    assert entries[0] is None
    return [(int(index), value["logprob"]) for entry in entries[1:] for index, value in entry.items()]


def in_echo(server: LoopbackServer) -> Any:
    asked = {"prompt": PROMPT, "max_tokens": 0, "echo": True, "logprobs": 0, "return_tokens_as_token_ids": True}
    logprobs = complete(server, **asked)["logprobs"]
    ids = [int(token.removeprefix("token_id:")) for token in logprobs["tokens"]]
    return list(zip(ids, logprobs["token_logprobs"], strict=True))[1:]


def in_sglang(server: LoopbackServer) -> Any:
    meta = generate(server, input_ids=PROMPT, logprob_start_len=0)["meta_info"]
    return [(index, logprob) for logprob, index, _ in meta["input_token_logprobs"]][1:]


@pytest.mark.parametrize(("fault", "told"), DISTORTED, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(("flavor", "look"), [("vllm", in_prompt_logprobs), ("vllm", in_echo), ("sglang", in_sglang)])
def test_the_logprobs_of_a_prompt_can_be_wrong(
    serve: Serve, flavor: Any, look: Callable[[LoopbackServer], Any], fault: Fault, told: Any
) -> None:
    server = serve(flavor=Flavor(flavor))
    server.faults.add(fault)
    assert look(server) == told
    assert look(server) == RIGHT


def test_a_logprob_that_is_no_number(serve: Serve) -> None:
    server = serve()
    server.faults.add(faults.BadLogprob())
    assert math.isnan(in_prompt_logprobs(server)[-1][1])


def test_the_logprobs_of_a_completion_can_be_wrong(serve: Serve) -> None:
    server = serve()
    asked = {"prompt": PROMPT, "max_tokens": 4, "seed": 1, "logprobs": 0, "return_token_ids": True}
    right = complete(server, **asked)
    server.faults.add(faults.WrongId())
    server.faults.add(faults.Shorter())
    wrong = complete(server, **asked)
    assert wrong["token_ids"] == [*right["token_ids"][:3], (right["token_ids"][3] + 1) % 259]
    short = complete(server, **asked)
    assert short["token_ids"] == right["token_ids"]
    assert short["logprobs"]["token_logprobs"] == right["logprobs"]["token_logprobs"][:3]


def test_ids_are_left_out(serve: Serve) -> None:
    server = serve()
    server.faults.add(faults.NoIds(), times=None)
    asked = {"prompt": PROMPT, "max_tokens": 1, "return_token_ids": True, "return_tokens_as_token_ids": True}
    choice = complete(server, **asked, logprobs=0, echo=True)
    assert choice["token_ids"] is choice["prompt_token_ids"] is None
    assert choice["logprobs"]["tokens"][1] == "F"
    other = serve(flavor=Flavor("sglang"), faults=server.faults)
    answer = generate(other, 1, input_ids=PROMPT, logprob_start_len=0)
    assert "output_ids" not in answer
    assert {index for _, index, _ in answer["meta_info"]["input_token_logprobs"]} == {None}


def test_an_error_of_the_server_is_a_response(serve: Serve) -> None:
    server = serve()
    server.faults.add(faults.WrongId(at=99))
    assert refused(post(server, COMPLETIONS, **SCORING))[:2] == (500, "InternalServerError")
