"""HTML by templates that escape whatever they are given, and JSON inside of HTML.

What stands in a report was written by models, by servers and by whoever made the data. So no HTML is pasted together:
jinja2 escapes each value of a template unless it is `Markup`, which only templates make; a name that a template is not
given is an error. Characters that are not printable, such as those that turn the direction of the text around them,
and halves of surrogate pairs, which no file can hold, are shown as their escapes.
"""

import json
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from distillkit.files.printable import printable

KEPT = "\n\t\u00a0\u200c\u200d\u202f\u3000"
"""Line ends, tabs and spaces; and joiners, which scripts and emoji need, and which move nothing."""
UNSAFE_IN_SCRIPT = re.compile("[<>&\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
"""What would end the element, begin another in it or end a line of a script; what moves or hides text, or is none."""


def shown(value: object) -> object:
    """What a template shows of a value: texts with each character visible; anything else as it is."""
    return printable(value, keep=KEPT) if isinstance(value, str) and not isinstance(value, Markup) else value


def coded(text: str) -> Markup:
    """A sentence, escaped, with what stands between backticks in it as code."""
    parts = str(shown(text)).split("`")
    if len(parts) % 2 == 0:  # one has no other
        return Markup("`").join(parts)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else part for place, part in enumerate(parts)
    )


TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=shown,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=False,
)

TEMPLATES.filters["coded"] = coded


def rendered(template: str, **values: object) -> Markup:
    """A template of `templates/` with these values, each escaped. Raises UndefinedError for a missing one."""
    return Markup(TEMPLATES.get_template(template).render(values))  # noqa: S704 - a template escapes


def json_in_html(value: object) -> Markup:
    """JSON as it may stand in a `<script type="application/json">`, whatever texts it holds; no number is not finite.

    Raises:
        ValueError: for NaN and infinity.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(UNSAFE_IN_SCRIPT.sub(lambda found: f"\\u{ord(found[0]):04x}", text))  # noqa: S704 - escaped here
