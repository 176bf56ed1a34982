"""Requests to a loopback server over HTTP, and what a CategoricalModel makes of them."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx

from distillkit_loopback.openai.categorical import CategoricalModel
from distillkit_loopback.openai.server import LoopbackServer

COMPLETIONS, GENERATE = "/v1/completions", "/generate"
PROMPT = [5, 70, 80, 90, 75]
SCORING = {"prompt": PROMPT, "max_tokens": 0, "echo": True, "prompt_logprobs": 0}
Serve = Callable[..., LoopbackServer]


def post(server: LoopbackServer, path: str, timeout: float = 60.0, **body: Any) -> httpx.Response:
    return httpx.post(server.url + path, json=body, timeout=timeout, verify=False)  # no CA bundle is read


def complete(server: LoopbackServer, **body: Any) -> Any:
    response = post(server, COMPLETIONS, **body)
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]


def generate(server: LoopbackServer, max_new_tokens: int = 0, **body: Any) -> Any:
    sampling = {"max_new_tokens": max_new_tokens, **body.pop("sampling_params", {})}
    response = post(server, GENERATE, sampling_params=sampling, return_logprob=True, **body)
    assert response.status_code == 200, response.text
    return response.json()


def refused(response: httpx.Response) -> tuple[int, str, str]:
    error = response.json()["error"]
    assert error["code"] == response.status_code
    return response.status_code, error["type"], error["message"]


def expected(ids: list[int], model: CategoricalModel | None = None) -> list[float]:
    model = model or CategoricalModel()
    return [float(model.distribution(before)[after]) for before, after in pairwise(ids)]


def write_adapter(folder: Path, content: bytes = b"weights") -> str:
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(content)
    return str(folder)
