"""`/generate` as SGLang has it."""

from typing import Any

import httpx
import numpy as np
import pytest

from distillkit_loopback.openai.categorical import CategoricalModel
from distillkit_loopback.openai.flavors import Flavor
from loopback.openai.wire import (
    GENERATE,
    PROMPT,
    SCORING,
    Serve,
    complete,
    expected,
    generate,
    post,
    refused,
)


@pytest.mark.parametrize("start", range(6))
def test_sglang_has_an_entry_a_token_and_a_null_for_the_first(serve: Serve, start: int) -> None:
    meta = generate(serve(flavor=Flavor("sglang")), input_ids=PROMPT, logprob_start_len=start)["meta_info"]
    told = meta["input_token_logprobs"]
    assert [index for _, index, _ in told] == PROMPT[start:]
    assert [logprob for logprob, _, _ in told] == [None, *expected(PROMPT[start:])][: len(told)]
    assert (meta["prompt_tokens"], meta["completion_tokens"], meta["output_token_logprobs"]) == (5, 0, [])


def test_sglang_says_nothing_about_the_input_unless_it_is_requested(serve: Serve) -> None:
    answer = generate(serve(flavor=Flavor("sglang")), 3, input_ids=PROMPT, top_logprobs_num=2)
    meta = answer["meta_info"]
    assert meta["input_token_logprobs"] == meta["input_top_logprobs"] == []
    assert meta["finish_reason"] == {"type": "length", "length": 3}
    ids = [index for _, index, _ in meta["output_token_logprobs"]]
    assert answer["output_ids"] == ids
    assert [logprob for logprob, _, _ in meta["output_token_logprobs"]] == expected([*PROMPT, *ids])[4:]
    assert [len(top) for top in meta["output_top_logprobs"]] == [2, 2, 2]


def test_sglang_ends_at_stop_ids_and_says_at_which(serve: Serve) -> None:
    server = serve(flavor=Flavor("sglang"))
    ids = generate(server, 12, input_ids=PROMPT, sampling_params={"sampling_seed": 3})["output_ids"]
    at = next(at for at in range(2, 12) if ids[at] not in ids[:at])
    answer = generate(server, 12, input_ids=PROMPT, sampling_params={"sampling_seed": 3, "stop_token_ids": [ids[at]]})
    assert answer["output_ids"] == ids[: at + 1]
    assert answer["meta_info"]["finish_reason"] == {"type": "stop", "matched": ids[at]}


def test_sglang_shows_candidates_and_texts(serve: Serve) -> None:
    server = serve(flavor=Flavor("sglang"))
    asked = {"logprob_start_len": 2, "top_logprobs_num": 2, "return_text_in_logprobs": True}
    meta = generate(server, text="Flame", **asked)["meta_info"]
    assert [text for _, _, text in meta["input_token_logprobs"]] == ["a", "m", "e"]
    first, *rest = meta["input_top_logprobs"]
    assert first is None
    logprobs = CategoricalModel().distribution(ord("a"))
    assert [index for _, index, _ in rest[0]] == np.argsort(-logprobs)[:2].tolist()


@pytest.mark.parametrize(
    "body", [{"input_ids": PROMPT, "logprob_start_len": 6}, {}, {"input_ids": []}, {"input_ids": PROMPT * 13}]
)
def test_sglang_refuses_what_cannot_be(serve: Serve, body: dict[str, Any]) -> None:
    server = serve(flavor=Flavor("sglang"), context_length=64)
    sampling = {"max_new_tokens": 0}
    assert refused(post(server, GENERATE, return_logprob=True, sampling_params=sampling, **body))[0] == 400


def test_sglang_serves_echo_too_and_no_adapters(serve: Serve) -> None:
    server = serve(flavor=Flavor("sglang"))
    assert complete(server, **SCORING, logprobs=0)["logprobs"]["token_logprobs"] == [None, *expected(PROMPT)]
    assert post(server, "/v1/load_lora_adapter", lora_name="x", lora_path="/y").status_code == 404
    assert httpx.get(server.url + "/get_model_info").json()["is_generation"] is True
