"""A real SGLang server of a tiny model, with adapters, and with sampling defaults that would change completions.

SGLang's path on a CPU computes each sequence by itself, layer by layer: 0.6 s a step of 16 completions of the demo's
model, 8 ms of the tiny one. `test_teachers.py` starts one on the demo's model.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.tiny_models import write_model

from servers.server_process import running
from servers.sglang.sglang_process import LORA, SGLangProcess
from servers.short_rows import write_short_rows

DEFAULTS = {"top_k": 1, "repetition_penalty": 1.3}
"""Greedy, and less probable what was in the prompt, where a request leaves that out."""


@pytest.fixture(scope="package")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers with a token a byte, whose head is its embedding; what `rows` ask of it is soon learnt.

    On a CPU SGLang 0.5.23 pads the MLP to a multiple of 32, and dies of an adapter for what it has padded.
    """
    return Path(write_model(tmp_path_factory.mktemp("tiny"), spread=0.2, context=1024, intermediate=64))


@pytest.fixture(scope="package")
def server(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SGLangProcess]:
    log = tmp_path_factory.mktemp("sglang") / "server.log"
    more = (*LORA, "--preferred-sampling-params", json.dumps(DEFAULTS))
    found = SGLangProcess(tiny, log, more, name=str(tiny))  # so that it is called the same once it was given back
    with running(found):
        yield found


@pytest.fixture
def rows(tmp_path: Path) -> str:
    """A data file of 256 rows, of which each teacher has its half."""
    return write_short_rows(tmp_path / "rows.jsonl", 256)
