"""Every field of a request to Fireworks: sent with its neutral value, or left out for a reason that is written down."""

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from builtin.fireworks.conftest import TEACHER
from builtin.fireworks.opened_scorers import opened, score
from distillkit.errors import AlignmentError
from distillkit.testing import make_request, make_teacher
from distillkit.types import SamplingParams
from distillkit_builtin.fireworks.scorer import FireworksScorer
from distillkit_builtin.remote.request_fields import FIREWORKS, FIREWORKS_UNSENT

pytest.importorskip("fireworks.training.sdk")
if TYPE_CHECKING:
    from distillkit_loopback.fireworks.service import LoopbackService


async def test_each_field_is_sent_or_has_a_reason(service: "LoopbackService", tiny_model: str) -> None:
    from distillkit_loopback.fireworks.inference import CompletionBody

    plugin = FireworksScorer(base_url=service.base_url)
    plugin.bind(make_teacher(model=TEACHER, tokenizer_model=tiny_model))
    await score(plugin)
    async with opened(plugin):
        for params in (SamplingParams(7), SamplingParams(7, 0.6, 0.9, 40)):
            _ = [outcome async for outcome in plugin.sample([replace(make_request(), params=params)])]
    scoring, plain, told = [r.fields for r in service.requests if "logprobs" in r.fields]  # not the SDK's warm-up
    known = set(CompletionBody.model_fields)
    for sent in (scoring, plain, told):
        assert known - set(sent) - set(FIREWORKS_UNSENT) == set()
        assert set(sent) <= known
    assert {name: plain[name] for name in FIREWORKS} == FIREWORKS
    assert {name: scoring[name] for name in FIREWORKS} == {**FIREWORKS, "temperature": 0.0}
    changed = {"temperature": 0.6, "top_p": 0.9, "top_k": 40}
    assert {name: told[name] for name in FIREWORKS} == {**FIREWORKS, **changed}


async def test_a_limit_of_the_services_own_ends_the_run(service: "LoopbackService", tiny_model: str) -> None:
    from distillkit_loopback.transport.faults import GenerationConfig

    plugin = FireworksScorer(base_url=service.base_url)
    plugin.bind(make_teacher(model=TEACHER, tokenizer_model=tiny_model))
    async with opened(plugin):
        service.faults.add(GenerationConfig({"max_new_tokens": 2}), times=None, where="completions")
        with pytest.raises(AlignmentError, match="2 tokens were sampled before a limit, and max_tokens is 7"):
            _ = [outcome async for outcome in plugin.sample([make_request(max_tokens=7)])]
