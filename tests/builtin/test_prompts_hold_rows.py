"""Random rows through many chat templates: each part of a row is in its prompt, or a message says that it is not."""

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pytest
from helpers import tiny_models
from helpers.chat_templates import TEMPLATES, tokenizer_with
from helpers.rows import row_of
from hypothesis import given, settings
from hypothesis import strategies as st

from distillkit import RowError, Tokenizer
from distillkit.data.render import PromptSide, Renderer, RoutedRow
from distillkit.prompt_check.prompt_check import PromptCheck
from distillkit.prompt_check.unprinted_parts import UnprintedParts
from distillkit.testing import ByteTokenizer, make_teacher
from distillkit.types import Route
from distillkit_builtin.prompts import MessagesPrompts

ALL = {**TEMPLATES, "tiny_models": tiny_models.CHATML}
TEACHER = make_teacher("t")
AROUND = st.sampled_from(
    [
        "",
        " ",
        "a",
        "naïve 🦊",
        "<|end|>",
        "{{ messages }}",
        "{% raw %}",
        "</s>",
        '"',
        "\\",
        "\n\n",
        "{'a': None}",
        "7",
        "x",
    ]
)


@dataclass(frozen=True)
class Drawn:
    """A row, and a word that stands in each of its parts, by where the part is called to be."""

    row: dict[str, Any]
    words: dict[str, tuple[str, ...]]


@st.composite
def rows(draw: st.DrawFn) -> Drawn:
    """A row of any shape that parses: roles, calls, answers, tools, documents, options, thoughts."""
    words: dict[str, tuple[str, ...]] = {}
    count = iter(range(1000))

    def word(place: str, *, bare: bool = False) -> str:
        mark = f"zq{next(count)}qz"
        words[place] = (*words.get(place, ()), mark)
        return mark if bare else f"{draw(AROUND)}{mark}{draw(AROUND)}"

    def content(place: str) -> str:
        return word(place) if draw(st.integers(0, 5)) else ""

    messages: list[dict[str, Any]] = []

    def add(role: str, **more: Any) -> dict[str, Any]:
        at = f"[{len(messages)}]"
        message = {"role": role, "content": content(f"{at}.content"), **more}
        if draw(st.integers(0, 9)) == 0:
            message["name"] = word(f"{at}.name")
        messages.append(message)
        return message

    if draw(st.booleans()):
        add(draw(st.sampled_from(["system", "developer"])))
    for _ in range(draw(st.integers(0, 2))):
        add("user")
        at = len(messages)
        assistant = add("assistant")
        if draw(st.booleans()):
            thought = word(f"[{at}].content")
            assistant["content"] = f"<think>{thought}</think>{assistant['content']}"
        elif draw(st.booleans()):
            assistant["reasoning_content"] = word(f"[{at}].reasoning_content")
        ids = [f"zq{next(count):05}qz" for _ in range(draw(st.integers(0, 2)))]
        for j, call_id in enumerate(ids):
            place = f"[{at}].tool_calls[{j}]"
            words[f"{place}.id"] = (call_id,)
            arguments = draw(
                st.sampled_from([{"city": "W"}, {"a": {"b": ["W", None, True]}}, {"W": 1}, {"n": 1.5, "k": "W"}])
            )
            text = json.dumps(arguments, ensure_ascii=False).replace(
                "W", word(f"{place}.function.arguments", bare=True)
            )
            function = {"name": word(f"{place}.function.name", bare=True), "arguments": json.loads(text)}
            if draw(st.booleans()):
                function["arguments"] = text
            call = {"id": call_id, "type": "function", "function": function}
            assistant.setdefault("tool_calls", []).append(call)
            if not assistant["content"]:
                assistant["content"] = draw(st.sampled_from(["", None]))
        for call_id in ids:
            words[f"[{len(messages)}].tool_call_id"] = (call_id,)
            add("tool", tool_call_id=call_id)
    if not messages or messages[-1]["role"] != "tool" or draw(st.booleans()):
        add("user")
    row: dict[str, Any] = {"messages": messages}
    for j in range(draw(st.integers(0, 3)) if draw(st.booleans()) else 0):
        schema = {
            "type": "object",
            "properties": {"p": {"description": word(f"tools[{j}].function.parameters", bare=True)}},
        }
        function = {"name": word(f"tools[{j}].function.name", bare=True), "parameters": schema}
        function["description"] = word(f"tools[{j}].function.description", bare=True)
        row.setdefault("tools", []).append({"type": "function", "function": function})
    for j in range(draw(st.integers(0, 2)) if draw(st.booleans()) else 0):
        row.setdefault("documents", []).append(
            {"title": word(f"documents[{j}].title"), "text": word(f"documents[{j}].text")}
        )
    if draw(st.booleans()):
        row["chat_template_kwargs"] = {
            "enable_thinking": draw(st.booleans()),
            "date": word("date"),
        }
    return Drawn(row, words)


@lru_cache
def tokenizer_of(name: str) -> Tokenizer:
    return ByteTokenizer() if name == "bytes" else tokenizer_with(ALL[name])


def routed(row: dict[str, Any]) -> RoutedRow:
    parsed = row_of(json.dumps(row).encode())
    return RoutedRow(parsed, Route.to("t"), MessagesPrompts().build(parsed, Route.to("t"), [TEACHER]))


@pytest.mark.parametrize("name", [*ALL, "bytes"])
@settings(max_examples=20)
@given(st.lists(rows(), min_size=1, max_size=3))
def test_each_part_of_a_row_is_in_its_prompt_or_a_message_says_that_it_is_not(name: str, drawn: list[Drawn]) -> None:
    side = PromptSide(tokenizer_of(name), {}, None)
    renderer = Renderer(side, {"t": side}, 1)
    unprinted, check = UnprintedParts(side), PromptCheck(renderer)  # they remember what rows before had
    for row, ids in zip(drawn, renderer.ids([routed(each.row) for each in drawn]), strict=True):
        if isinstance(ids, RowError):
            assert name not in ("chatml", "chatml_tools", "no_roles", "bytes")
            continue
        prompt = side.tokenizer.show(list(ids.student))
        at_row = routed(row.row)
        said = [*unprinted.parts(at_row.chat.student, at_row.chat.template_options)]
        places = {part.place for part in said}
        missing = {place for place, words in row.words.items() if any(word not in prompt for word in words)}
        assert missing <= places | {place.rpartition(".")[0] for place in places}, prompt
        refused = {part.place for part in said if part.needed}
        whole = {place for place in missing if all(word not in prompt for word in row.words[place])}
        assert refused <= whole | {place.rpartition(".")[0] for place in whole}, prompt  # no false alarm
        problem = check.problem(at_row)
        assert (problem is not None) == bool(refused)
        if problem is not None:
            assert problem.field.removeprefix("messages") in refused
        notes = " ".join(check.notes("rows"))
        assert all(part.kind in notes for part in said if not part.needed)


def test_the_rows_reach_what_they_are_for() -> None:
    """Each template refuses, drops or prints what it is there for: nothing above passes for want of rows."""
    calls = {"id": "abcdefghi", "type": "function", "function": {"name": "w", "arguments": {"city": "Paris"}}}
    row = {
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": None, "tool_calls": [calls]},
            {"role": "tool", "content": "sun", "tool_call_id": "abcdefghi"},
        ],
        "tools": [
            {"type": "function", "function": {"name": "w", "description": "d", "parameters": {"type": "object"}}}
        ],
    }
    found = {name: str(_verdict(name, row)) for name in TEMPLATES}
    assert {name for name, said in found.items() if said == "None"} == {
        "chatml_tools",
        "llama",
        "mistral",
        "qwen",
        "signatures",
    }
    assert {name: said.partition(":")[0] for name, said in found.items() if said != "None"} == {
        "chatml": "messages[1].tool_calls[0].function.name",
        "gemma": "messages",
        "gemma_system": "messages[1].tool_calls[0].function.name",
        "deepseek": "tools[0].function.name",
        "phi": "messages[1].tool_calls[0].function.name",
        "iterates": "tools[0].function.description",
        "prints_as_given": "tools[0].function.name",
        "never_json": "messages",
        "checks_ids": "tools[0].function.name",
        "drops_roles": "messages[1].tool_calls[0].function.name",
        "no_roles": "messages[1].tool_calls[0].function.name",
        "last_only": "messages[0].content",
        "last_four": "messages[1].tool_calls[0].function.name",
        "first_tools": "messages[1].tool_calls[0].function.name",
        "strict": "messages",
    }


def _verdict(name: str, row: dict[str, Any]) -> RowError | None:
    side = PromptSide(tokenizer_of(name), {}, None)
    renderer = Renderer(side, {"t": side}, 1)
    (ids,) = renderer.ids([routed(row)])
    return ids if isinstance(ids, RowError) else PromptCheck(renderer).problem(routed(row))
