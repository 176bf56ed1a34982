"""The template options of a config: of the shape that templates take, and read by the template that gets them."""

from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from distillkit.config.run_config import RunConfig
from distillkit.data.render import PromptSide, Renderer
from distillkit.data.template_options import OPTIONS, PARSERS
from distillkit.errors import InputError, RowError
from distillkit.tokenizer import template_variables
from distillkit.types import Message


def options_of_config(options: Mapping[str, JsonValue], section: str) -> Mapping[str, JsonValue]:
    """The options with tools and documents as rows have them. Raises InputError for those that are malformed."""
    try:
        parsed = {
            name: PARSERS[name](value, name) for name, value in options.items() if name in PARSERS and value is not None
        }
    except RowError as error:
        raise InputError(f"{section}.{OPTIONS}.{error}") from error
    return {**options, **parsed}


def require_read_options(config: RunConfig, renderer: Renderer) -> None:
    """Raise InputError for an option of the config that does nothing, or that is no option of a template."""
    named = {"sampling": (config.sampling.chat_template_kwargs, renderer.student)}
    for at, section in enumerate(config.teachers):
        named[f"teachers.{at}"] = section.chat_template_kwargs or {}, renderer.teachers[section.teacher.name]
    for section_name, (options, side) in named.items():
        unread = _unread(options, side)
        if unread:
            raise InputError(
                f"{section_name}.{OPTIONS}: {', '.join(unread)} would do nothing, since the chat template of that "
                "model reads no such variable; take it out, or look up in the template how it is spelled"
            )
        _require_options(side)


def unread_by_teachers(config: RunConfig, renderer: Renderer) -> Iterator[str]:
    """A note for each teacher that takes the student's options, and whose template does not read one."""
    for section in config.teachers:
        if section.chat_template_kwargs is None:
            name = section.teacher.name
            for option in _unread(config.sampling.chat_template_kwargs, renderer.teachers[name]):
                yield (
                    f"teacher {name!r}: its chat template does not read {option}, which it has of "
                    f"sampling.{OPTIONS}; teachers[].{OPTIONS} gives it options of its own"
                )


def _unread(options: Mapping[str, JsonValue], side: PromptSide) -> list[str]:
    known = template_variables(side.tokenizer)
    return [] if known is None else [name for name in options if name not in known]


def _require_options(side: PromptSide) -> None:
    """Raise InputError for an option that is not the template's, before a row with options of its own is blamed."""
    try:
        side.tokenizer.render([Message("user", "Why?")], side.template_options)
    except RowError:
        return  # the template's own refusal, which is for the rows to show
