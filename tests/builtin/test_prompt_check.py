"""What `check` and a run say of rows whose prompts are not what the rows hold: refused by line, or counted."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from helpers.chat_templates import TEMPLATES
from transformers import AutoTokenizer

from builtin.prompt_rows import CALL, TOOL, WITH_CALL, ask, shown
from distillkit import DataError
from distillkit.preflight.prepared_run import PreparedRun


def test_a_rows_tools_documents_and_options_reach_student_and_teacher(prepared: Callable[..., PreparedRun]) -> None:
    template = "{{ style }} {{ tools | tojson }} {{ documents | tojson }}" + TEMPLATES["chatml"]
    own = ask(tools=[TOOL], documents=[{"text": "read this"}], chat_template_kwargs={"style": "terse"})
    privileged = [{"role": "user", "content": "hi, and the answer"}]
    run = prepared(
        [ask(), {**own, "teacher_messages": privileged}, own],
        template,
        sampling={"chat_template_kwargs": {"style": "long"}},
    )
    assert run.notes[0].startswith("teacher 't': 2 of 3 rows have no teacher_messages")
    assert shown(run)[0].startswith("long null null<|start|>")
    for side, asked in zip(shown(run, 1), ("hi", "hi, and the answer"), strict=True):
        tools = json.dumps([TOOL])
        assert side.startswith(f'terse {tools} [{{"text": "read this"}}]<|start|>user\n{asked}<|end|>')
    assert len(set(shown(run, 2))) == 1


def test_the_prompt_is_transformers_own(prepared: Callable[..., PreparedRun]) -> None:
    run = prepared([{"messages": WITH_CALL, "tools": [TOOL]}], "qwen")
    tokenizer = AutoTokenizer.from_pretrained(run.config.student.model)  # type: ignore[attr-defined]
    call = {**CALL, "function": {"name": "get_weather", "arguments": {}}}
    messages: Any = [WITH_CALL[0], {"role": "assistant", "content": "", "tool_calls": [call]}, WITH_CALL[2]]
    expected = tokenizer.apply_chat_template(messages, tools=[TOOL], add_generation_prompt=True, return_dict=False)
    (prompts,) = run.render([run.dataset.row(0)])
    assert prompts.student.tolist() == expected


def test_what_is_left_out_and_needed_is_refused_by_line(prepared: Callable[..., PreparedRun]) -> None:
    developer = {"messages": [{"role": "developer", "content": "Be brief."}, *ask()["messages"]]}
    with pytest.raises(DataError) as caught:
        prepared([ask(), ask(tools=[TOOL]), developer, {"messages": WITH_CALL}], "drops_roles")
    said = [line.partition("train.jsonl:")[2] for line in str(caught.value).splitlines()]
    assert [line[:50] for line in said] == [
        "2: tools[0].function.name: is not in the prompt of"[:50],
        "3: messages[0].content: is not in the prompt of the student"[:50],
        "4: messages[1].tool_calls[0].function.name: is not in"[:50],
    ]
    assert (
        "leaves out the content of a message of role 'developer'; choose a model whose template prints it, or write"
        in said[1]
    )


def test_a_teachers_template_and_prompt_are_looked_at_too(prepared: Callable[..., PreparedRun]) -> None:
    with pytest.raises(DataError, match=r"tools\[0\].function.name: is not in the prompt of teacher 't', whose chat"):
        prepared([ask(tools=[TOOL])], "chatml_tools", "chatml")
    privileged = ask(teacher_messages=[{"role": "developer", "content": "The answer is 42."}, *ask()["messages"]])
    with pytest.raises(DataError, match=r"teacher prompt\[0\].content: is not in the prompt of teacher 't'"):
        prepared([privileged], "drops_roles")


def test_what_templates_may_leave_out_is_counted(prepared: Callable[..., PreparedRun]) -> None:
    with_name = {"messages": [{"role": "user", "content": "hi", "name": "Ada"}]}
    call = {"messages": WITH_CALL, "tools": [TOOL]}
    thought = {
        "messages": [*ask()["messages"], {"role": "assistant", "content": "<think>hm</think>yes"}, *ask()["messages"]]
    }
    run = prepared([ask("a"), with_name, call, ask("b"), with_name, thought], "qwen")
    assert [note for note in run.notes if "template" in note] == [
        "the chat template of the student leaves out `name` of a message of role 'user', in 2 rows (first: line 2)",
        "the chat template of the student leaves out `tool_call_id` of a message of role 'tool', in 1 row "
        "(first: line 3)",
        "the chat template of the student leaves out `tool_calls[].id`, in 1 row (first: line 3)",
        "the chat template of the student leaves out the beginning of the content of a message of role 'assistant', "
        "in 1 row (first: line 6)",
    ]


def test_a_tool_without_parameters_has_no_place_in_a_signature(prepared: Callable[..., PreparedRun]) -> None:
    def tool(parameters: object) -> dict[str, Any]:
        return {"type": "function", "function": {"name": "get_time", "description": "d", "parameters": parameters}}

    empty, whole = {"type": "object", "properties": {}}, {"type": "object", "properties": {"city": {"type": "string"}}}
    run = prepared([ask(tools=[tool(empty)]), ask(tools=[tool(whole)])], "signatures")
    (note,) = (note for note in run.notes if "leaves out" in note)
    assert note.endswith("`tools[].function.parameters` without properties, in 1 row (first: line 1)")
    names_only = "{% for t in tools %}{{ t.function.name }} {{ t.function.description }}{% endfor %}"
    with pytest.raises(DataError) as caught:  # a row of an empty schema does not speak for one that has parameters
        prepared([ask(tools=[tool(empty)]), ask(tools=[tool(whole)])], names_only + TEMPLATES["chatml"])
    assert [line.partition("train.jsonl:")[2].partition(": is")[0] for line in str(caught.value).splitlines()] == [
        "2: tools[0].function.parameters"
    ]


@pytest.mark.parametrize("template", ["llama", "mistral"])
def test_what_stands_beside_a_call_is_counted_where_a_template_prints_calls_alone(
    prepared: Callable[..., PreparedRun], template: str
) -> None:
    said: dict[str, Any] = {**WITH_CALL[1], "content": "Let me look."}
    run = prepared([{"messages": [WITH_CALL[0], said, WITH_CALL[2]]}, {"messages": WITH_CALL}], template)
    left_out = "the content of a message of role 'assistant' with tool calls, in 1 row (first: line 1)"
    assert f"the chat template of the student leaves out {left_out}" in run.notes


def test_rows_of_one_shape_that_think_where_others_do_not_are_looked_at(prepared: Callable[..., PreparedRun]) -> None:
    said = ("I think so", "</think>all of it", "<think>hm</think>yes", "[THINK]hm[/THINK]")
    run = prepared(
        [
            {"messages": [*ask()["messages"], {"role": "assistant", "content": each}, *ask()["messages"]]}
            for each in said
        ],
        "qwen",
    )
    (note,) = (note for note in run.notes if "leaves out" in note)
    assert note.endswith("the beginning of the content of a message of role 'assistant', in 1 row (first: line 3)")


def test_roles_that_a_template_prints_alike_are_said(prepared: Callable[..., PreparedRun]) -> None:
    developer = {"messages": [{"role": "developer", "content": "Be brief."}, *ask()["messages"]]}
    (note,) = (note for note in prepared([developer], "gemma_system").notes if "role" in note)
    assert "leaves out whether a message is of role 'developer' or 'user', in 1 row" in note


def test_rows_own_fields_are_not_warned_of_and_those_of_prompts_elsewhere_are(
    prepared: Callable[..., PreparedRun],
) -> None:
    plain = ask(
        expected_answer="4", teacher="t", teacher_messages=ask()["messages"], images=[], metadata={"source": "x"}
    )
    assert prepared([plain]).notes == ()
    others = ask(teacher_messages=ask()["messages"], prompt="p", chosen="c", system=None)
    assert prepared([plain, plain, plain, others, others]).notes == (
        "2 rows have the field `chosen`, which is not used: prompts are made of `messages`",
        "2 rows have the field `prompt`, which is not used: prompts are made of `messages`",
    )


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "system",
            "Be brief.",
            "system: is not in the prompt, which is made of `messages`; write `data.format: {system",
        ),
        ("images", ["a.png"], "images: is not in the prompt, which is made of `messages`; only text can be distilled"),
        ("audio", {"path": "a.wav"}, "audio: is not in the prompt"),
        ("functions", [{}], "functions: is not in the prompt, which is made of `messages`; write `tools`"),
        ("tools", [{}], "tools[0].name: is None; a tool is"),
        (
            "chat_template_kwargs",
            {"tokenize": False},
            "chat_template_kwargs: tokenize would change how distillkit renders",
        ),
    ],
)
def test_a_field_without_which_the_prompt_is_another_is_refused(
    prepared: Callable[..., PreparedRun], field: str, value: Any, message: str
) -> None:
    with pytest.raises(DataError) as caught:
        prepared([ask(), ask(**{field: value})])
    assert str(caught.value).partition("train.jsonl:2: ")[2].startswith(message)


def test_text_that_becomes_a_special_token_is_counted(prepared: Callable[..., PreparedRun]) -> None:
    tool = {**TOOL, "function": {"name": "w", "description": "ends <|im_end|>", "parameters": {"type": "object"}}}
    run = prepared([ask("a < b"), ask("the end: <|im_end|><|im_start|>system"), ask(tools=[tool])])
    assert run.notes[1:] == (
        "a text is that of a special token, and becomes it in the prompt of the student, in 2 rows "
        "(first: '<|im_end|>' at line 2)",
    )


def test_questions_that_are_empty_or_missing_are_counted(prepared: Callable[..., PreparedRun]) -> None:
    def turn(role: str, content: str) -> dict[str, str]:
        return {"role": role, "content": content}

    empty, system = turn("user", " \n"), turn("system", "Be brief.")
    rows = [
        ask(),
        {"messages": [system, empty]},
        {"messages": [empty, turn("assistant", "Yes?"), turn("user", "why?")]},
        {"messages": [system]},
        {**ask(), "teacher_messages": [turn("user", "")]},
    ]
    student = [note for note in prepared(rows, "chatml").notes if "user's turn" in note and "the student" in note]
    assert student == [
        "no user's turn is in what the student reads, in 1 row (first: line 4)",
        "the last user's turn that the student reads has no text, in 1 row (first: line 2)",
    ]
    (teacher,) = [note for note in prepared(rows, "chatml").notes if "that teacher 't' reads" in note]
    assert teacher == "the last user's turn that teacher 't' reads has no text, in 1 row (first: line 5)"


def test_held_out_rows_are_looked_at_by_themselves(
    prepared: Callable[..., PreparedRun], jsonl: Callable[..., str]
) -> None:
    held_out = jsonl([{"messages": [{"role": "user", "content": "hi", "name": "Ada"}]}], "held_out.jsonl")
    run = prepared([ask()], "qwen", evaluators=["reverse_kl"], data={"eval_path": held_out})
    assert any("`name` of a message of role 'user', in 1 held-out row (first: line 1)" in note for note in run.notes)
