import logging

import pytest

from distillkit.files.redaction import RedactingFormatter, keep_secret, redact


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "FIREWORKS_API_KEY", "AWS_SECRET_ACCESS_KEY", "my_apikey", "DB_PASSWORD", "TOKEN"]
)
def test_variables_with_such_names_hold_secrets(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, " s3/cr+et-value\n")
    assert redact("with 's3/cr+et-value', in a URL s3%2Fcr%2Bet-value") == "with '***', in a URL ***"


@pytest.mark.parametrize("name", ["TOKENIZERS_PARALLELISM", "MONKEY", "MAX_TOKENS", "KEYBOARD", "PYTHONPATH"])
def test_others_do_not(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "something-else")
    assert redact("something-else") == "something-else"


def test_others_do_once_they_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THIS_TEST_ALONE", "something-else")
    assert redact("something-else") == "something-else"
    keep_secret("OF_THIS_TEST_ALONE")
    assert redact("something-else") == "***"


def test_a_short_value_is_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "teacher")
    assert redact("the teacher") == "the teacher"


def test_a_secret_that_holds_another_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "abcdefgh")
    monkeypatch.setenv("B_KEY", "abcdefgh-ijkl")
    assert redact("abcdefgh-ijkl abcdefgh") == "*** ***"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("at http://me:pass@host:80/v1", "at http://***@host:80/v1"),
        ("URL('https://tok@host')", "URL('https://***@host')"),
        ("socks5://a:b@c/x@y", "socks5://***@c/x@y"),
        ("http://host/path/@me", "http://host/path/@me"),
        ("http://host?to=a@b", "http://host?to=a@b"),
        ("mail a@b.c", "mail a@b.c"),
        ("Authorization: Bearer abc.def-123", "Authorization: Bearer ***"),
        ("proxy-authorization: Basic bWU6cGFzcw==", "proxy-authorization: Basic ***"),
        ("Basic facts", "Basic facts"),
        ("max_tokens=5, 'api_key_env': 'MY_KEY'", "max_tokens=5, 'api_key_env': 'MY_KEY'"),
    ],
)
def test_addresses_and_headers_lose_what_lets_in(text: str, told: str) -> None:
    assert redact(text) == told


def test_tracebacks_are_redacted_too(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("SOME_TOKEN", "very-secret")
    try:
        raise ValueError("not with very-secret")
    except ValueError:
        logging.getLogger("x").exception("sent %s", "very-secret")
    text = RedactingFormatter("%(levelname)s %(message)s").format(caplog.records[-1])
    assert text.startswith("ERROR sent ***\nTraceback")
    assert text.endswith("ValueError: not with ***")
