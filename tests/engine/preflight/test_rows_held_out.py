"""Rows that are held out, and rows that are left out for the length of their prompts."""

from collections.abc import Callable
from typing import Any

import pytest
from conftest import question

from distillkit import Registry, RunConfig
from distillkit.errors import ConfigError, DataError, InputError
from distillkit.preflight.prepared_run import PreparedRun, prepare_run
from distillkit.run_directory.identity import changes, identity_of

Make = Callable[..., RunConfig]
Write = Callable[..., str]
OVERHEAD = 19
"""Tokens that the template of the fakes adds to a question."""


def prepared(config: RunConfig) -> PreparedRun:
    return prepare_run(config, Registry.discover(), lambda message: None)


def contents(found: PreparedRun) -> tuple[list[str], list[str]]:
    """What is trained on, and what is held out."""
    return [row.messages[0].content for row in found.dataset.rows()], [
        row.messages[0].content for row in found.eval_rows
    ]


def test_held_out_rows_are_taken_out_of_the_rows_in_their_order(fake_config: Make, jsonl: Write) -> None:
    texts = [f"row {i:02}" for i in range(40)]
    config = fake_config(data={"path": jsonl([question(text) for text in texts]), "held_out_rows": 10})
    found = prepared(config)
    training, held_out = contents(found)
    assert (len(training), len(held_out)) == (30, 10)
    assert sorted(training + held_out) == texts
    assert (training, held_out) == (sorted(training), sorted(held_out))
    assert held_out != texts[:10]
    assert [evaluator.name for evaluator in config.evaluators] == ["reverse_kl"]
    assert (found.plan.rows, found.plan.eval_rows) == (30, 10)
    assert contents(prepared(config)) == (training, held_out)


def test_which_rows_are_held_out_depends_on_the_seed_and_not_on_the_order(fake_config: Make, jsonl: Write) -> None:
    rows = [question(f"row {i}") for i in range(40)]
    first = fake_config(data={"path": jsonl(rows), "held_out_rows": 10})
    held_out = contents(prepared(first))[1]
    turned = fake_config(data={"path": jsonl(rows[::-1], "turned.jsonl"), "held_out_rows": 10})
    assert contents(prepared(turned))[1] == held_out[::-1]
    more = fake_config(data={"path": jsonl([*rows, question("new")], "more.jsonl"), "held_out_rows": 10})
    assert len(set(contents(prepared(more))[1]) & set(held_out)) >= 9
    assert contents(prepared(fake_config(seed=1, data=first.data)))[1] != held_out


def test_what_is_left_is_trained_in_the_order_of_the_sort(fake_config: Make, jsonl: Write) -> None:
    rows = [question(f"{i:02}{'x' * 60 * (i % 4 == 1)}", level=i * 7 % 30) for i in range(30)]
    data = {"path": jsonl(rows), "held_out_rows": 8, "max_prompt_tokens": 50, "sort": {"by": "level"}}
    found = prepared(fake_config(data=data)).dataset
    levels = [found.row(int(at)).fields["level"] for at in found.order(0, 3, shuffle=True)]
    assert 10 <= len(levels) < 23
    assert levels == sorted(levels)


def test_another_choice_of_held_out_rows_is_another_run(fake_config: Make, jsonl: Write) -> None:
    path = jsonl([question(f"row {i}") for i in range(12)])

    def identity(**data: Any) -> dict[str, Any]:
        return identity_of(prepared(fake_config(data={"path": path, **data})))

    ten = identity(held_out_rows=2)
    assert list(changes(ten, identity(held_out_rows=2))) == []
    assert any("data.held_out_rows was 2, is 3" in change for change in changes(ten, identity(held_out_rows=3)))
    assert "the rows changed" in changes(ten, identity(held_out_rows=3))
    assert "the rows changed" in changes(identity(max_prompt_tokens=24), identity(max_prompt_tokens=25))


def test_too_few_rows_to_hold_some_out(fake_config: Make) -> None:
    with pytest.raises(DataError, match=r"data\.held_out_rows=10 leaves none of 10 rows to train on"):
        prepared(fake_config(data={"held_out_rows": 10}))


@pytest.mark.parametrize("other", [{"eval_path": "x.jsonl"}, {"max_eval_rows": 3}])
def test_held_out_rows_come_from_one_place(fake_config: Make, other: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"data: has `held_out_rows` and `{next(iter(other))}`"):
        fake_config(data={"held_out_rows": 2, **other})


def test_rows_with_a_longer_prompt_are_left_out_counted_and_said(fake_config: Make, jsonl: Write) -> None:
    rows = [question("x" * length) for length in (1, 50, 2, 60, 3)]
    rows[2]["teacher_messages"] = [{"role": "user", "content": "x" * 70}]
    held_out = jsonl([question("y" * 80), question("y")], "heldout.jsonl")
    data = {"path": jsonl(rows), "eval_path": held_out, "max_prompt_tokens": 50 + OVERHEAD}
    found = prepared(fake_config(data=data))
    assert contents(found) == (["x", "x" * 50, "xxx"], ["y"])
    assert (found.plan.rows, found.plan.longest_prompt, found.plan.eval_rows) == (3, 50 + OVERHEAD, 1)
    assert found.pipeline.rows_of == {"t": 3}
    said = "\n".join(found.notes)
    assert "2 of 5 rows are left out: a prompt of theirs, of the student or of a teacher, has more tokens than " in said
    assert f"data.max_prompt_tokens={50 + OVERHEAD} (at most {70 + OVERHEAD})" in said
    assert "1 of 2 held-out rows are left out" in said


def test_a_limit_that_leaves_no_rows(fake_config: Make) -> None:
    with pytest.raises(
        DataError, match=r"data\.max_prompt_tokens=3 leaves out all 10 rows; the shortest has 27 tokens"
    ):
        prepared(fake_config(data={"max_prompt_tokens": 3}))


def test_rows_are_held_out_of_those_whose_prompts_fit(fake_config: Make, jsonl: Write) -> None:
    rows = [question(f"{i:02}" + "x" * (40 * (i % 3 > 0))) for i in range(300)]
    data = {"path": jsonl(rows), "held_out_rows": 60, "max_prompt_tokens": 30}
    found = prepared(fake_config(data=data))
    training, held_out = contents(found)
    assert (len(training), len(held_out)) == (40, 60)
    assert sorted(training + held_out) == sorted(f"{i:02}" for i in range(0, 300, 3))
    assert "200 of 240 rows are left out" in "\n".join(found.notes)
    with pytest.raises(DataError, match=r"data\.held_out_rows=110 is more than the 100 of 300 rows whose prompts"):
        prepared(fake_config(data={**data, "held_out_rows": 110}))


@pytest.mark.parametrize("count", [1, 5, 6, 17])
def test_rows_that_are_the_same_stay_together(fake_config: Make, jsonl: Write, count: int) -> None:
    rows = [question(f"row {i // 3}") for i in range(60)] + [question(f"single {i}") for i in range(4)]
    found = prepared(fake_config(data={"path": jsonl(rows), "held_out_rows": count}))
    training, held_out = contents(found)
    assert len(held_out) == count
    assert not set(training) & set(held_out)
    assert not any("trained on too" in note for note in found.notes)


def test_rows_that_are_the_same_are_parted_where_nothing_else_fills_the_number(fake_config: Make, jsonl: Write) -> None:
    path = jsonl([question(f"row {i // 6}") for i in range(18)])
    training, held_out = contents(prepared(fake_config(data={"path": path, "held_out_rows": 8})))
    assert (len(training), len(held_out)) == (10, 8)
    assert len(set(training) & set(held_out)) == 1


def test_rows_that_are_left_out_are_not_looked_at(fake_config: Make, jsonl: Write) -> None:
    path = jsonl([question("fine"), question("<|bos|>" + "x" * 60), question("x" * 60), question("x" * 60)])
    found = prepared(fake_config(data={"path": path, "max_prompt_tokens": 30}))
    assert not any("special token" in note or "earlier row" in note for note in found.notes)


def test_one_cause_of_prompts_that_are_too_long_is_said_once(fake_config: Make, jsonl: Write) -> None:
    system = {"role": "system", "content": "s" * 50}
    rows = [{"messages": [system, {"role": "user", "content": f"{i} {'x' * i}"}]} for i in range(30)]
    path = jsonl([question("short"), *rows])
    with pytest.raises(DataError) as caught:
        prepared(fake_config(data={"path": path}, student={"name": "fake", "context": 72}))
    lines = str(caught.value).splitlines()
    assert len(lines) == 7
    assert lines[0] == "30 of 31 rows have this problem, such as"
    assert lines[1].startswith(f"{path}:2: messages: ")
    assert lines[4] == (
        f"the longest prompt has 111 tokens ({path}:31, for the student); no sampling.max_completion_tokens leaves "
        "room for it"
    )
    assert lines[5].startswith("the first 66 ")
    assert "tokens that the student reads are the same in all rows that are too long" in lines[5]
    assert lines[6].startswith("data.max_prompt_tokens=60 leaves out rows that have a longer prompt")
    found = prepared(fake_config(data={"path": path, "max_prompt_tokens": 60}, student={"name": "fake", "context": 72}))
    assert contents(found)[0] == ["short"]


def test_what_student_and_teacher_read_alike_is_said_once(fake_config: Make, jsonl: Write) -> None:
    system = {"role": "system", "content": "s" * 50}
    rows = [{"messages": [system, {"role": "user", "content": "x" * i}]} for i in range(1, 9)]
    with pytest.raises(DataError) as caught:
        prepared(
            fake_config(
                data={"path": jsonl(rows)},
                student={"name": "fake", "context": 60},
                teachers=[{"model": "t", "scorer": {"name": "fake", "context": 60}}],
            )
        )
    (cause,) = (line for line in str(caught.value).splitlines() if "are the same" in line)
    assert " tokens that the student and teacher 't' read are the same in all rows that are too long" in cause


def test_rows_that_are_all_too_long_are_not_to_be_left_out(fake_config: Make) -> None:
    with pytest.raises(DataError) as caught:
        prepared(fake_config(student={"name": "fake", "context": 30}))
    assert "sampling.max_completion_tokens=3 leaves room for all" in str(caught.value)
    assert "max_prompt_tokens" not in str(caught.value)


def test_a_few_rows_that_are_too_long_fit_with_shorter_completions(fake_config: Make, jsonl: Write) -> None:
    path = jsonl([question("x"), question("y" * 50), question("z" * 55)])
    config = {"data": {"path": path}, "student": {"name": "fake", "context": 76}}
    with pytest.raises(DataError) as caught:
        prepared(fake_config(**config))
    assert (
        f"{55 + OVERHEAD} tokens ({path}:3, for the student); sampling.max_completion_tokens=2 leaves room for"
        in str(caught.value)
    )
    assert "the same in all rows" not in str(caught.value)
    prepared(fake_config(**config, sampling={"max_completion_tokens": 2}))
    with pytest.raises(DataError):
        prepared(fake_config(**config, sampling={"max_completion_tokens": 3}))


@pytest.mark.parametrize(("student", "teacher", "who"), [(12, 99, "the student"), (99, 12, "teacher 't'")])
def test_completions_that_leave_no_room_are_refused_before_rows_are_blamed(
    fake_config: Make, student: int, teacher: int, who: str
) -> None:
    config = fake_config(
        student={"name": "fake", "context": student},
        teachers=[{"model": "t", "scorer": {"name": "fake", "context": teacher}}],
    )
    with pytest.raises(InputError) as caught:
        prepared(config)
    assert str(caught.value) == (
        "sampling.max_completion_tokens=12 leaves no room for a prompt: both together would be more than the 12 that "
        f"{who} reads; take fewer"
    )
