"""Teachers that read the same messages as another prompt than the student: a part of their gap is about that."""

from collections.abc import Iterator

from distillkit.data.render import PromptSide, Renderer
from distillkit.errors import InputError
from distillkit.types import Message

CHATS = (
    (Message("user", "Why?"),),
    (Message("user", "Why?"), Message("assistant", "So."), Message("user", "And then?")),
    (Message("system", "Be brief."), Message("user", "Why?")),
)


def other_prompts(renderer: Renderer) -> Iterator[str]:
    """A note for each teacher whose template, or whose options for it, make another prompt of a chat."""
    student = _prompts(renderer.student)
    for name, side in renderer.teachers.items():
        if any(ours != theirs for ours, theirs in zip(student, _prompts(side), strict=True)):
            yield (
                f"teacher {name!r} reads the same messages as another prompt than the student does: its chat template, "
                "or its chat_template_kwargs, are others. A part of its gap is about that; look at both prompts"
            )


def _prompts(side: PromptSide) -> list[list[int] | None]:
    return [_prompt(side, chat) for chat in CHATS]


def _prompt(side: PromptSide, chat: tuple[Message, ...]) -> list[int] | None:
    """The chat's ids; None where the template refuses it."""
    try:
        return side.tokenizer.render(chat, side.template_options)
    except InputError:
        return None
