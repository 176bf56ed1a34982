"""What other languages write, and what Jinja has for it: for expressions that are refused."""

import re
from collections.abc import Mapping

AS_ELSEWHERE: Mapping[str, str] = {
    r"&&": "write `and` for `&&`",
    r"\|\|": "write `or` for `||`",
    r"!(?!=)": "write `not` for `!`",
    r"<>": "write `!=` for `<>`",
    r"\b(?i:is\s+not)\s+(?!none\b)(?i:null|none)\b": "write `is not none`",
    r"\b(?i:is)\s+(?!none\b)(?i:null|none)\b": "write `is none`",
    r"\b(?i:like)\b": "write `'word' in column`",
    r"\b(?:AND|OR|NOT|IN|IS)\b": "write `and`, `or`, `not`, `in` and `is` in small letters",
    r"(?<![=!<>])=(?!=)": "write `==` to compare",
}
IN_QUOTES = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
AS_FILTERS: Mapping[str, str] = {
    "len": "length",
    "str": "string",
    **{
        name: name for name in ("abs", "float", "int", "length", "list", "lower", "max", "min", "round", "sum", "upper")
    },
}
"""Functions of other languages, and the filter that does it."""


def hint_of_syntax(text: str) -> str:
    """What to write in the place of the first thing in a refused expression that Jinja has under another name."""
    code = IN_QUOTES.sub("''", text)
    found = [advice for pattern, advice in AS_ELSEWHERE.items() if re.search(pattern, code)]
    return f"; {found[0]}" if found else ""


def hint_of_name(name: str) -> str:
    """What to write in the place of a name that no column has, and that other languages know."""
    if name.lower() in ("null", "nil", "undefined"):
        return "`none` is what is empty: `column is not none`"
    if name in AS_FILTERS:
        return f"a filter does it: `column | {AS_FILTERS[name]}`"
    return ""
