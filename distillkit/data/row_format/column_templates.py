"""The template that is a column's value, and texts in templates."""

import json

from distillkit.data.row_format.row_template import compile_template


def of_column(name: str) -> str:
    """The template that is a column's value."""
    template = f"{{{{ {name} }}}}"
    try:
        if compile_template(template, "").reads == {name}:
            return template
    except ValueError:  # a name that is no identifier, or a word of Jinja's own
        pass
    return f"{{{{ row[{in_quotes(name)}] }}}}"


def in_quotes(text: str) -> str:
    """A text as templates write it; in single quotes where that is possible, since configs write double ones around."""
    plain = text.isprintable() and "'" not in text and "\\" not in text
    return f"'{text}'" if plain else json.dumps(text, ensure_ascii=False)
