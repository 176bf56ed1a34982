import math

import httpx
import pytest

from distillkit_builtin.remote.keys import Key
from distillkit_builtin.remote.response import RETRIED, read_response, retry_after
from distillkit_builtin.remote.results import AttemptError, GarbledError, RefusedError

NONE = Key.read(None)
DATES = {"Date": "Tue, 03 Mar 2026 10:00:00 GMT", "Retry-After": "Tue, 03 Mar 2026 10:00:07 GMT"}


def test_json_with_nan_and_infinity_is_read() -> None:
    value = read_response(httpx.Response(200, text='{"a": [NaN, -Infinity]}'), "http://a", 1.5, NONE)
    assert value.seconds == 1.5
    (first, second) = value.value["a"]  # type: ignore[index, call-overload]
    assert math.isnan(first)
    assert second == -math.inf


@pytest.mark.parametrize("body", ["", "<html>", '{"a": 1', "Success"])
def test_another_body_is_garbled(body: str) -> None:
    with pytest.raises(GarbledError, match="no JSON"):
        read_response(httpx.Response(200, text=body), "http://a", 1.0, NONE)


def test_a_control_call_may_get_text_or_nothing() -> None:
    text = httpx.Response(200, content=b"Success: LoRA adapter 'x' added")
    assert read_response(text, "http://a", 1.0, NONE, lenient=True).value == "Success: LoRA adapter 'x' added"
    assert read_response(httpx.Response(200), "http://a", 1.0, NONE, lenient=True).value is None
    for body in (
        httpx.Response(200, html="<p>log in"),
        httpx.Response(200, content=b"{", headers={"Content-Type": "application/json"}),
    ):
        with pytest.raises(GarbledError):
            read_response(body, "http://a", 1.0, NONE, lenient=True)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"error": {"message": "no such model", "code": 404}}', "no such model"),
        ('{"object": "error", "message": "too long"}', "too long"),
        ('{"error": "plain"}', "plain"),
        ('{"detail": "Not Found"}', "Not Found"),
        ('{"detail": [{"loc": ["body", "n"], "msg": "field required"}]}', "body.n: field required"),
        ('{"error": {}}', "{'error': {}}"),
        ("text\n of  the proxy", "text of the proxy"),
        ("", "Bad Request"),
    ],
)
def test_a_refusal_says_it_in_the_servers_words(body: str, message: str) -> None:
    with pytest.raises(RefusedError) as caught:
        read_response(httpx.Response(400, text=body), "http://a", 1.0, NONE)
    assert (caught.value.root, caught.value.status, caught.value.message) == ("http://a", 400, message)


def test_a_long_message_is_cut() -> None:
    with pytest.raises(RefusedError) as caught:
        read_response(httpx.Response(400, text="x" * 2000), "http://a", 1.0, NONE)
    assert len(caught.value.message) == 500


def test_a_redirect_is_refused_with_where_it_leads() -> None:
    with pytest.raises(RefusedError, match="redirects to https://a/"):
        read_response(httpx.Response(308, headers={"Location": "https://a/"}), "http://a", 1.0, NONE)


@pytest.mark.parametrize("status", sorted(RETRIED))
def test_what_may_pass_is_an_attempts_end_only(status: int) -> None:
    with pytest.raises(AttemptError) as caught:
        read_response(httpx.Response(status), "http://a", 1.0, NONE)
    assert caught.value.broken == (status >= 500)
    assert caught.value.overload == (status in (429, 503, 504, 529))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422, 501])
def test_what_does_not_pass_is_refused(status: int) -> None:
    with pytest.raises(RefusedError):
        read_response(httpx.Response(status), "http://a", 1.0, NONE)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "3"}, 3.0),
        ({"Retry-After": "1.5"}, 1.5),
        (DATES, 7.0),
        ({**DATES, "Date": "Tue, 03 Mar 2026 10:01:00 GMT"}, 0.0),
        ({"Retry-After": "Tue, 03 Mar 2020 10:00:07 GMT"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "9" * 400}, None),
        ({}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_on_the_servers_clock(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(httpx.Headers(headers)) == seconds


def test_a_control_call_that_fails_inside_the_server_is_not_tried_again() -> None:
    response = httpx.Response(500, json={"error": {"message": "LoRA rank 64 is greater than max_lora_rank 16"}})
    with pytest.raises(AttemptError):
        read_response(response, "http://a", 1.0, NONE)
    with pytest.raises(RefusedError, match="LoRA rank 64"):
        read_response(response, "http://a", 1.0, NONE, lenient=True)
