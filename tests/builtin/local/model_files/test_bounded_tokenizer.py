"""Token ids beyond a model's rows: tokens were added to the tokenizer, and the model was not resized."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import question
from transformers import AutoTokenizer

import distillkit
from distillkit import RunConfig
from distillkit.errors import DataError
from distillkit.records import Failure, Score, ScoreRequest
from distillkit.testing import make_context, make_rollout, make_teacher
from distillkit_builtin.local.scorer import LocalScorer

Make = Callable[..., RunConfig]
SCORER = {"name": "local", "dtype": "float32", "device": "cpu"}


@pytest.fixture
def larger(tiny_model: str, tmp_path: Path) -> str:
    """The model with one token more in its tokenizer."""
    folder = tmp_path / "larger"
    shutil.copytree(tiny_model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<tool>"], special_tokens=True)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("who", ["student", "teacher"])
def test_a_prompt_with_such_a_token_is_refused_and_others_are_not(
    local_config: Make, jsonl: Callable[..., str], larger: str, who: str
) -> None:
    teachers = [{"model": larger, "scorer": SCORER}]
    student = {"model": larger} if who == "student" else {}
    fine = distillkit.run(local_config(name="fine", student=student, teachers=teachers, train={"max_steps": 1}))
    assert fine.steps == 1
    told = [{**question("plain")}, {**question("a <tool> call"), "teacher_messages": question("<tool>")["messages"]}]
    path = jsonl(told if who == "student" else [question("plain"), told[1]], "told.jsonl")
    with pytest.raises(DataError, match=r"line 2.*|told.jsonl:2.*") as caught:
        distillkit.run(local_config(student={"model": larger}, teachers=teachers, data={"path": path}))
    assert "the token '<tool>', which is id 259, and" in str(caught.value)
    assert "rows for the ids 0 to 258" in str(caught.value)


def test_a_completion_with_an_id_that_the_teacher_has_no_row_for_is_a_failure(tiny_model: str) -> None:
    scorer = LocalScorer(device="cpu", dtype="float32").bind(make_teacher(model=tiny_model))
    requests = [ScoreRequest(make_rollout(ids), "teacher", [5, 6]) for ids in ([7, 8], [7, 259])]  # type: ignore[arg-type]

    async def scored() -> list[Score | Failure]:
        await scorer.open(make_context("teachers.teacher.scorer"))
        return [outcome async for outcome in scorer.score(requests)]

    failure, score = asyncio.run(scored())
    assert isinstance(score, Score)
    assert isinstance(failure, Failure)
    assert f"the student sampled id 259, and {tiny_model} has 259 rows" in failure.reason
