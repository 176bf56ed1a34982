"""Servers that know less than vLLM."""

import httpx
import pytest

from distillkit_loopback.openai.flavors import Flavor
from loopback.openai.wire import PROMPT, SCORING, Serve, complete, expected


@pytest.mark.parametrize("ids", [True, False])
def test_a_server_that_knows_only_echo(serve: Serve, ids: bool) -> None:
    server = serve(flavor=Flavor("echo", ids=ids))
    choice = complete(server, **SCORING, logprobs=0, return_token_ids=True, return_tokens_as_token_ids=True)
    assert "prompt_logprobs" not in choice
    assert choice["logprobs"]["token_logprobs"] == [None, *expected(PROMPT)]
    assert choice["logprobs"]["tokens"][1] == ("token_id:70" if ids else "F")
    assert choice.get("prompt_token_ids") == (PROMPT if ids else None)
    for method, path in (("GET", "/version"), ("POST", "/tokenize"), ("POST", "/v1/load_lora_adapter")):
        assert httpx.request(method, server.url + path).status_code == 404
