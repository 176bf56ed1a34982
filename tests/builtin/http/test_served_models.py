"""What `check` finds out of a server: what it serves, under which names, and what is in the way."""

from typing import Any

import numpy as np
import pytest
from loopback.openai.wire import GENERATE, Serve

from builtin.http.checks import checked
from builtin.http.serving import bodies, opened, outcomes, score_requests, scorer, truth
from distillkit.errors import AlignmentError, InputError
from distillkit.testing import make_request
from distillkit_loopback.openai import faults
from distillkit_loopback.openai.categorical import CategoricalModel
from distillkit_loopback.openai.flavors import Flavor


def test_check_says_what_is_served_where(serve: Serve) -> None:
    one, other = serve(name="smol"), serve(name="smol")
    assert checked(scorer(one, model="smol")) == (f"teacher 'teacher': smol at {one.url}",)
    assert checked(scorer(one, other, model="smol")) == (f"teacher 'teacher': smol at {one.url} and 1 more",)
    assert one.traffic.counts == {"/v1/models": 2}


def test_a_model_that_is_not_served_is_refused_with_a_suggestion(serve: Serve) -> None:
    server = serve(name="Qwen3-0.6B")
    with pytest.raises(InputError, match=r"serves no model 'qwen3-0.6B'; did you mean 'Qwen3-0.6B'\? Known: Qwen3"):
        checked(scorer(server, model="qwen3-0.6B"))


def test_sglangs_own_endpoint_takes_no_model_name(serve: Serve) -> None:
    assert "loopback at" in checked(scorer(serve(flavor=Flavor("sglang")), model="org/any", dialect="sglang"))[0]


def with_adapter(serve: Serve, **options: Any) -> Any:
    """An SGLang with a base model and an adapter `mine`."""
    server = serve(name="base", flavor=Flavor("sglang"), **options)
    server.catalogue._adapters["mine"] = ("/x", CategoricalModel(seed=5))
    server.catalogue._once_loaded["mine"] = "/x"
    return server


@pytest.mark.parametrize(("model", "seed"), [("base", 0), ("mine", 5)])
async def test_a_teacher_that_is_an_adapter_on_sglang_is_asked_for_by_its_name(
    serve: Serve, model: str, seed: int
) -> None:
    """Its endpoint knows no model name, and would score the base model without a word."""
    server = with_adapter(serve)
    async with opened(scorer(server, model=model, dialect="sglang")) as plugin:
        (score,) = await outcomes(plugin, score_requests())
        (rollout,) = [one async for one in plugin.sample([make_request(max_tokens=4)])]
    expected = CategoricalModel(seed=seed)
    np.testing.assert_array_equal(score.logprobs, truth(model=expected))
    prompt = rollout.request.prompt_ids.tolist()
    np.testing.assert_array_equal(rollout.logprobs, truth(rollout.token_ids.tolist(), prompt, expected))
    assert {body["lora_path"] for body in bodies(server, GENERATE)} == {None if model == "base" else "mine"}


def test_an_adapter_on_sglang_is_not_asked_for_at_an_endpoint_that_takes_any_name(serve: Serve) -> None:
    server = with_adapter(serve)
    with pytest.raises(InputError, match=r"mine is an adapter at .* under any name; set dialect: sglang"):
        checked(scorer(server, model="mine", dialect="echo"))
    assert checked(scorer(server, model="base", dialect="echo")) == (f"teacher 'teacher': base at {server.url}",)


async def test_a_base_model_may_answer_under_its_other_names(serve: Serve) -> None:
    """VLLM answers under the first of `--served-model-name`, whichever it is asked for."""
    server = serve(name="short")
    names = [{"id": "long", "root": "/m"}, {"id": "short", "root": "/m"}, {"id": "x", "root": "/x"}]
    adapter = {"id": "lora", "root": "/m", "parent": "long"}
    server.faults.add(faults.Status(200, body={"data": [*names, adapter]}), where="/v1/models")
    async with opened(scorer(server, model="short")) as plugin:
        (score,) = await outcomes(plugin, score_requests())
        assert plugin._live.aliases == {"long"}
        server.faults.add(faults.Status(200, body={"model": "x", "choices": []}), where="/v1/completions")
        with pytest.raises(AlignmentError, match="the response is of model 'x', not of 'short'"):
            await outcomes(plugin, score_requests())
    np.testing.assert_array_equal(score.logprobs, truth())


@pytest.mark.parametrize("body", [{"data": [{"name": "x"}]}, ["x"], {"detail": "welcome"}])
def test_what_lists_no_models_is_no_such_server(serve: Serve, body: Any) -> None:
    server = serve()
    server.faults.add(faults.Status(200, body=body))
    with pytest.raises(InputError, match="gives no list of models; is base_url that of an OpenAI-compatible server"):
        checked(scorer(server))


def test_a_server_that_is_down_is_said_in_check(serve: Serve) -> None:
    server = serve()
    server.stop()
    with pytest.raises(InputError, match=rf"{server.url}/v1/models: .*refused; is the service up, and base_url"):
        checked(scorer(server))


def test_whatever_is_wrong_in_check_is_said_of_a_teacher(serve: Serve) -> None:
    """A config may have many, on servers that look alike."""
    down, up = serve(), serve()
    down.stop()
    for plugin in (scorer(down), scorer(up, model="x"), scorer(up, api_key_env="NOT_SET")):
        with pytest.raises(InputError, match=r"^teacher 'teacher': "):
            checked(plugin)


@pytest.mark.parametrize("path", ["/v2", "/v1/completions"])
def test_an_address_that_is_not_the_base_says_how_far_it_goes(serve: Serve, path: str) -> None:
    server = serve()
    with pytest.raises(InputError, match=r"404: Not Found; is base_url the address .*, as far as /v1\?"):
        checked(scorer(server, base_url=server.url + path))
