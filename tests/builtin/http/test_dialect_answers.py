"""How each dialect reads answers that the loopback server does not give: ids and logprobs prove each other."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from loopback.openai.wire import Serve

from builtin.http.serving import bodies, needing, opened, outcomes, score_requests, scorer, truth
from distillkit.arrays import token_ids
from distillkit.errors import AlignmentError
from distillkit_builtin.http.dialects.dialect import Dialect, ScoreQuery, TokenLogprobs, UnprovedError, parse_scores
from distillkit_builtin.http.dialects.echo import Echo
from distillkit_builtin.http.dialects.prompt_logprobs import PromptLogprobs
from distillkit_builtin.http.dialects.sglang import SGLang
from distillkit_loopback.openai import faults
from distillkit_loopback.openai.categorical import CategoricalModel
from distillkit_loopback.openai.flavors import Flavor

ASKED = ScoreQuery("m", token_ids([1, 2]), token_ids([3, 4]), 2)


def told(*entries: Any) -> Any:
    """An answer with `prompt_logprobs`: an id, or ids, to logprobs a position."""
    shaped = [entry and {str(i): {"logprob": value} for i, value in entry.items()} for entry in entries]
    return {"choices": [{"prompt_logprobs": [None, {"2": {"logprob": -1.0}}, *shaped]}]}


def test_candidates_are_looked_up_by_id_in_any_order() -> None:
    scored = PromptLogprobs().parse(told({9: -3.0, 3: -1.0}, {8: -1.0, 4: -5.0, 9: -2.0}), ASKED)
    assert scored.logprobs.tolist() == [-1.0, -5.0]
    assert scored.topk_ids is not None
    assert scored.topk_ids.tolist() == [[3, 9], [8, 9]]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        # 4 is among the two likeliest; the third entry is there because another token was scored.
        (({3: -1.0, 9: -2.0}, {4: -1.0, 8: -2.0, 7: -5.0}), "token 1: the server scored id 7, not the sampled 4"),
        (({3: -1.0, 9: -2.0}, {7: -1.0, 8: -2.0}), "token 1: the server scored id 7 or 8, not the sampled 4"),
        (({3: -1.0, 9: -2.0}, {4: -1.0}), "1 top-k tokens at token 1 where 2 were expected"),
        (({3: -1.0, 9: math.nan}, {4: -1.0, 8: -2.0}), "one of the top-k tokens at token 0 is nan"),
        (({3: -1.0, 9: -9999.0}, {4: -1.0, 8: -2.0}), "one of the top-k tokens at token 0 is -9999"),
        (({3: -1.0, 9: -2.0}, {4: None, 8: -2.0}), r"1.4.logprob: Input should be a valid number"),
        (({3: -1.0, 9: -2.0}, {}), "the server scored id nothing"),
        (({3: -1.0, 9: -2.0}, None), "valid dictionary"),
    ],
)
def test_entries_that_do_not_fit_are_refused(entries: Any, message: str) -> None:
    with pytest.raises(AlignmentError, match=message):
        PromptLogprobs().parse(told(*entries), ASKED)


def test_scores_behind_another_prompt_are_refused() -> None:
    """As of an answer to another request with the same response, which an end of turn alone often is."""
    other = ScoreQuery("m", token_ids([1, 7]), token_ids([3, 4]))
    with pytest.raises(AlignmentError, match="the server read id 2 as prompt token 1, 7 was sent"):
        PromptLogprobs().parse(told({3: -1.0}, {4: -1.0}), other)
    by_id = echoed([f"token_id:{index}" for index in (1, 2, 3, 4)])
    for answer in (by_id, echoed(["a", "b", "c", "d"], prompt_token_ids=[1, 2, 3, 4])):
        with pytest.raises(AlignmentError, match="the server read id 2 as prompt token 1, 7 was sent"):
            Echo().parse(answer, other)
    cut: Any = {"meta_info": {"prompt_tokens": 4, "input_token_logprobs": [[-1.0, 3, None], [-2.0, 4, None]]}}
    assert SGLang().parse(cut, other).ids.tolist() == [3, 4]  # it does not say which ids it read
    with pytest.raises(AlignmentError, match="the server read 4 prompt tokens, 5 were sent"):
        SGLang().parse(cut, replace(other, prompt_ids=token_ids([1, 2, 7])))


def test_scores_by_another_model_are_refused() -> None:
    """As of a gateway that falls back to one; another name of the same model is the same model."""
    echo = echoed([f"token_id:{index}" for index in (1, 2, 3, 4)])
    question = ScoreQuery("m", token_ids([1, 2]), token_ids([3, 4]))
    dialects: list[tuple[Dialect, Any]] = [(PromptLogprobs(), told({3: -1.0}, {4: -1.0})), (Echo(), echo)]
    for dialect, answer in dialects:
        for named in ("m", None):
            assert dialect.parse(answer | {"model": named}, question).ids.tolist() == [3, 4]
        with pytest.raises(AlignmentError, match="the response is of model 'other', not of 'm'"):
            dialect.parse(answer | {"model": "other"}, question)
        assert dialect.parse(answer | {"model": "other"}, replace(question, aliases=frozenset({"other"})))


@pytest.mark.parametrize(
    "answer", [None, [], {}, {"choices": []}, {"choices": [{}, {}]}, {"choices": [{"prompt_logprobs": "x"}]}]
)
@pytest.mark.parametrize("dialect", [PromptLogprobs(), Echo(), SGLang()], ids=repr)
def test_responses_of_another_shape_are_refused(dialect: Dialect, answer: Any) -> None:
    with pytest.raises(AlignmentError, match=r"^this: "):
        parse_scores(dialect, answer, ASKED, "this")


def test_minus_infinity_is_refused_however_it_is_written() -> None:
    for value in (-9999.0, -10000.0, -math.inf):
        with pytest.raises(AlignmentError, match="token 1 is minus infinity"):
            TokenLogprobs.of([1, 2], [-1.0, value], None)
    assert TokenLogprobs.of([1], [-9998.0], None).logprobs.tolist() == [-9998.0]


def echoed(tokens: list[str], **more: Any) -> Any:
    return {"choices": [{"logprobs": {"tokens": tokens, "token_logprobs": [None, -1.0, -2.0, -3.0]}, **more}]}


def test_an_echo_proves_its_ids_beside_the_logprobs_or_else_in_a_list() -> None:
    question = ScoreQuery("m", token_ids([1, 2]), token_ids([3, 4]))
    by_id = [f"token_id:{index}" for index in (1, 2, 4, 3)]
    assert Echo().parse(echoed(by_id, prompt_token_ids=[1, 2, 3, 4]), question).ids.tolist() == [4, 3]
    texts = ["a", "b", "c", "d"]
    assert Echo().parse(echoed(texts, prompt_token_ids=[1, 2, 3, 4]), question).ids.tolist() == [3, 4]
    with pytest.raises(UnprovedError, match="--return-tokens-as-token-ids"):
        Echo().parse(echoed(texts), question)
    with pytest.raises(AlignmentError, match="3 token ids where 4"):
        Echo().parse(echoed(texts, prompt_token_ids=[1, 2, 3]), question)


def test_sglang_may_leave_out_the_entry_before_the_response() -> None:
    question = ScoreQuery("m", token_ids([1, 2]), token_ids([3, 4]))
    triples = [[-1.0, 3, None], [-2.0, 4, None]]
    for first in ([], [[None, 2, None]]):
        scored = SGLang().parse({"meta_info": {"input_token_logprobs": [*first, *triples]}}, question)
        assert (scored.ids.tolist(), scored.logprobs.tolist()) == ([3, 4], [-1.0, -2.0])
    with pytest.raises(UnprovedError):
        SGLang().parse({"meta_info": {}}, question)


@pytest.mark.parametrize("topk", [0, 3])
async def test_the_vocabularys_last_id_which_sglang_names_0_is_asked_for_by_itself(serve: Serve, topk: int) -> None:
    server = serve(flavor=Flavor("sglang"))
    last = CategoricalModel().vocabulary - 1
    async with opened(scorer(server, dialect="sglang"), needing(topk=topk)) as plugin:
        asked = len(bodies(server, "/generate"))
        for ids in ([80, last, 0, last, 84], [last], [0], [80, 258, 84]):
            (score,) = await outcomes(plugin, score_requests(ids=ids, topk=topk))
            assert score.ids_proved
            np.testing.assert_array_equal(score.logprobs, truth(ids))
        named = [body["token_ids_logprob"] for body in bodies(server, "/generate")[asked:]]
    assert named == [None, [last], None, [last], None, None, [last]]


async def test_an_id_that_is_named_0_and_is_not_the_last_is_refused(serve: Serve) -> None:
    server = serve(flavor=Flavor("sglang"))
    async with opened(scorer(server, dialect="sglang")) as plugin:
        server.faults.add(faults.WrongId(at=-2), times=None, where="/generate")  # 258 instead of 257, which is named 0
        with pytest.raises(AlignmentError, match="token 0 is id 0, not the sampled 257"):
            await outcomes(plugin, score_requests(ids=[257, 258]))


def test_the_logprob_of_an_id_that_sglang_does_not_name_is_its_own() -> None:
    question = ScoreQuery("m", token_ids([1, 2]), token_ids([9, 4]), named=9)
    assert SGLang().payload(question)["token_ids_logprob"] == [9]
    scores = [[None, 2, None], [-1.0, 0, None], [-2.0, 4, None]]

    def meta(*given: Any) -> Any:
        return {"meta_info": {"input_token_logprobs": scores, "input_token_ids_logprobs": [None, *given]}}

    scored = SGLang().parse(meta([[-3.0, 9, None]], [[-4.0, 9, None]]), question)
    assert (scored.ids.tolist(), scored.logprobs.tolist()) == ([9, 4], [-3.0, -2.0])
    for given in ([[[-3.0, 0, None]], []], [None, []]):
        with pytest.raises(AlignmentError, match="no logprob of id 9 for token 0"):
            SGLang().parse(meta(*given), question)
    with pytest.raises(AlignmentError, match="1 input_token_ids_logprobs for 2"):
        SGLang().parse(meta(), question)
