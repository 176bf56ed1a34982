"""`/generate` as SGLang has it."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from distillkit_loopback.openai.categorical import CategoricalModel
from distillkit_loopback.openai.flavors import Flavor
from distillkit_loopback.openai.server import LoopbackServer
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
    write_adapter,
)


@pytest.mark.parametrize("start", range(6))
def test_sglang_has_an_entry_a_token_and_a_null_for_the_first(serve: Serve, start: int) -> None:
    meta = generate(serve(flavor=Flavor("sglang")), input_ids=PROMPT, logprob_start_len=start)["meta_info"]
    told = meta["input_token_logprobs"]
    assert [index for _, index, _ in told] == PROMPT[start:]
    assert [logprob for logprob, _, _ in told] == [None, *expected(PROMPT[start:])][: len(told)]
    assert (meta["prompt_tokens"], meta["completion_tokens"], meta["output_token_logprobs"]) == (5, 0, [])


def test_sglang_names_the_vocabularys_last_id_0_unless_it_is_asked_for_by_itself(serve: Serve) -> None:
    model, prompt = CategoricalModel(), [5, 258, 70, 258]
    body: Any = {"input_ids": prompt, "logprob_start_len": 0, "token_ids_logprob": [258, 3]}
    meta = generate(serve(flavor=Flavor("sglang")), **body)["meta_info"]
    told = meta["input_token_logprobs"]
    assert [index for _, index, _ in told] == [5, 0, 70, 0]
    np.testing.assert_array_equal([logprob for logprob, *_ in told[1:]], expected(prompt, model))
    rows = [model.distribution(before) for before in prompt[:-1]]
    given = [[[row[258], 258, None], [row[3], 3, None]] for row in rows]
    assert meta["input_token_ids_logprobs"] == [None, *given]


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


def test_sglang_cuts_what_comes_near_its_context_and_takes_no_prompt_that_does(serve: Serve) -> None:
    """As its scheduler does, although its first check lets them pass."""
    server = serve(flavor=Flavor("sglang"), context_length=64)
    sampling = {"max_new_tokens": 20, "sampling_seed": 1}
    meta = post(server, GENERATE, input_ids=[5] * 44, sampling_params=sampling).json()["meta_info"]
    assert (meta["completion_tokens"], meta["finish_reason"]) == (18, {"type": "length", "length": 18})
    none = {"max_new_tokens": 0}
    assert post(server, GENERATE, input_ids=[5] * 57, sampling_params=none).status_code == 200
    status, _, message = refused(post(server, GENERATE, input_ids=[5] * 58, sampling_params=none))
    assert (status, message.partition(". ")[0]) == (
        400,
        "Input length (58 tokens) exceeds the maximum allowed length (58 tokens)",
    )


def test_sglang_serves_echo_too_of_any_model_with_a_token_behind_it(serve: Serve) -> None:
    server = serve(flavor=Flavor("sglang"))
    asked = {**SCORING, "logprobs": 0, "max_tokens": 1, "model": "no/such"}
    assert complete(server, **asked)["logprobs"]["token_logprobs"][:5] == [None, *expected(PROMPT)]
    status, _, message = refused(post(server, "/v1/completions", **SCORING, logprobs=0))
    assert (status, message) == (400, "max_tokens must be positive")
    assert httpx.get(server.url + "/get_model_info").json()["is_generation"] is True


# As a real SGLang 0.5.23 answered, word for word but for paths.


def adapter(server: LoopbackServer, path: str, **body: str) -> tuple[int, bool, str | None]:
    response = post(server, path, **body)
    said = response.json()
    return response.status_code, said["success"], said["error_message"]


def test_an_adapter_answers_under_its_name_also_after_it_was_unloaded(serve: Serve, tmp_path: Path) -> None:
    server, path = serve(flavor=Flavor("sglang")), write_adapter(tmp_path / "a")
    load, unload = "/load_lora_adapter", "/unload_lora_adapter"

    def sampled() -> Any:
        return generate(server, 4, input_ids=PROMPT, lora_path="a1", sampling_params={"sampling_seed": 3})

    response = post(server, GENERATE, input_ids=PROMPT, lora_path="a1")
    said = "Got LoRA adapter that has never been loaded: a1\nAll loaded adapters: dict_keys([])."
    assert (response.status_code, response.json()["error"]["message"]) == (400, said)
    assert adapter(server, load, lora_name="a1", lora_path=path) == (200, True, "")
    again = (400, False, "Failed to load LoRA adapter a1 because it is already loaded")
    assert adapter(server, load, lora_name="a1", lora_path=path) == again
    first = sampled()
    ids = first["output_ids"]
    logprobs = [logprob for logprob, _, _ in first["meta_info"]["output_token_logprobs"]]
    assert logprobs == expected([*PROMPT, *ids], CategoricalModel().adapted(Path(path)))[4:]
    assert adapter(server, unload, lora_name="a1") == (200, True, "")
    gone = (400, False, "LoRA with name a1 does not exist. Loaded LoRAs: odict_keys([])")
    assert adapter(server, unload, lora_name="a1") == gone
    assert sampled()["output_ids"] == ids
    assert adapter(server, load, lora_name="a1", lora_path=path) == again
    card = httpx.get(server.url + "/v1/models").json()["data"][1]
    assert [card[name] for name in ("id", "root", "parent", "max_model_len")] == ["a1", path, "loopback", None]


def test_an_adapter_that_is_not_there_is_taken_for_one_of_a_hub(serve: Serve, tmp_path: Path) -> None:
    server = serve(flavor=Flavor("sglang"))
    hub = "Repo id must be in the form 'repo_name' or 'namespace/repo_name': '/no/where'. Use `repo_type` argument if"
    load = "/load_lora_adapter"
    assert adapter(server, load, lora_name="a", lora_path="/no/where") == (400, False, f"{hub} needed.")
    missing = f"[Errno 2] No such file or directory: '{tmp_path}/adapter_config.json'"
    assert adapter(server, load, lora_name="a", lora_path=str(tmp_path)) == (400, False, missing)


def test_whole_weights_change_with_their_label_and_the_models_name(serve: Serve, tmp_path: Path) -> None:
    server = serve(name="smol", flavor=Flavor("sglang"))
    empty = post(server, "/update_weights_from_disk", model_path=str(tmp_path), weight_version="v1")
    none = f"Failed to get weights iterator: Cannot find any model weights with `{tmp_path}`."
    assert (empty.status_code, empty.json()["message"]) == (400, none)
    (tmp_path / "model.safetensors").write_text("1")
    done = post(server, "/update_weights_from_disk", model_path=str(tmp_path), weight_version="v1")
    assert done.json()["message"] == "Succeeded to update model weights. Weight version updated to v1."
    answer = generate(server, 2, input_ids=PROMPT)
    assert answer["meta_info"]["weight_version"] == "v1"
    assert answer["meta_info"]["weight_versions"] == [{"version": "v1", "start": 0, "end": 2}]
    assert httpx.get(server.url + "/v1/models").json()["data"][0]["id"] == str(tmp_path)
    assert httpx.get(server.url + "/server_info").json()["served_model_name"] == "smol"
    post(server, "/update_weight_version", new_version="v2")
    assert httpx.get(server.url + "/model_info").json()["weight_version"] == "v2"
    server.stop()
    server.start()
    assert generate(server, 2, input_ids=PROMPT)["meta_info"]["weight_version"] == "default"
    assert httpx.get(server.url + "/v1/models").json()["data"][0]["id"] == "smol"


def test_logprobs_are_tempered_where_nothing_else_was_asked_for(serve: Serve) -> None:
    raw, tempered = (serve(flavor=Flavor("sglang"), processed_logprobs=each) for each in (False, True))

    def logprobs(server: LoopbackServer, temperature: float) -> list[float]:
        params = {"sampling_seed": 3, "temperature": temperature}
        meta = generate(server, 4, input_ids=PROMPT, sampling_params=params)["meta_info"]
        return [logprob for logprob, _, _ in meta["output_token_logprobs"]]

    np.testing.assert_allclose(logprobs(raw, 1.0), logprobs(tempered, 1.0), atol=1e-9)
    assert np.abs(np.subtract(logprobs(raw, 0.3), logprobs(tempered, 0.3))).max() > 0.1
