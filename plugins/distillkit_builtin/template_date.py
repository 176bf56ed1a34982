"""The date in chat templates: transformers lets them ask for the day on which they are rendered, a run has one day.

transformers passes nothing but JSON into a template, so the function `strftime_now` that a template calls cannot be
given to it; a Jinja macro of that name in front of the template can.
"""

import json
import re
from datetime import date

CALL = re.compile(r"""strftime_now\(\s*(['"])(.*?)\1\s*\)""")
"""A call with the format as it stands, which is all that templates do."""
MACRO = (
    "{%%- macro strftime_now(format) -%%}{%%- set written = %s -%%}"
    "{{ written[format] if format in written else raise_exception("
    "'the date is asked for in a format that is not written out: ' ~ format) }}{%%- endmacro -%%}"
)


def writes_date(template: str) -> bool:
    """Whether a chat template asks for today's date."""
    return "strftime_now" in template


def dated(template: str, today: date) -> str:
    """The template that takes `today`, at midnight, for now; it refuses a format that is made while it is rendered."""
    written = {found[1]: today.strftime(found[1]) for found in CALL.findall(template)}
    return MACRO % json.dumps(written) + template if writes_date(template) else template
