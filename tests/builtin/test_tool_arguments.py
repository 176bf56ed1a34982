"""Arguments of tool calls are JSON in every prompt: never in quotes twice, never in Python's notation."""

import json
from typing import Any

import pytest
from helpers.chat_templates import CHATML, TEMPLATES, tokenizer_with
from helpers.rows import row_of

from distillkit.errors import RowError

PRINTED = '{"city": "São \\"Paulo\\"", "at": null, "on": true}'
ARGUMENTS = json.loads(PRINTED)


def prompt(template: str, *arguments: Any) -> str | RowError:
    """The prompt of a row with a call for each of `arguments`, with ids as they need be."""
    calls = [
        {"id": f"abcdefgh{at}", "type": "function", "function": {"name": "w", "arguments": each}}
        for at, each in enumerate(arguments)
    ]
    answers = [{"role": "tool", "content": "sun", "tool_call_id": call["id"]} for call in calls]
    row = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "tool_calls": calls}, *answers]}
    tokenizer = tokenizer_with(template)
    (ids,) = tokenizer.render_many([row_of(json.dumps(row).encode()).messages], {})
    return ids if isinstance(ids, RowError) else tokenizer.show(ids)


@pytest.mark.parametrize("name", ["chatml_tools", "llama", "mistral", "qwen", "deepseek", "prints_as_given"])
def test_object_and_text_are_one_prompt_with_the_arguments_as_json(name: str) -> None:
    made = {
        prompt(TEMPLATES[name], ARGUMENTS),
        prompt(TEMPLATES[name], PRINTED),
        prompt(TEMPLATES[name], json.dumps(ARGUMENTS, separators=(",", ":"))),
    }
    (one,) = made
    assert isinstance(one, str)
    assert PRINTED in one
    assert str(ARGUMENTS) not in one


def test_a_template_that_goes_through_the_arguments_gets_an_object() -> None:
    assert "<city>Oslo</city><n>3</n>" in str(prompt(TEMPLATES["iterates"], '{"city": "Oslo", "n": 3}'))


def test_parallel_calls_are_all_json() -> None:
    made = str(prompt(TEMPLATES["deepseek"], {"a": "x"}, "", '{"b": "y"}'))
    assert [made.count(each) for each in ('```json\n{"a": "x"}\n', "```json\n{}\n", '```json\n{"b": "y"}\n')] == [
        1,
        1,
        1,
    ]


def test_a_template_that_writes_no_json_either_way_is_refused() -> None:
    problem = prompt(TEMPLATES["never_json"], ARGUMENTS)
    assert isinstance(problem, RowError)
    assert "writes the arguments of tool calls as no JSON" in str(problem)


def test_rows_with_calls_and_without_are_rendered_together_as_each_by_itself() -> None:
    tokenizer = tokenizer_with(TEMPLATES["deepseek"])
    call = {"id": "c", "type": "function", "function": {"name": "w", "arguments": ARGUMENTS}}
    chats = [
        row_of(json.dumps({"messages": [{"role": "user", "content": "hi"}, *more]}).encode()).messages
        for more in ([], [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "s"}], [])
    ]
    assert tokenizer.render_many(chats, {}) == [tokenizer.render(chat, {}) for chat in chats]


def test_the_names_that_a_template_reads() -> None:
    tokenizer = tokenizer_with(
        "{% generation %}{{ a }}{% endgeneration %}{% for x in b %}{{ x }}{% break %}{% endfor %}"
    )
    assert tokenizer.template_variables() == frozenset({"a", "b"})
    tokenizer.inner.chat_template = {"default": CHATML, "tool_use": "{% set q = q or 1 %}{{ tools }}"}
    assert tokenizer.template_variables() == frozenset({"messages", "add_generation_prompt", "q", "tools"})
    tokenizer.inner.chat_template = (
        "{% if not thinking is defined %}{% set thinking = false %}{% endif %}{{ thinking }}"
    )
    assert tokenizer.template_variables() == frozenset({"thinking"})
