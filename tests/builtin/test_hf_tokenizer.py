from pathlib import Path
from typing import Any

import pytest
from helpers.tiny_models import write_tokenizer
from transformers import PreTrainedTokenizerFast

from distillkit.errors import InputError, RowError
from distillkit.types import Message
from distillkit_builtin.hf_tokenizer import HFTokenizer

ASK = [Message("user", "Why?")]


@pytest.fixture(scope="module")
def tokenizer(tiny_model: str) -> HFTokenizer:
    return HFTokenizer.load(tiny_model)


@pytest.mark.parametrize("name", ["tokenize", "return_dict", "add_generation_prompt", "conversation", "chat_template"])
def test_options_that_are_not_the_templates_are_refused(tokenizer: HFTokenizer, name: str) -> None:
    with pytest.raises(InputError, match=f"chat_template_kwargs: {name} would change how distillkit renders") as caught:
        tokenizer.render(ASK, {name: False})
    assert not isinstance(caught.value, RowError)  # the config is wrong, not this row


def test_options_of_the_template_reach_it(tokenizer: HFTokenizer) -> None:
    plain = tokenizer.render(ASK, {})
    assert tokenizer.render(ASK, {"unknown": 1, "tools": [], "documents": None}) == plain
    assert tokenizer.decode(tokenizer.render(ASK, {"enable_thinking": False})).endswith("<think></think>")


REFUSALS = {
    "{{ messages[0].content + 1 }}": "can only concatenate str",
    "{{ raise_exception('no system role') }}": "no system role",
    "{{ 1 / 0 }}": "ZeroDivisionError: division by zero",
    "{{ range(0, 1000000) }}": "OverflowError: Range too big",
    "{{ '{city}'.format(1) }}": "KeyError: 'city'",
    "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}": "RecursionError: ",
}


def test_what_a_template_cannot_compute_with_names_the_messages(tokenizer: HFTokenizer) -> None:
    strict = HFTokenizer(tokenizer.inner, "org/strict")
    before = strict.inner.chat_template
    try:
        for template, reason in REFUSALS.items():
            strict.inner.chat_template = template
            with pytest.raises(RowError, match=f"messages: the chat template of 'org/strict' refuses them: {reason}"):
                strict.render(ASK, {})
            assert strict.turn_ends({}).template is None
    finally:
        strict.inner.chat_template = before


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ bos_token }}\n{% if %}", "cannot be read by Jinja: line 2: Expected an expression"),
        ("{{ ['Hello', 'Hi'] | random }} {{ messages[0].content }}", "has Jinja's filter `random`, and would write an"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_when_it_is_loaded(
    tmp_path: Path, template: str, reason: str
) -> None:
    write_tokenizer(tmp_path, template=template)
    with pytest.raises(InputError, match=f"the chat template of .* {reason}"):
        HFTokenizer.load(str(tmp_path))


CHATS = [
    [Message("user", "Why?")],
    [Message("system", "Be brief."), Message("user", "naïve café 🦊\r\n  1,234"), Message("assistant", "")],
    [Message("user", "a turn's end in the text: <|im_end|>, <|im_start|>user <think>")],
    [Message("tool", "x" * 3000, {"name": "calculator"})],
]


@pytest.mark.parametrize("options", [{}, {"enable_thinking": False}])
def test_ids_are_those_of_transformers_one_by_one_and_together(tokenizer: HFTokenizer, options: dict[str, Any]) -> None:
    expected = [
        tokenizer.inner.apply_chat_template(
            [message.as_dict() for message in chat], add_generation_prompt=True, return_dict=False, **options
        )
        for chat in CHATS
    ]
    tokenizer.inner.backend_tokenizer.enable_truncation(5)  # as a file on the hub may say
    tokenizer.inner.backend_tokenizer.enable_padding(length=5000)
    assert tokenizer.render_many(CHATS, options) == expected
    assert [tokenizer.render(chat, options) for chat in CHATS] == expected


def test_a_tokenizer_with_a_way_of_its_own_is_asked_itself(tokenizer: HFTokenizer) -> None:
    class Own(PreTrainedTokenizerFast):
        def apply_chat_template(self, *args: Any, **options: Any) -> Any:
            return [1, 2, 3]

    own = Own(tokenizer_object=tokenizer.inner.backend_tokenizer, chat_template="{{ messages }}")
    assert HFTokenizer(own, "own").render_many(CHATS, {}) == [[1, 2, 3]] * len(CHATS)


def test_a_chat_that_the_template_refuses_is_told_beside_the_ids_of_the_others(tokenizer: HFTokenizer) -> None:
    before = tokenizer.inner.chat_template
    picky = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    try:
        tokenizer.inner.chat_template = picky + before
        first, refused, *others = tokenizer.render_many(CHATS, {})
    finally:
        tokenizer.inner.chat_template = before
    assert isinstance(refused, RowError)
    assert str(refused).endswith("refuses them: no system role")
    assert [first, *others] == [tokenizer.render(chat, {}) for i, chat in enumerate(CHATS) if i != 1]
    assert tokenizer.render_many([], {}) == []


def test_an_empty_chat_is_refused_among_others_too(tokenizer: HFTokenizer) -> None:
    empty, fine = tokenizer.render_many([[], ASK], {})
    assert isinstance(empty, RowError)
    assert fine == tokenizer.render(ASK, {})


def test_a_token_is_shown_alike_each_time(tokenizer: HFTokenizer) -> None:
    ids = tokenizer.render(ASK, {})
    shown = [tokenizer.show([index]) for index in ids]
    assert shown == [tokenizer.show([index]) for index in ids]
    assert "".join(shown) == tokenizer.show(ids)
