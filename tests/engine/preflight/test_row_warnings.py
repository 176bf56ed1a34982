"""What a user hears of the rows before a run, and what each note says to do."""

import json
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest
from conftest import question

from distillkit import ChatPrompts, EvalContext, EvalResult, Evaluator, Message, PromptBuilder, Registry, RunConfig
from distillkit.errors import PluginError
from distillkit.preflight.prepared_run import prepare_run
from distillkit.types import Route, RoutedRow, Row, Teacher

Make = Callable[..., RunConfig]
Write = Callable[..., str]
TWO = [
    {"model": "t", "route_value": "math", "scorer": "fake"},
    {"model": "t", "route_value": "prose", "scorer": "fake", "teacher_messages_key": "prose_messages"},
]


def notes(config: RunConfig) -> str:
    return "\n".join(prepare_run(config, Registry.discover(), lambda message: None).notes)


def privileged(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_a_run_that_is_as_it_should_be_gets_no_notes(fake_config: Make, jsonl: Write) -> None:
    held_out = jsonl([question(f"held out {i}") for i in range(6)], "heldout.jsonl")
    rows = [question(f"row {i}", teacher_messages=privileged(f"row {i}, answered")) for i in range(4)]
    data = {"path": jsonl(rows), "eval_path": held_out, "max_rows": 4, "max_eval_rows": 6}
    said = notes(fake_config(data=data, train={"max_steps": 2}))
    assert said == "teacher 't': 6 of 6 held-out rows have no teacher_messages; scored under messages"


def test_what_was_set_on_purpose_is_a_note_and_what_is_likely_wrong_a_warning(fake_config: Make, jsonl: Write) -> None:
    rows = [question("one", level=1), question("two", level=3), question("two", level=4)]
    config = fake_config(data={"path": jsonl(rows), "filter": "level > 2"})
    kinds: dict[str, list[str]] = {"note": [], "warning": []}
    for notice in prepare_run(config, Registry.discover(), lambda message: None).notices:
        kinds[notice.kind].append(notice.message)
    for said in ("data.filter keeps 2 of 3 rows", "2 of 2 rows have no teacher_messages; scored under messages"):
        assert any(said in note for note in kinds["note"])
    for said in ("1 row is the same as an earlier row", "no held-out rows"):
        assert any(said in warning for warning in kinds["warning"])
    assert len(kinds["note"]) == 2


def test_rows_that_are_the_same_to_all_who_read_them_are_counted(fake_config: Make, jsonl: Write) -> None:
    rows = [
        question("one", n=1),
        question("two"),
        question("one", n=2),
        question("one", chat_template_kwargs={"enable_thinking": True}),
        question("one", teacher_messages=privileged("one, answered")),
        question("one", n=3),
        question("one", teacher_messages=privileged("one, otherwise")),
        question("two"),
    ]
    path = jsonl(rows)
    said = notes(fake_config(data={"path": path}))
    assert f"3 rows are the same as an earlier row to student and teachers, such as {path}:3 and {path}:1; they" in said
    assert "earlier row" not in notes(fake_config(data={"path": jsonl(rows[:2])}))


def test_rows_of_other_teachers_are_not_the_same(fake_config: Make, jsonl: Write) -> None:
    rows = [question("one", teacher="math"), question("one", teacher="prose", prose_messages=privileged("one"))]
    assert "earlier row" not in notes(fake_config(data={"path": jsonl(rows)}, teachers=TWO))
    assert "1 row is the same as an earlier" in notes(fake_config(data={"path": jsonl([*rows, rows[0]])}, teachers=TWO))


def test_held_out_rows_that_are_trained_on_are_named_with_both_places(fake_config: Make, jsonl: Write) -> None:
    held_out = jsonl(
        [question("new"), question("b", teacher_messages=privileged("otherwise")), question("a")], "heldout.jsonl"
    )
    path = jsonl([question("a"), question("b"), question("c")])
    said = notes(fake_config(data={"path": path, "eval_path": held_out}))
    assert "2 of 3 held-out rows have a prompt that the student is trained on too, such as " in said
    assert f"such as {held_out}:2 and {path}:2:" in said
    assert "earlier row" not in said


def test_a_run_without_held_out_rows_is_told_both_ways_to_have_some(fake_config: Make, jsonl: Write) -> None:
    path = jsonl([question(str(i)) for i in range(50)])
    said = notes(fake_config(data={"path": path}))
    assert "no held-out rows" in said
    assert "data.eval_path" in said
    assert "data.held_out_rows=6" in said  # 5 would be a tenth, and tell nothing
    assert "no held-out rows" not in notes(fake_config(data={"path": path, "held_out_rows": 6}))


def test_held_out_rows_that_cannot_tell_a_change_are_not_recommended_and_warned_of(
    fake_config: Make, jsonl: Write
) -> None:
    few = jsonl([question(str(i)) for i in range(11)])
    assert "held_out_rows" not in notes(fake_config(data={"path": few}))
    assert "data.eval_path (6 a route or more)" in notes(fake_config(data={"path": few}))
    rows = [question(str(i), teacher="math" if i % 2 else "prose", prose_messages=privileged("p")) for i in range(60)]
    path = jsonl(rows, "many.jsonl")
    assert "data.held_out_rows=24" in notes(fake_config(data={"path": path}, teachers=TWO))
    said = notes(fake_config(data={"path": path, "held_out_rows": 5}, evaluators=[{"name": "reverse_kl"}]))
    assert "has 5 held-out rows: fewer than 6 of a route cannot tell a change from chance" in said
    for fine in (
        {"data": {"path": path, "held_out_rows": 6}, "evaluators": [{"name": "reverse_kl"}]},
        {"evaluators": []},
    ):
        assert "from chance" not in notes(fake_config(**{"data": {"path": path, "held_out_rows": 5}, **fine}))


@pytest.mark.parametrize(
    ("data", "train", "expected"),
    [
        (
            {"epochs": 2},
            {"max_steps": 11},
            "train.max_steps=11 is more than the 10 steps that there are: 10 rows, data.epochs=2, "
            "train.prompt_groups_per_step=2; data.epochs=3 is enough for it",
        ),
        ({}, {"max_steps": 5}, ""),
        ({"max_rows": 11}, {}, "data.max_rows=11 is more than the 10 rows that there are"),
        ({"max_rows": 11, "held_out_rows": 2}, {}, "data.max_rows=11 is more than the 10 rows that there are"),
        ({"max_rows": 10, "held_out_rows": 2}, {}, ""),
        (
            {},
            {"prompt_groups_per_step": 16},
            "train.prompt_groups_per_step=16 is more than the 10 rows that there are: a step has 10 rows; "
            "train.prompt_groups_per_step=10 trains each once a step",
        ),
        (
            {"epochs": 2},
            {"prompt_groups_per_step": 16},
            "is more than the 10 rows that there are: a step goes through the rows more than once; train.prompt",
        ),
    ],
)
def test_numbers_that_the_rows_do_not_fill_are_named_with_what_would_do(
    fake_config: Make, data: dict[str, Any], train: dict[str, Any], expected: str
) -> None:
    said = notes(fake_config(data=data, train=train))
    assert expected in said
    assert ("is more than" in said) == bool(expected)


def test_rows_that_a_curriculum_never_comes_to_are_counted(fake_config: Make, jsonl: Write) -> None:
    data = {"path": jsonl([question(str(i), level=i) for i in range(10)]), "sort": "level"}
    assert (
        "data.sort with train.max_steps=3: the first 6 of 10 rows in this order are trained, and the last 4 never; "
        "train.max_steps=5 goes through all"
    ) in notes(fake_config(data=data, train={"max_steps": 3}))
    assert "data.sort with" not in notes(fake_config(data=data, train={"max_steps": 5}))
    assert "data.sort with" not in notes(fake_config(data={**data, "sort": None}, train={"max_steps": 3}))


def test_more_held_out_rows_than_there_are(fake_config: Make, jsonl: Write) -> None:
    held_out = jsonl([question("new"), question("other")], "heldout.jsonl")
    assert "data.max_eval_rows=3 is more than the 2 rows that there are" in notes(
        fake_config(data={"eval_path": held_out, "max_eval_rows": 3})
    )


def test_a_teacher_without_held_out_rows_is_named(fake_config: Make, jsonl: Write) -> None:
    rows = [question("x", teacher="math"), question("y", teacher="prose", prose_messages=privileged("y!"))]
    held_out = jsonl([question("z", teacher="math")], "heldout.jsonl")
    said = notes(fake_config(data={"path": jsonl(rows), "eval_path": held_out}, teachers=TWO))
    assert "teacher 'prose': no held-out row is routed to it" in said
    assert "teacher 'math': no held-out" not in said


def test_a_column_that_looks_privileged_and_is_in_no_prompt_is_named(fake_config: Make, jsonl: Write) -> None:
    rows = [question(f"{i}", solution_messages=privileged(f"the answer is {i}")) for i in range(3)]
    path = jsonl(rows)
    assert (
        f"3 rows have `solution_messages` (first: {path}:1), whose text is in no prompt of student or teacher: if a "
        "teacher is to read it, name it by teachers[].teacher_messages_key (now: t 'teacher_messages')"
    ) in notes(fake_config(data={"path": path}))
    teachers = [{"model": "t", "scorer": "fake", "teacher_messages_key": "solution_messages"}]
    assert "whose text is in no prompt" not in notes(fake_config(data={"path": path}, teachers=teachers))


def test_a_column_for_some_routes_is_not_named(fake_config: Make, jsonl: Write) -> None:
    rows = [
        question(f"{i}", teacher=t, prose_messages=privileged(f"as prose {i}")) for i, t in enumerate(("math", "prose"))
    ]
    assert "whose text" not in notes(fake_config(data={"path": jsonl(rows)}, teachers=TWO))


def test_a_column_that_is_read_in_another_form_is_not_named(fake_config: Make, jsonl: Write) -> None:
    as_text = [question(f"{i}", teacher_messages=json.dumps(privileged(f"as text {i}"))) for i in range(2)]
    assert "whose text" not in notes(fake_config(data={"path": jsonl(as_text)}))
    rows = [question(f"{i}", teacher_prompt=f"as it is {i}") for i in range(2)]
    config = fake_config(data={"path": jsonl(rows), "format": {"teacher_prompt": "{{ teacher_prompt | upper }}"}})
    assert "whose text" not in notes(config)


class Forgetful(PromptBuilder):
    """Gives the teacher the student's messages."""

    name: ClassVar[str] = "forgetful"

    def build(self, row: Row, route: Route, teachers: Sequence[Teacher]) -> ChatPrompts:
        return ChatPrompts(row.messages, {name: (Message("user", "Why?"),) for name in route.teachers})


@pytest.mark.parametrize("value", [privileged("the answer is 42"), "the answer is 42"])
@pytest.mark.parametrize("key", ["teacher_messages", "teacher_prompt"])
def test_a_prompt_builder_that_forgets_the_privileged_text_is_found(
    fake_config: Make, jsonl: Write, key: str, value: Any
) -> None:
    path = jsonl([question("6 * 7", **{key: value})])
    said = notes(fake_config(data={"path": path}, prompts=Forgetful()))
    assert f"1 row has `{key}` (first: {path}:1), whose text is in no prompt" in said


class Doubtful(Evaluator):
    """Says of which rows it knows nothing."""

    name: ClassVar[str] = "doubtful"

    async def evaluate(self, context: EvalContext) -> EvalResult:
        return EvalResult({})

    def notes(self, rows: Sequence[RoutedRow], teachers: Sequence[Teacher]) -> Sequence[str]:
        read = [(row.row.fields["level"], row.route.label, row.chat.student[0].content) for row in rows]
        return [f"{read} of {len(teachers)} teachers"]


def test_an_evaluator_of_ones_own_looks_at_the_held_out_rows(fake_config: Make, jsonl: Write) -> None:
    held_out = jsonl([question("new", level=3)], "heldout.jsonl")
    said = notes(fake_config(data={"eval_path": held_out}, evaluators=[Doubtful()]))
    assert "evaluator 'doubtful': [(3, 't', 'new')] of 1 teachers" in said


@pytest.mark.parametrize("wrong", ["one text", [1]])
def test_notes_that_are_no_texts_are_of_a_broken_evaluator(fake_config: Make, jsonl: Write, wrong: Any) -> None:
    class Wrong(Doubtful):
        """Breaks its contract."""

        def notes(self, rows: Sequence[RoutedRow], teachers: Sequence[Teacher]) -> Any:
            return wrong

    held_out = jsonl([question("new")], "heldout.jsonl")
    with pytest.raises(PluginError, match=r"evaluator 'doubtful' \(.*Wrong\): notes\(\) returned no list of texts"):
        notes(fake_config(data={"eval_path": held_out}, evaluators=[Wrong()]))
