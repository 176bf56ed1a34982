"""A chat template that opens no turn of the assistant's is told of, and no other."""

import pytest
from helpers.chat_templates import OPEN, TEMPLATES, tokenizer_with

from distillkit.data.render import PromptSide, Renderer
from distillkit.preflight.unopened_turns import unopened_turns
from distillkit.testing import ByteTokenizer
from distillkit.tokenizer import Tokenizer

UNOPENED = TEMPLATES["chatml"].removesuffix(OPEN)
OPENED_BY_THE_USERS_TURN = (
    "{% for m in messages %}{% if m.role == 'user' %}<s>[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
)


def told(student: Tokenizer, teacher: Tokenizer) -> list[str]:
    sides = [PromptSide(tokenizer, {}, None) for tokenizer in (student, teacher)]
    return list(unopened_turns(Renderer(sides[0], {"t": sides[1]}, 8)))


def test_each_side_whose_template_opens_no_turn_is_named_with_what_is_missing() -> None:
    opened, unopened = tokenizer_with(TEMPLATES["chatml"]), tokenizer_with(UNOPENED)
    (student,) = told(unopened, opened)
    assert student.startswith("the chat template of the student does not open the assistant's turn")
    assert r"prompts end where '<|start|>assistant\n' has to follow" in student
    (teacher,) = told(opened, unopened)
    assert teacher.startswith("the chat template of teacher 't' does not open")


@pytest.mark.parametrize(
    "template", [OPENED_BY_THE_USERS_TURN, *(TEMPLATES[name] for name in TEMPLATES if name != "last_only")]
)
def test_a_template_that_opens_it_or_refuses_or_tells_nothing_is_passed(template: str) -> None:
    tokenizer = tokenizer_with(template)
    assert not told(tokenizer, ByteTokenizer())
