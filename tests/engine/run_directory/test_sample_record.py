"""What a line of `samples.jsonl` says of a completion."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from distillkit import Datum, Score, ScoredRollout
from distillkit.run_directory.sample_record import sample_record, token_texts
from distillkit.testing import ByteTokenizer, make_rollout, make_scored

TOKENIZER = ByteTokenizer()


class WordTokenizer(ByteTokenizer):
    """As SentencePiece: the space before the first word of what is decoded is taken away."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words

    def show(self, ids: Sequence[int]) -> str:
        return "".join(self.words[index] for index in ids).removeprefix(" ")


@pytest.mark.parametrize("text", ["plain", "naïve café — 你好 🦊!", "🦊", "a\u202eb\x00\r\n\t", "العربية", "e\u0301"])
def test_texts_of_tokens_join_to_the_completion(text: str) -> None:
    ids = TOKENIZER.encode(text)
    texts = token_texts(TOKENIZER, ids)
    assert "".join(texts) == text
    assert len(texts) == len(ids)


def test_a_divided_character_stands_at_its_last_token() -> None:
    assert token_texts(TOKENIZER, TOKENIZER.encode("né🦊")) == ["n", "", "é", "", "", "", "🦊"]


@pytest.mark.parametrize("data", [b"\xe2\x82A", b"\xf0\x9f", b"\xff\xff\xff\xff\xff\xff", b"a\x80\x80\x80\x80\x80\xc3"])
def test_bytes_that_are_no_text_keep_their_places(data: bytes) -> None:
    texts = token_texts(TOKENIZER, list(data))
    assert len(texts) == len(data)
    assert "".join(texts) == data.decode(errors="replace")


def test_spaces_that_a_tokenizer_takes_away_at_the_start_are_there() -> None:
    assert token_texts(WordTokenizer([" The", " end", "."]), [0, 1, 2, 1]) == ["The", " end", ".", " end"]


def _scored(arrays: Mapping[str, np.ndarray] | None = None) -> ScoredRollout:
    return make_scored(make_rollout([72, 105, 257], [-1.0, -2.0, -0.5]), [-0.5, -4.0, -0.25], arrays=arrays)


def test_what_a_run_does_not_have_is_left_out() -> None:
    record = sample_record(_scored(), TOKENIZER, 5)
    assert record["tokens"] == ["H", "i", "<|im_end|>"]
    assert record["special"] == [2]
    optional = {"mask", "mixture", "advantages", "weights", "entropy", "student_topk", "teacher_topk", "teacher_ranks"}
    assert not optional & record.keys()


def test_what_is_trained_on_is_there() -> None:
    scored = _scored()
    inputs = {"advantages": np.array([0.5, -2, 0.25], np.float32), "weights": np.array([1 / 3] * 3, np.float32)}
    record = sample_record(scored, TOKENIZER, 5, Datum.of(scored.rollout, inputs))
    assert record["advantages"] == [0.5, -2.0, 0.25]
    assert record["weights"] == [0.3333] * 3


def test_masked_tokens_are_marked() -> None:
    rollout = make_rollout([72, 105, 33], mask=[True, False, True])
    record = sample_record(make_scored(rollout, [-1, np.nan, -1]), TOKENIZER, 5)
    assert record["mask"] == [1, 0, 1]
    assert record["student_logprobs"] == [-1.0, None, -1.0]


def test_the_most_probable_tokens_and_the_rank_of_the_sampled_one() -> None:
    ids = np.array([[65, 72, -1], [66, 67, 68], [257, 65, 66]])
    logprobs = np.log(np.array([[0.6, 0.4, 1e-9], [0.5, 0.3, 0.2], [0.9, 0.05, 0.05]]))
    record = sample_record(_scored({"topk_ids": ids, "topk_logprobs": logprobs}), TOKENIZER, 5)
    assert record["teacher_ranks"] == {"teacher": [2, None, 1]}
    table = record["teacher_topk"]["teacher"]
    assert table["tokens"] == [["A", "H"], ["B", "C", "D"], ["<|im_end|>", "A", "B"]]
    assert table["logprobs"] == [[-0.511, -0.916], [-0.693, -1.204, -1.609], [-0.105, -2.996, -2.996]]


@pytest.mark.parametrize("topk", [0, 1, 5])
def test_of_many_probable_tokens_as_many_are_kept_as_asked_and_the_rank_is_that_among_all(topk: int) -> None:
    arrays = {"topk_ids": np.tile(np.arange(60, 80), (3, 1)), "topk_logprobs": np.tile(np.linspace(-3, -4, 20), (3, 1))}
    record = sample_record(_scored(arrays), TOKENIZER, topk)
    assert record["teacher_ranks"] == {"teacher": [13, None, None]}
    shown = record["teacher_topk"]["teacher"]["tokens"] if topk else [[]] * 3
    assert [len(row) for row in shown] == [topk] * 3
    assert ("teacher_topk" in record) == (topk > 0)


def test_what_is_too_improbable_to_stand_there_is_left_out_but_never_the_first() -> None:
    ids = np.array([[65, 66, 67], [65, 66, 67], [65, 66, 67]])
    logprobs = np.log(np.array([[0.9989, 0.001001, 0.0009], [0.0009, 0.0008, 0.0007], [0.5, 0.3, 0.2]]))
    table = sample_record(_scored({"topk_ids": ids, "topk_logprobs": logprobs}), TOKENIZER, 5)["teacher_topk"]
    assert [*map(len, table["teacher"]["tokens"])] == [2, 1, 3] == [*map(len, table["teacher"]["logprobs"])]


def test_several_teachers_have_their_shares() -> None:
    one = _scored()
    (score,) = one.scores.values()
    request = replace(score.request, teacher="b")
    route = replace(one.prompts.route, weights={"teacher": 3.0, "b": 1.0})
    prompts = replace(one.prompts, route=route, teachers={"teacher": [1], "b": [1]})
    both: dict[str, Score] = {"teacher": score, "b": replace(score, request=request)}
    assert sample_record(ScoredRollout(one.rollout, prompts, both), TOKENIZER, 5)["mixture"] == {
        "teacher": 0.75,
        "b": 0.25,
    }
