"""Chat templates that do not open the assistant's turn: each completion would have to write that opening first."""

from collections.abc import Iterator

from distillkit.data.render import PromptSide, Renderer
from distillkit.errors import InputError
from distillkit.tokenizer import template_variables
from distillkit.types import Message

ASKED = (Message("user", "Why?"),)
ANSWER = "Certainly"
ANSWERED = (*ASKED, Message("assistant", ANSWER), Message("user", "And then?"))
OPENS = "add_generation_prompt"
"""What a template reads that opens the turn where it is asked to. Others open it behind every question, or never."""


def unopened_turns(renderer: Renderer) -> Iterator[str]:
    """A warning for the student and each teacher whose prompt ends before its template's opening of an answer."""
    sides = {"the student": renderer.student, **{f"teacher {name!r}": side for name, side in renderer.teachers.items()}}
    for who, side in sides.items():
        opening = _unwritten_opening(side)
        if opening:
            yield (
                f"the chat template of {who} does not open the assistant's turn, since it does not read {OPENS}: "
                f"prompts end where {opening!r} has to follow, which each completion would have to begin with; use a "
                "local copy of the tokenizer with a template that writes it"
            )


def _unwritten_opening(side: PromptSide) -> str:
    """What the template writes between a prompt and an answer; empty where that is nothing, blank or cannot be seen."""
    known = template_variables(side.tokenizer)
    if known is None or OPENS in known:
        return ""
    try:
        asked, answered = (
            side.tokenizer.show(side.tokenizer.render(chat, side.template_options)) for chat in (ASKED, ANSWERED)
        )
    except InputError:
        return ""
    opening, answer, _ = answered.removeprefix(asked).partition(ANSWER)
    return opening if answered.startswith(asked) and answer and opening.strip() else ""
