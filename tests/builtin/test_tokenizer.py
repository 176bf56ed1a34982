import pytest

from distillkit.errors import InputError, RowError
from distillkit.types import Message
from distillkit_builtin.tokenizer import HFTokenizer

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


def test_what_a_template_cannot_compute_with_names_the_messages(tokenizer: HFTokenizer) -> None:
    strict = HFTokenizer(tokenizer.inner, "org/strict")
    before = strict.inner.chat_template
    try:
        for template in ("{{ messages[0].content + 1 }}", "{{ raise_exception('no system role') }}"):
            strict.inner.chat_template = template
            with pytest.raises(RowError, match="messages: the chat template of 'org/strict' refuses them: "):
                strict.render(ASK, {})
    finally:
        strict.inner.chat_template = before
