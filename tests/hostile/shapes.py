"""Hypothesis strategies: JSON of any kind, answers that are wrong in one place, and text that is hostile to YAML."""

import json
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

QUICK = settings(max_examples=40, deadline=None)
NUMBERS = (
    st.integers(-3, 10)
    | st.sampled_from([2**31, 2**63, -(2**63), 10**30, 10**400])
    | st.floats()
    | st.sampled_from([1e300, -1e300, -9999.0, 0.7])
)
TEXTS = st.text(st.characters(), max_size=8) | st.sampled_from(
    ["", "token_id:3", "token_id:" + "9" * 5000, "٣", "\x1b[2J", "\0", "x" * 3000, "user", "a", "b", "stop"]
)
KEYS = TEXTS | st.sampled_from(["messages", "role", "content", "teacher", "type", "text", "3", "9"])
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
HOSTILE_COLUMNS = st.sampled_from(
    [
        "a b",
        "it's",
        'a"b',
        "a\nb: {c",
        "{{ x }}",
        "{% if %}",
        "}}",
        "range",
        "if",
        "row",
        "self",
        "#",
        "\\",
        "\u2028",
        "a",
    ]
)
"""Names of columns that templates and YAML may take for something else."""
PUNCTUATION = "&*!|>%@`{}[],:?-#'\"\\\t\n ~=<"
TAGS = [f"!!{tag} " for tag in ("bool", "int", "map", "set", "timestamp", "python/object:os.system")]
SCALARS = ["0x", "1e400", ".nan", ".inf", "2024-13-45", '"\\ud800"', '"\\0"', "²", "..", "../../x", "\ufeff"]
NAMES = ["student", "name", "teachers", "model", "data", "plugins", "train", "max_steps"]
SYNTAX = st.sampled_from([*PUNCTUATION, "&a ", "*a", "<<: ", "- ", ": ", *TAGS, *SCALARS, *NAMES])
YAML = st.lists(SYNTAX | TEXTS, max_size=12).map("".join)
OVERRIDES = st.builds(
    lambda keys, value: f"{'.'.join(keys)}={value}", st.lists(SYNTAX | st.just("0"), min_size=1, max_size=4), YAML
)


@st.composite
def wrong_in_one_place(draw: st.DrawFn, valid: Any) -> Any:
    """`valid` with something else in one place, or without what stood there."""
    value = json.loads(json.dumps(valid))
    node, depth = value, draw(st.integers(0, 7))
    for _ in range(depth):
        places = range(len(node)) if isinstance(node, list) else list(node)
        place = draw(st.sampled_from(places))
        inner = node[place]
        if not inner or not isinstance(inner, list | dict) or draw(st.integers(0, 4)) == 0:
            if draw(st.integers(0, 4)) == 0:
                del node[place]
            else:
                node[place] = draw(JSON)
            return value
        node = inner
    return draw(JSON)


def as_body(value: Any) -> bytes:
    """As a server would send it, which may send what is no JSON."""
    return json.dumps(value).encode()
