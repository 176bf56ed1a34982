"""The loopback server in each of its dialects."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from builtin.http.serving import (
    COMPLETIONS,
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

from distillkit.types import SamplingParams
from distillkit_loopback.openai.categorical import CategoricalModel
from distillkit_loopback.openai.flavors import Flavor

# The model


def test_each_law_sums_to_one_and_ranks_count_from_the_likeliest() -> None:
    model = CategoricalModel(vocabulary=100)
    assert np.exp(model.distribution(7)).sum() == pytest.approx(1.0)
    best = int(model.distribution(7).argmax())
    scored = model.score([7, best, 3], 1, 3)
    assert scored.ranks[0] == 1
    assert scored.topk_ids[0, 0] == best
    assert scored.ranks[1] == (model.distribution(best) >= model.distribution(best)[3]).sum()
    assert list(scored.topk_logprobs[1]) == sorted(model.distribution(best), reverse=True)[:3]


def test_completions_are_drawn_from_the_law() -> None:
    model = CategoricalModel(vocabulary=8)
    first = [model.sample([3], seed, SamplingParams(1)).ids[0] for seed in range(4000)]
    found = np.bincount(first, minlength=8) / len(first)
    assert found == pytest.approx(np.exp(model.distribution(3)), abs=0.03)


def test_temperature_top_k_and_top_p_change_what_is_drawn() -> None:
    model = CategoricalModel(vocabulary=8)
    order = np.argsort(-model.distribution(3))
    firsts = {
        name: {model.sample([3], seed, SamplingParams(1, **options)).ids[0] for seed in range(300)}
        for name, options in {"cold": {"temperature": 0}, "k": {"top_k": 2}, "p": {"top_p": 1e-6}}.items()
    }
    assert firsts == {"cold": {order[0]}, "k": set(order[:2].tolist()), "p": {order[0]}}


# vLLM


def test_what_is_served(serve: Serve) -> None:
    server = serve(name="smol", context_length=64)
    listing = httpx.get(server.url + "/v1/models").json()
    assert listing["object"] == "list"
    assert {**listing["data"][0]}.items() >= {"id": "smol", "parent": None, "max_model_len": 64}.items()
    assert httpx.get(server.url + "/health").status_code == 200
    assert set(httpx.get(server.url + "/version").json()) == {"version"}
    tokens = post(server, "/tokenize", model="smol", prompt="Hi", add_special_tokens=False).json()
    assert tokens == {"count": 2, "max_model_len": 64, "tokens": [72, 105], "token_strs": None}
    assert httpx.get(server.url + "/nothing").json() == {"detail": "Not Found"}
    assert post(server, GENERATE).status_code == 404


def test_a_prompt_is_scored_without_drawing(serve: Serve) -> None:
    choice = complete(serve(), **SCORING)
    first, *rest = choice["prompt_logprobs"]
    assert first is None
    assert [list(entry) for entry in rest] == [[str(index)] for index in PROMPT[1:]]
    assert [entry[str(index)]["logprob"] for entry, index in zip(rest, PROMPT[1:], strict=True)] == expected(PROMPT)
    assert choice["logprobs"] is None
    assert choice["finish_reason"] == "length"
    assert choice["text"] == "".join(map(chr, PROMPT))


def test_candidates_come_after_the_token_itself(serve: Serve) -> None:
    entries = complete(serve(), **{**SCORING, "prompt_logprobs": 3})["prompt_logprobs"][1:]
    for before, after, entry in zip(PROMPT, PROMPT[1:], entries, strict=False):
        law = CategoricalModel().distribution(before)
        best = [str(index) for index in np.argsort(-law)[:3]]
        assert list(entry) == [str(after), *(index for index in best if index != str(after))]
        assert [entry[index]["rank"] for index in best] == [1, 2, 3]
        assert entry[str(after)]["decoded_token"] == chr(after)


def test_an_echo_has_the_logprobs_of_prompt_and_completion(serve: Serve) -> None:
    server = serve()
    asked = {"prompt": PROMPT, "max_tokens": 3, "seed": 1, "logprobs": 1, "return_tokens_as_token_ids": True}
    choice = complete(server, **asked, echo=True)
    logprobs = choice["logprobs"]
    ids = [int(token.removeprefix("token_id:")) for token in logprobs["tokens"]]
    assert ids[:5] == PROMPT
    assert logprobs["token_logprobs"] == [None, *expected(ids)]
    assert logprobs["top_logprobs"][0] is None
    assert all(1 <= len(top) <= 2 for top in logprobs["top_logprobs"][1:])
    assert logprobs["text_offset"][:3] == [0, 10, 21]
    assert choice["prompt_logprobs"][0] is None
    drawn = complete(server, **asked)["logprobs"]
    assert drawn["tokens"] == logprobs["tokens"][5:]
    assert drawn["token_logprobs"] == logprobs["token_logprobs"][5:]


def test_ids_and_logprobs_of_a_completion(serve: Serve) -> None:
    server = serve()
    asked = {"prompt": PROMPT, "max_tokens": 6, "logprobs": 0, "return_token_ids": True}
    hot = complete(server, **asked, seed=4, temperature=2.0)
    assert hot["prompt_token_ids"] == PROMPT
    assert hot["prompt_logprobs"] is None
    # The logprobs are those at temperature 1, whatever was drawn from.
    assert hot["logprobs"]["token_logprobs"] == expected([*PROMPT, *hot["token_ids"]])[4:]
    assert complete(server, **asked, seed=4, temperature=2.0) == hot
    assert complete(server, **asked, seed=5, temperature=2.0) != hot
    assert complete(server, **asked) != complete(server, **asked)


def test_the_token_that_vllm_draws_behind_an_echo_shows_in_its_ids_alone(serve: Serve) -> None:
    choice = complete(serve(), prompt=PROMPT, max_tokens=0, echo=True, logprobs=0, return_token_ids=True)
    assert len(choice["token_ids"]) == 1
    assert len(choice["logprobs"]["tokens"]) == 5
    assert choice["text"] == ""


def test_a_stop_string_ends_a_completion(serve: Serve) -> None:
    server = serve()
    asked = {"prompt": PROMPT, "max_tokens": 40, "seed": 2, "return_token_ids": True}
    whole = complete(server, **asked)
    assert (whole["finish_reason"], whole["stop_reason"]) == ("length", None)
    stop = next(chr(index) for index in whole["token_ids"][3:] if 32 < index < 127)
    cut = complete(server, **asked, stop=stop)
    assert (cut["finish_reason"], cut["stop_reason"]) == ("stop", stop)
    assert chr(cut["token_ids"][-1]) == stop
    assert stop not in cut["text"]
    assert complete(server, **asked, stop=[stop], include_stop_str_in_output=True)["text"] == cut["text"] + stop


def test_an_end_token_ends_a_completion_and_is_hidden_text(serve: Serve) -> None:
    server = serve(CategoricalModel(eos_ids=frozenset({256, 257, 258, *range(60)})))
    asked = {"prompt": PROMPT, "max_tokens": 100, "seed": 3, "return_token_ids": True}
    choice = complete(server, **asked, skip_special_tokens=False)
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", None)
    assert choice["token_ids"][-1] < 60 or choice["token_ids"][-1] > 255


@pytest.mark.parametrize(
    ("body", "status", "kind", "message"),
    [
        ({"model": "x"}, 404, "NotFoundError", "The model `x` does not exist."),
        ({"max_tokens": 60}, 400, "BadRequestError", "maximum context length is 64 tokens"),
        ({"prompt_logprobs": 21}, 400, "BadRequestError", "greater than max allowed: 20"),
        ({"logprobs": 21}, 400, "BadRequestError", "greater than max allowed: 20"),
        ({"max_tokens": 0}, 400, "BadRequestError", "max_tokens must be at least 1"),
        ({"prompt": []}, 400, "BadRequestError", "empty"),
        ({"prompt": [5, 999]}, 400, "BadRequestError", "Token id 999 is out of vocabulary"),
        ({"prompt": None}, 400, "BadRequestError", "prompt"),
        ({"temperature": -1}, 400, "BadRequestError", "temperature"),
        ({"n": 2}, 400, "BadRequestError", "one completion"),
    ],
)
def test_what_cannot_be_is_refused(serve: Serve, body: dict[str, Any], status: int, kind: str, message: str) -> None:
    server = serve(context_length=64)
    got = refused(post(server, COMPLETIONS, **{"prompt": PROMPT, "max_tokens": 1, **body}))
    assert got[:2] == (status, kind)
    assert message in got[2]


def test_a_key_is_needed_where_there_is_one(serve: Serve) -> None:
    server = serve(api_key="right")
    url = server.url + "/v1/models"
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, headers={"authorization": "Bearer wrong"}).json() == {"error": "Unauthorized"}
    assert httpx.get(url, headers={"x-api-key": "right"}).status_code == 401
    assert httpx.get(url, headers={"authorization": "Bearer right"}).status_code == 200
    assert httpx.get(server.url + "/health").status_code == 200
    assert all("authorization" not in request.headers for request in server.traffic.requests())


# Adapters


def test_an_adapter_is_served_under_its_own_name(serve: Serve, tmp_path: Path) -> None:
    server, path = serve(name="base"), write_adapter(tmp_path / "one")
    loaded = post(server, "/v1/load_lora_adapter", lora_name="one", lora_path=path)
    assert (loaded.status_code, loaded.text) == (200, "Success: LoRA adapter 'one' added successfully.")
    card = httpx.get(server.url + "/v1/models").json()["data"][1]
    assert card.items() >= {"id": "one", "parent": "base", "root": path}.items()
    base = complete(server, model="base", **SCORING)
    assert complete(server, model="one", **SCORING) != base
    assert post(server, "/v1/unload_lora_adapter", lora_name="one").status_code == 200
    assert refused(post(server, COMPLETIONS, model="one", **SCORING))[0] == 404
    assert complete(server, model="base", **SCORING) == base


def test_adapters_that_cannot_be_loaded_are_refused(serve: Serve, tmp_path: Path) -> None:
    server, path = serve(name="base"), write_adapter(tmp_path / "one")
    load = "/v1/load_lora_adapter"
    missing = refused(post(server, load, lora_name="no", lora_path="/nonexistent"))
    assert missing == (404, "NotFoundError", "Loading lora no failed: No adapter found for /nonexistent")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "adapter_config.json").write_text("{}")
    assert refused(post(server, load, lora_name="half", lora_path=str(tmp_path / "half")))[0] == 500
    assert refused(post(server, load, lora_name="base", lora_path=path))[0] == 400
    assert refused(post(server, load))[0] == 400
    assert post(server, load, lora_name="one", lora_path=path).status_code == 200
    assert "already been loaded" in refused(post(server, load, lora_name="one", lora_path=path))[2]
    assert post(server, load, lora_name="one", lora_path=path, load_inplace=True).status_code == 200
    assert refused(post(server, "/v1/unload_lora_adapter", lora_name="no"))[0] == 404
    assert refused(post(server, "/v1/unload_lora_adapter"))[0] == 400


def test_a_server_that_was_killed_comes_back_without_its_adapters(serve: Serve, tmp_path: Path) -> None:
    server, path = serve(), write_adapter(tmp_path / "one")
    post(server, "/v1/load_lora_adapter", lora_name="one", lora_path=path)
    before = complete(server, **SCORING)
    url = server.url
    with httpx.Client() as client:
        client.get(url + "/health")
        server.stop()
        with pytest.raises(httpx.TransportError):
            client.get(url + "/health")
        server.start()
        assert server.url == url
        assert client.get(url + "/health").status_code == 200
    assert not server.catalogue.adapters
    assert complete(server, **SCORING) == before


# Other flavors


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


@pytest.mark.parametrize("start", range(6))
def test_sglang_has_an_entry_a_token_and_a_null_for_the_first(serve: Serve, start: int) -> None:
    meta = generate(serve(flavor=Flavor("sglang")), input_ids=PROMPT, logprob_start_len=start)["meta_info"]
    told = meta["input_token_logprobs"]
    assert [index for _, index, _ in told] == PROMPT[start:]
    assert [logprob for logprob, _, _ in told] == [None, *expected(PROMPT[start:])][: len(told)]
    assert (meta["prompt_tokens"], meta["completion_tokens"], meta["output_token_logprobs"]) == (5, 0, [])


def test_sglang_says_nothing_about_the_input_unless_it_is_asked(serve: Serve) -> None:
    answer = generate(serve(flavor=Flavor("sglang")), 3, input_ids=PROMPT, top_logprobs_num=2)
    meta = answer["meta_info"]
    assert meta["input_token_logprobs"] == meta["input_top_logprobs"] == []
    assert meta["finish_reason"] == {"type": "length", "length": 3}
    ids = [index for _, index, _ in meta["output_token_logprobs"]]
    assert answer["output_ids"] == ids
    assert [logprob for logprob, _, _ in meta["output_token_logprobs"]] == expected([*PROMPT, *ids])[4:]
    assert [len(top) for top in meta["output_top_logprobs"]] == [2, 2, 2]


def test_sglang_shows_candidates_and_texts(serve: Serve) -> None:
    server = serve(flavor=Flavor("sglang"))
    asked = {"logprob_start_len": 2, "top_logprobs_num": 2, "return_text_in_logprobs": True}
    meta = generate(server, text="Flame", **asked)["meta_info"]
    assert [text for _, _, text in meta["input_token_logprobs"]] == ["a", "m", "e"]
    first, *rest = meta["input_top_logprobs"]
    assert first is None
    law = CategoricalModel().distribution(ord("a"))
    assert [index for _, index, _ in rest[0]] == np.argsort(-law)[:2].tolist()


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


# Whole weights


def test_the_base_model_can_be_given_other_weights_until_the_server_stops(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    first = complete(server, **SCORING)
    assert httpx.get(server.url + "/weight_info").json() == {"weight_version": "default"}
    reload = {"method": "reload_weights", "kwargs": {"weights_path": str(tmp_path)}}
    assert post(server, "/collective_rpc", **reload).status_code == 200
    assert post(server, "/reset_prefix_cache").status_code == 200
    assert post(server, "/update_weight_version", new_version="one").status_code == 200
    assert httpx.get(server.url + "/weight_info").json() == {"weight_version": "one"}
    assert complete(server, **SCORING) != first
    server.stop()
    server.start()
    assert httpx.get(server.url + "/weight_info").json() == {"weight_version": "default"}
    assert complete(server, **SCORING) == first


def test_weights_that_are_not_there_leave_the_model_as_it_was(serve: Serve) -> None:
    server = serve()
    first = complete(server, **SCORING)
    reload = {"method": "reload_weights", "kwargs": {"weights_path": "/nonexistent"}}
    assert refused(post(server, "/collective_rpc", **reload))[:2] == (500, "InternalServerError")
    assert refused(post(server, "/collective_rpc", method="sleep"))[0] == 500
    assert complete(server, **SCORING) == first


def test_processed_logprobs_are_those_at_the_temperature_that_drew(serve: Serve) -> None:
    server = serve(processed_logprobs=True)
    body = {"prompt": PROMPT, "max_tokens": 5, "seed": 1, "logprobs": 2, "return_token_ids": True}
    body["return_tokens_as_token_ids"] = True
    cold, hot = (complete(server, **body, temperature=temperature) for temperature in (0.5, 1.0))
    assert hot["logprobs"]["token_logprobs"] == pytest.approx(expected([PROMPT[-1], *hot["token_ids"]]))
    law = CategoricalModel().distribution(PROMPT[-1]) / 0.5
    wanted = law - np.log(np.exp(law).sum())
    assert cold["logprobs"]["token_logprobs"][0] == pytest.approx(wanted[cold["token_ids"][0]])
    assert max(cold["logprobs"]["top_logprobs"][0].values()) == pytest.approx(wanted.max())
