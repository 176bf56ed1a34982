"""Options of templates, of the config and of rows: which one counts, and which does nothing."""

from collections.abc import Callable
from typing import Any

import pytest

from builtin.prompt_rows import TOOL, ask, shown
from distillkit import DataError, InputError
from distillkit.preflight.prepared_run import PreparedRun


def test_a_rows_options_lie_over_those_of_the_config_and_an_empty_list_takes_them_away(
    prepared: Callable[..., PreparedRun],
) -> None:
    everyone = {**TOOL, "function": {"name": "for_all", "description": "d"}}
    run = prepared(
        [ask(), ask(tools=[TOOL]), ask(tools=[]), ask(tools=None)],
        sampling={"chat_template_kwargs": {"tools": [everyone]}},
    )
    found = [["for_all" in shown(run, row)[0], "get_weather" in shown(run, row)[1]] for row in range(4)]
    assert found == [[True, False], [False, True], [False, False], [True, False]]


@pytest.mark.parametrize(
    ("over", "message"),
    [
        (
            {"sampling": {"chat_template_kwargs": {"enable_thinkin": True}}},
            r"sampling.chat_template_kwargs: enable_thinkin would do nothing",
        ),
        (
            {"of_teacher": {"chat_template_kwargs": {"style": 1}}},
            r"teachers.0.chat_template_kwargs: style would do nothing",
        ),
        (
            {"sampling": {"chat_template_kwargs": {"tools": ["w"]}}},
            r"sampling.chat_template_kwargs.tools\[0\]: is a JSON string",
        ),
        (
            {"of_teacher": {"chat_template_kwargs": {"tools": {}}}},
            r"teachers.t.chat_template_kwargs.tools: is a JSON object",
        ),
        ({"sampling": {"chat_template_kwargs": {"messages": []}}}, r"chat_template_kwargs: messages would change how"),
    ],
)
def test_an_option_of_the_config_that_does_nothing_is_refused(
    prepared: Callable[..., PreparedRun], over: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        prepared([ask(tools=[TOOL])], **over)
    assert not isinstance(caught.value, DataError)


def test_options_that_do_nothing_for_a_row_or_for_a_teacher_are_said(prepared: Callable[..., PreparedRun]) -> None:
    run = prepared(
        [ask(), ask(chat_template_kwargs={"style": 1})],
        "qwen",
        "chatml",
        sampling={"chat_template_kwargs": {"enable_thinking": False}},
    )
    assert run.notes[1:] == (
        "the chat template of teacher 't' leaves out `chat_template_kwargs.style`, in 1 row (first: line 2)",
        "the chat template of the student leaves out `chat_template_kwargs.style`, in 1 row (first: line 2)",
        "teacher 't' reads the same messages as another prompt than the student does: its chat template, or its "
        "chat_template_kwargs, are others. A part of its gap is about that; look at both prompts",
        "teacher 't': its chat template does not read enable_thinking, which it has of sampling.chat_template_kwargs; "
        "teachers[].chat_template_kwargs gives it options of its own",
    )
