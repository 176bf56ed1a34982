import pytest
from pydantic import ValidationError

from distillkit import Scorer
from distillkit_builtin.remote.options import RemoteOptions


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://localhost:8000/", "http://localhost:8000"),
        ("https://Host/v1", "https://host"),
        ("https://host/v1/", "https://host"),
        ("https://host/proxy/v1", "https://host/proxy"),
        ("http://[::1]:80/v1", "http://[::1]:80"),
    ],
)
def test_roots_have_neither_slash_nor_version(url: str, root: str) -> None:
    assert RemoteOptions(base_url=url).roots == (root,)


def test_several_replicas_keep_their_order() -> None:
    assert RemoteOptions(base_url=("http://b/v1", "http://a")).roots == ("http://b", "http://a")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host", "no http or https address"),
        ("localhost:8000", "no http or https address"),
        ("http://", "no http or https address"),
        ("http://host:port", "no http or https address"),
        ("http://[host", "no http or https address"),
        ("http://host/v1?a=b", "takes nothing after"),
        ((), "at least one"),
        (("http://host/v1", "http://HOST/"), "twice"),
    ],
)
def test_what_is_no_address_is_refused(url: str | tuple[str, ...], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RemoteOptions(base_url=url)


@pytest.mark.parametrize("url", ["http://me:hunter2@host/v1", "https://hunter2@host", "http://me:hunter2@ho[st"])
def test_credentials_in_an_address_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ValidationError, match="use api_key_env") as caught:
        RemoteOptions(base_url=url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "key", ["sk-abc", "abcdef0123456789abcdef0123456789", "hf_AbCdEfGhIjKlMnOpQrSt", "ABCDEFABCDEFABCDEFABCDEF", "a b"]
)
def test_a_key_in_the_place_of_a_variables_name_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(ValidationError, match="name of an environment variable") as caught:
        RemoteOptions(base_url="http://host", api_key_env=key)
    assert key not in str(caught.value)


@pytest.mark.parametrize("name", ["KEY", "my_key", "A_VERY_LONG_NAME_OF_A_VARIABLE_2"])
def test_names_of_variables_are_taken(name: str) -> None:
    assert RemoteOptions(base_url="http://host", api_key_env=name).api_key_env == name


def test_hedging_needs_a_second_replica() -> None:
    with pytest.raises(ValidationError, match="second replica"):
        RemoteOptions(base_url="http://a", timeouts={"hedge_after": 1.0})
    assert RemoteOptions(base_url=("http://a", "http://b"), timeouts={"hedge_after": 1.0}).timeouts.hedge_after == 1.0


def test_it_mixes_into_a_role_which_forbids_what_it_does_not_know() -> None:
    class Mixed(RemoteOptions, Scorer):
        """Not complete."""

        name = "mixed"

    assert Mixed.model_config["hide_input_in_errors"]
    assert Mixed.model_config["frozen"]
    assert Mixed.model_config["extra"] == "forbid"
    assert {"base_url", "timeouts"} <= set(Mixed.model_fields)
