"""Sampler `vllm` measures, when it opens, whether it samples from the distribution whose logprobs are reported."""

import pytest
from loopback.openai.wire import COMPLETIONS, Serve

from builtin.http.serving import opened
from builtin.vllm.pushes import sampler
from distillkit.errors import AlignmentError, InputError
from distillkit_builtin.http.untouched import ROUNDS, TIMES
from distillkit_loopback.openai import faults
from distillkit_loopback.openai.categorical import CategoricalModel
from distillkit_loopback.transport.faults import GenerationConfig

FLATTER = {"temperature": 1.6}
TOUCHED = [{"top_k": 1}, {"top_k": 20}, {"min_p": 0.1}, {"top_p": 0.5}, {"temperature": 0.6}, FLATTER]


@pytest.mark.parametrize("values", TOUCHED, ids=str)
async def test_what_no_request_can_switch_off_is_found_and_named(serve: Serve, values: dict[str, float]) -> None:
    right, wrong = serve(CategoricalModel()), serve(CategoricalModel())
    wrong.faults.add(GenerationConfig(values, forced=True), times=None, where=is_plain)
    with pytest.raises(InputError) as caught:
        async with opened(sampler(right, wrong)):
            pass
    message = str(caught.value)
    assert message.startswith(f"sampler 'vllm': {wrong.url} samples from another distribution")
    assert ("more seldom" if values == FLATTER else "more often") in message
    assert "--generation-config vllm" in message


def is_plain(request: object) -> bool:
    """Not a request of the check of raw logprobs, which is at other temperatures."""
    fields = getattr(request, "fields", {})
    return fields.get("temperature") == 1.0 and "prompt_logprobs" not in fields


async def test_what_is_filled_in_changes_nothing_since_requests_name_it(serve: Serve) -> None:
    server = serve()
    server.faults.add(GenerationConfig({"top_k": 1, "repetition_penalty": 1.3, "min_p": 0.5}), times=None)
    async with opened(sampler(server)):
        pass


@pytest.mark.parametrize("seed", range(8))
async def test_an_untouched_server_is_let_in_for_one_round(serve: Serve, seed: int) -> None:
    server = serve(CategoricalModel(seed=seed))
    async with opened(sampler(server)):
        pass
    plain = [request for request in server.traffic.requests(COMPLETIONS) if is_plain(request)]
    assert (len(plain) - 1) % (4 * TIMES) == 0
    assert len(plain) - 1 <= 4 * TIMES * ROUNDS


async def test_a_limit_of_the_servers_own_is_found(serve: Serve) -> None:
    server = serve()
    server.faults.add(GenerationConfig({"max_new_tokens": 6}), times=None)
    with pytest.raises(
        AlignmentError, match=r"6 tokens were sampled before a limit, and max_tokens is 16; start vLLM with"
    ):
        async with opened(sampler(server)):
            pass


async def test_a_server_that_fails_meanwhile_is_refused(serve: Serve) -> None:
    server = serve()
    server.faults.add(faults.Status(400), where=is_plain, after=40)
    with pytest.raises(InputError, match="answered 400: injected fault"):
        async with opened(sampler(server)):
            pass
