"""What is known of a chat template before it is rendered: whether Jinja can read it, and the names that it reads."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from distillkit.errors import InputError

if TYPE_CHECKING:
    from jinja2 import nodes

GENERATION_TAG = re.compile(r"\{%[-+]?\s*(end)?generation\s*[-+]?%\}")
"""Of transformers, which marks by it what the assistant wrote; Jinja itself does not know it."""


def require_usable(source: str, templates: Sequence[str]) -> None:
    """Raise InputError for a template of `source` that is no Jinja, and for one that is not the same each time."""
    from jinja2 import TemplateSyntaxError, nodes

    for template in templates:
        try:
            tree = _parsed(template)
        except TemplateSyntaxError as error:
            raise InputError(
                f"the chat template of {source!r} cannot be read by Jinja: line {error.lineno}: {error.message}; "
                "mend it in chat_template.jinja or tokenizer_config.json of a local copy"
            ) from error
        if any(found.name == "random" for found in tree.find_all(nodes.Filter)):
            raise InputError(
                f"the chat template of {source!r} has Jinja's filter `random`, and would write another prompt each "
                "time; take it out, in chat_template.jinja or tokenizer_config.json of a local copy"
            )


@lru_cache
def template_variables(templates: tuple[str, ...]) -> frozenset[str]:
    """What any of a model's templates reads and does not set itself."""
    from jinja2 import meta

    return frozenset().union(*(meta.find_undeclared_variables(_parsed(template)) for template in templates))


def _parsed(template: str) -> "nodes.Template":
    from jinja2 import Environment

    environment = Environment(autoescape=True, extensions=["jinja2.ext.loopcontrols"])
    return environment.parse(GENERATION_TAG.sub("", template))


def template_errors() -> tuple[type[Exception], ...]:
    """What a template raises while it is rendered: it is a program, which may also divide by zero or not return."""
    from jinja2 import TemplateError

    return (TemplateError, TypeError, ValueError, ArithmeticError, AttributeError, LookupError, RuntimeError)


def said(error: Exception) -> str:
    """What a template raised: with its class, where the message alone would not say what it is."""
    own_words = template_errors()[:3]
    return str(error) if isinstance(error, own_words) else f"{type(error).__name__}: {error}"
