"""One real SGLang server for all tests, with adapters and with sampling defaults that would change completions."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers.server_process import running
from servers.sglang.sglang_process import LORA, SGLangProcess

DEFAULTS = {"top_k": 1, "repetition_penalty": 1.3}
"""Greedy, and less probable what was in the prompt, where a request leaves that out."""


@pytest.fixture(scope="package")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SGLangProcess]:
    log = tmp_path_factory.mktemp("sglang") / "server.log"
    found = SGLangProcess(model, log, (*LORA, "--preferred-sampling-params", json.dumps(DEFAULTS)))
    with running(found):
        yield found
