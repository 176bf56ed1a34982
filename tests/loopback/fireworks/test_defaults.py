"""What the service fills in where a request leaves a field out: the model's generation_config.json, as its SDK says."""

from typing import Any

import httpx
import pytest
from builtin.fireworks.conftest import SERVED

from distillkit_loopback.transport.faults import GenerationConfig

pytest.importorskip("fireworks.training.sdk")
NEUTRAL = {"temperature": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "max_tokens": 6}


def ids(service: Any, **sent: Any) -> list[list[int]]:
    found = []
    for seed in range(4):
        body = {"model": SERVED, "prompt": [1, 70, 71], "max_tokens": 6, "raw_output": True, "seed": seed, **sent}
        key = {"Authorization": "Bearer key", "X-Api-Key": "key"}
        address = f"{service.base_url}/inference/v1/completions"
        answer = httpx.post(address, json=body, headers=key, verify=False, timeout=60)
        assert answer.status_code == 200, answer.text
        found.append(answer.json()["choices"][0]["raw_output"]["completion_token_ids"])
    return found


@pytest.mark.parametrize(("name", "value"), [("temperature", 0.0), ("top_k", 1), ("min_p", 1.0), ("max_new_tokens", 2)])
def test_what_a_request_leaves_out_is_filled_in(service: Any, name: str, value: float) -> None:
    untouched = ids(service)
    service.faults.add(GenerationConfig({name: value}), times=None, where="completions")
    touched = ids(service)
    assert touched != untouched
    if name == "max_new_tokens":
        assert {len(each) for each in touched} == {2}
        return
    assert all(each == touched[0] for each in touched)
    assert ids(service, **NEUTRAL) == untouched
    service.faults.clear()
    service.faults.add(GenerationConfig({name: value}, forced=True), times=None, where="completions")
    assert ids(service, **NEUTRAL) == touched


def test_max_tokens_is_lowered_to_the_context_unless_that_is_to_be_an_error(service: Any) -> None:
    assert {len(each) for each in ids(service, max_tokens=100_000, ignore_eos=False)} != {100_000}
    with pytest.raises(AssertionError, match="exceed the context"):
        ids(service, max_tokens=100_000, context_length_exceeded_behavior="error")


def test_what_is_not_computed_is_refused(service: Any) -> None:
    with pytest.raises(AssertionError, match="does not compute logit_bias"):
        ids(service, logit_bias={"5": 3.0})
