"""`/v1/completions` and the endpoints beside it, as vLLM has them."""

from typing import Any

import httpx
import numpy as np
import pytest

from distillkit_loopback.openai.categorical import CategoricalModel
from loopback.openai.wire import COMPLETIONS, GENERATE, PROMPT, SCORING, Serve, complete, expected, post, refused


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


def test_a_prompt_is_scored_without_sampling(serve: Serve) -> None:
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
        logprobs = CategoricalModel().distribution(before)
        best = [str(index) for index in np.argsort(-logprobs)[:3]]
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
    sampled = complete(server, **asked)["logprobs"]
    assert sampled["tokens"] == logprobs["tokens"][5:]
    assert sampled["token_logprobs"] == logprobs["token_logprobs"][5:]


def test_ids_and_logprobs_of_a_completion(serve: Serve) -> None:
    server = serve()
    asked = {"prompt": PROMPT, "max_tokens": 6, "logprobs": 0, "return_token_ids": True}
    hot = complete(server, **asked, seed=4, temperature=2.0)
    assert hot["prompt_token_ids"] == PROMPT
    assert hot["prompt_logprobs"] is None
    # The logprobs are those at temperature 1, whatever was sampled from.
    assert hot["logprobs"]["token_logprobs"] == expected([*PROMPT, *hot["token_ids"]])[4:]
    assert complete(server, **asked, seed=4, temperature=2.0) == hot
    assert complete(server, **asked, seed=5, temperature=2.0) != hot
    assert complete(server, **asked) != complete(server, **asked)


def test_the_token_that_vllm_samples_behind_an_echo_shows_in_its_ids_alone(serve: Serve) -> None:
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


def test_a_stop_id_ends_a_completion_and_stays_its_last_token(serve: Serve) -> None:
    server = serve()
    asked = {"prompt": PROMPT, "max_tokens": 40, "seed": 2, "return_token_ids": True, "logprobs": 1}
    whole = complete(server, **asked)["token_ids"]
    at = next(at for at in range(3, 40) if 32 < whole[at] < 127 and whole[at] not in whole[:at])
    cut = complete(server, **asked, stop_token_ids=[255, whole[at]])
    assert cut["token_ids"] == whole[: at + 1]
    assert len(cut["logprobs"]["token_logprobs"]) == at + 1
    assert (cut["finish_reason"], cut["stop_reason"]) == ("stop", whole[at])
    shown = complete(server, **asked, stop_token_ids=[whole[at]], include_stop_str_in_output=True)
    assert shown["text"] == cut["text"] + chr(whole[at])
    last = complete(server, **{**asked, "max_tokens": at + 1}, stop_token_ids=[whole[at]])
    assert (last["token_ids"], last["finish_reason"]) == (whole[: at + 1], "stop")


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
        ({"stop_token_ids": [258, 259]}, 400, "BadRequestError", "token_id(s) [259] in stop_token_ids contain"),
        ({"prompt_logprobs": 21}, 400, "BadRequestError", "greater than max allowed: 20"),
        ({"logprobs": 21}, 400, "BadRequestError", "greater than max allowed: 20"),
        ({"max_tokens": 0}, 400, "BadRequestError", "max_tokens must be at least 1"),
        ({"prompt": []}, 400, "BadRequestError", "empty"),
        ({"prompt": [5, 999]}, 400, "BadRequestError", "Token id 999 is out of vocabulary"),
        ({"prompt": None}, 400, "BadRequestError", "prompt"),
        ({"temperature": -1}, 400, "BadRequestError", "temperature"),
        ({"n": 2}, 400, "BadRequestError", "does not compute n"),
    ],
)
def test_what_cannot_be_is_refused(serve: Serve, body: dict[str, Any], status: int, kind: str, message: str) -> None:
    server = serve(context_length=64)
    got = refused(post(server, COMPLETIONS, **{"prompt": PROMPT, "max_tokens": 1, **body}))
    assert got[:2] == (status, kind)
    assert message in got[2]


def test_processed_logprobs_are_those_at_the_temperature_that_sampled(serve: Serve) -> None:
    server = serve(processed_logprobs=True)
    body = {"prompt": PROMPT, "max_tokens": 5, "seed": 1, "logprobs": 2, "return_token_ids": True}
    body["return_tokens_as_token_ids"] = True
    cold, hot = (complete(server, **body, temperature=temperature) for temperature in (0.5, 1.0))
    assert hot["logprobs"]["token_logprobs"] == pytest.approx(expected([PROMPT[-1], *hot["token_ids"]]))
    logprobs = CategoricalModel().distribution(PROMPT[-1]) / 0.5
    wanted = logprobs - np.log(np.exp(logprobs).sum())
    assert cold["logprobs"]["token_logprobs"][0] == pytest.approx(wanted[cold["token_ids"][0]])
    assert max(cold["logprobs"]["top_logprobs"][0].values()) == pytest.approx(wanted.max())
