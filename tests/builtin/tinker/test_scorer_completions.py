"""What a teacher of scorer `tinker` writes itself, for evaluators."""

from dataclasses import replace

import numpy as np
import pytest

from builtin.http.serving import truth
from builtin.tinker.scorers import Fake, opened, scorer
from distillkit.records import Rollout
from distillkit.testing import make_context, make_request

PROBES = 4
"""Completions of a probe that says which logprobs come with them, each scored once."""


@pytest.mark.parametrize("old_sdk", [False, True], ids=["0.38", "0.25"])
@pytest.mark.parametrize(("tempered", "temperature"), [(False, 0.5), (True, 0.5), (True, 1.0)])
async def test_a_teachers_own_completions_carry_its_own_logprobs_at_temperature_1(
    fake: Fake, old_sdk: bool, tempered: bool, temperature: float
) -> None:
    server, said = fake(old_sdk=old_sdk, tempered=tempered), list[str]()
    plugin = scorer()
    async with opened(plugin, run=make_context(notify=said.append)):
        asked = len(server.asked)
        requests = [make_request(max_tokens=5, sample=i, temperature=temperature) for i in range(2)]
        found = [outcome async for outcome in plugin.sample(requests) if isinstance(outcome, Rollout)]
        again = [outcome async for outcome in plugin.sample(requests) if isinstance(outcome, Rollout)]
    assert len(found) == len(again) == 2
    assert any("scored once more each" in message for message in said) is tempered
    assert len(server.asked) - asked == PROBES + (4 if tempered and temperature != 1.0 else 0)
    for rollout in (*found, *again):
        wanted = truth([*rollout.token_ids], [int(rollout.request.prompt_ids[-1])])
        np.testing.assert_allclose(rollout.logprobs, wanted, rtol=1e-5)
    ids = [
        {rollout.key: [*rollout.token_ids] for rollout in each if isinstance(rollout, Rollout)}
        for each in (found, again)
    ]
    assert ids[0] == ids[1]


@pytest.mark.parametrize(("tokens", "probed"), [(0, False), (64, True)])
async def test_how_it_samples_is_found_out_at_the_start_of_a_run_in_which_teachers_write(
    fake: Fake, tokens: int, probed: bool
) -> None:
    said: list[str] = []
    run = make_context(notify=said.append)
    assert run.plan is not None
    fake(tempered=True)
    async with opened(scorer(), run=replace(run, plan=replace(run.plan, eval_teacher_tokens=tokens))):
        assert any("scored once more each" in message for message in said) is probed
