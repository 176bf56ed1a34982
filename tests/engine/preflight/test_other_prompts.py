"""A teacher that reads the same messages otherwise is told of."""

from collections.abc import Mapping, Sequence

import pytest
from pydantic import JsonValue

from distillkit.data.render import PromptSide, Renderer
from distillkit.errors import RowError
from distillkit.preflight.other_prompts import other_prompts
from distillkit.testing import ByteTokenizer
from distillkit.types import Message


class Reading(ByteTokenizer):
    """Writes a system turn of its own where there is none, or refuses one."""

    def __init__(self, own: str = "", *, refuses: bool = False) -> None:
        super().__init__()
        self.own, self.refuses = own, refuses

    def render(self, messages: Sequence[Message], options: Mapping[str, JsonValue]) -> list[int]:
        if self.refuses and messages[0].role == "system":
            raise RowError("messages", "are refused")
        thinking = self.encode("<think>") if options.get("thinking") else []
        return [*self.encode(self.own), *super().render(messages, {}), *thinking]


SAME = PromptSide(Reading(), {}, None)


@pytest.mark.parametrize(
    ("teacher", "told"),
    [
        (SAME, False),
        (PromptSide(Reading(), {}, 5), False),  # an object of its own
        (PromptSide(Reading("You are Qwen."), {}, None), True),
        (PromptSide(Reading(), {"thinking": True}, None), True),
        (PromptSide(Reading(refuses=True), {}, None), True),
    ],
)
def test_a_teacher_that_reads_another_prompt_is_told_of(teacher: PromptSide, told: bool) -> None:
    notes = list(other_prompts(Renderer(SAME, {"alike": SAME, "t": teacher}, 8)))
    assert [note.partition(" reads ")[0] for note in notes] == (["teacher 't'"] if told else [])


def test_what_both_refuse_is_no_difference() -> None:
    side = PromptSide(Reading(refuses=True), {}, None)
    assert not list(other_prompts(Renderer(side, {"t": PromptSide(Reading(refuses=True), {}, None)}, 8)))
