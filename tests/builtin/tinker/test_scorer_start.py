"""Scorer `tinker` when it is opened: what is found out of a server, and what is refused."""

from typing import Any

import numpy as np
import pytest

from builtin.http.serving import RESPONSE, needing, outcomes, score_requests, truth
from builtin.tinker.scorers import Fake, opened, scorer, scores
from distillkit.errors import InputError
from distillkit.records import Score
from distillkit.testing import make_context


@pytest.mark.parametrize(
    ("last_n", "leading", "served"),
    [("served", 1, True), ("served", 0, True), ("ignored", 1, False), ("refused", 1, False), ("wrong", 1, False)],
)
async def test_a_prompt_is_left_out_where_the_server_can_and_gives_the_same_numbers(
    fake: Fake, last_n: str, leading: int, served: bool
) -> None:
    server, plugin = fake(last_n=last_n, leading=leading), scorer()
    async with opened(plugin):
        (outcome,) = await outcomes(plugin, score_requests())
        assert plugin.provenance()["response_only"] is served
    assert isinstance(outcome, Score)
    np.testing.assert_allclose(outcome.logprobs, truth(), rtol=1e-6)
    assert server.asked[-1]["prompt_logprobs_last_n"] == (len(RESPONSE) if served else None)


@pytest.mark.parametrize(
    ("behaviour", "needs", "message"),
    [
        ({"topk": "refused"}, {"topk": 5}, "not give the 5 most probable tokens .*Error code: 400 - not supported"),
        ({"targets": "ignored"}, {"at_ids": 5}, r"not give logprobs of given ids \(target_prompt_logprobs\)"),
        ({"old_sdk": True}, {"at_ids": 5}, "which the Tinker SDK .* cannot ask for; install a newer one"),
    ],
)
async def test_what_is_not_given_is_refused_in_one_sentence_before_anything_is_sampled(
    fake: Fake, behaviour: dict[str, Any], needs: dict[str, int], message: str
) -> None:
    fake(**behaviour)
    with pytest.raises(InputError, match=f"^teacher 'teacher': .*{message}") as error:
        await scores(scorer(), needing(**needs))
    assert "\n" not in str(error.value)


async def test_what_a_server_says_it_does_not_read_is_neither_sent_nor_offered(fake: Fake) -> None:
    server, plugin = fake(reads=frozenset({"prompt_logprobs", "topk_prompt_logprobs"})), scorer()
    assert plugin.capabilities() == {"sampled": None, "topk": 20, "at_ids": None}
    async with opened(plugin):
        assert plugin.capabilities() == {"sampled": None, "topk": 20}
        assert "reads no target_prompt_logprobs" in plugin.way_out("at_ids", 5, 0)
    assert all(asked["prompt_logprobs_last_n"] is None for asked in server.asked)


async def test_what_the_sdk_cannot_ask_for_is_not_offered_once_that_is_known(fake: Fake) -> None:
    fake(old_sdk=True)
    async with opened(plugin := scorer(max_logprobs=None)):
        assert plugin.capabilities() == {"sampled": None, "topk": None}


@pytest.mark.parametrize("leading", [0, 1])
async def test_logprobs_at_other_places_are_found_out_by_changing_the_last_token(fake: Fake, leading: int) -> None:
    fake(shift=1, leading=leading)
    with pytest.raises(InputError, match=r"changes by .* nats with the last token"):
        await scores(scorer())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: None, "no logprobs of the prompt came back"),
        (lambda values: values[2:], "logprobs came back for"),
        (lambda values: [-1.0, *values[1:]], "the first of .* tokens has a logprob"),
        (lambda values: [*values[:-1], None], "the logprob of token .* is missing"),
    ],
)
async def test_a_server_that_cannot_score_is_refused_when_it_is_opened(fake: Fake, change: Any, message: str) -> None:
    def spoil(answer: Any) -> Any:
        answer.prompt_logprobs = change(answer.prompt_logprobs)
        return answer

    fake(spoil=spoil)
    with pytest.raises(InputError, match=f"^teacher 'teacher': the server cannot score given tokens: .*{message}"):
        await scores(scorer())


async def test_a_server_that_does_not_answer_does_not_hold_up_the_start(fake: Fake) -> None:
    fake(errors=["hang"])
    with pytest.raises(InputError, match=r"^teacher 'teacher': asking for the logprobs of a prompt: no response"):
        await scores(scorer(timeouts={"request": 0.05}))


async def test_ids_that_seem_to_mean_something_else_are_told(fake: Fake) -> None:
    fake()  # a table of random numbers: plain text is nothing to it
    said: list[str] = []
    await scores(scorer(), make_context(notify=said.append))
    assert any("either the model is untrained, or ids mean something else" in message for message in said)
