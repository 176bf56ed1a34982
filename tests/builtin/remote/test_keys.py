"""The key goes into one header and nowhere else."""

import asyncio
import logging
import traceback

import httpx
import pytest

from builtin.remote.service import PATH, A, Service, breaks, says
from builtin.remote.virtual import run
from distillkit.errors import InputError
from distillkit_builtin.remote.keys import Key
from distillkit_builtin.remote.options import RemoteOptions
from distillkit_builtin.remote.preflight_request import send_preflight_request
from distillkit_builtin.remote.results import RefusedError, UnansweredError
from distillkit_builtin.remote.service_client import ServiceClient

KEY = "sk-0123456789-very-secret"
GIVEN_AWAY = breaks(text=KEY)
"""By httpx itself, which it does not do: then at least what we raise is without."""


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", f" {KEY}\n")


def test_the_key_is_sent_as_a_bearer_token() -> None:
    async def scenario() -> None:
        service = Service()
        async with service.client(api_key_env="TEACHER_KEY") as client:
            await client.post(PATH, {})
            assert service.requests[0].headers["authorization"] == f"Bearer {KEY}"

    run(scenario())


@pytest.mark.parametrize(
    "act", [says(401, {"error": f"Incorrect API key: {KEY}"}), says(500, KEY), says(200, KEY), GIVEN_AWAY]
)
def test_no_exception_log_or_repr_shows_the_key(act, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def scenario() -> str:
        async with Service({A: act}).client(api_key_env="TEACHER_KEY", timeouts={"retry": 1.0}) as client:
            with pytest.raises((RefusedError, UnansweredError)) as caught:
                await client.post(PATH, {})
            told = "".join(traceback.format_exception(caught.value, chain=act is not GIVEN_AWAY))
            return f"{client!r}{caught.value!r}{told}"

    assert KEY not in run(scenario())
    assert KEY not in caplog.text


def test_what_would_log_headers_is_quietened(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("hpack").setLevel(logging.NOTSET)
    ServiceClient.open(RemoteOptions(base_url=A), "t")
    assert not logging.getLogger("hpack.hpack").isEnabledFor(logging.DEBUG)


@pytest.mark.parametrize("value", ["", "  "])
def test_a_variable_that_is_not_set_is_said_so(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("EMPTY_KEY", value)
    for open_it in (ServiceClient.open, send_preflight_request):
        with pytest.raises(InputError, match="EMPTY_KEY is not set"):
            open_it(RemoteOptions(base_url=A, api_key_env="EMPTY_KEY"), "/v1/models")


@pytest.mark.parametrize("value", ["sk-a b", "sk-\u00e9", "sk-a\nb"])
def test_a_key_that_cannot_stand_in_a_header_is_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("ODD_KEY", value)
    with pytest.raises(InputError, match="no key has") as caught:
        Key.read("ODD_KEY")
    assert value not in str(caught.value)
    assert KEY not in repr(Key.read("TEACHER_KEY"))


def test_unverified_certificates_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    client = ServiceClient.open(
        RemoteOptions(base_url=A, verify_tls=False), "t", transport=httpx.MockTransport(Service())
    )
    asyncio.run(client.close())
    assert "verify_tls is false" in caplog.text


def test_a_ca_bundle_that_is_none_is_said_so(tmp_path) -> None:
    for bundle in (tmp_path / "missing.pem", tmp_path / "empty.pem"):
        (tmp_path / "empty.pem").write_text("nothing")
        with pytest.raises(InputError, match="no CA bundle"):
            ServiceClient.open(RemoteOptions(base_url=A, verify_tls=str(bundle)), "t")
