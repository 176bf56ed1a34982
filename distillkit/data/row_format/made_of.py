"""Where a row's messages come from: what is said of them names it, and lines to write read what filters can read."""

import json
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MadeOf:
    """A key of `data.format`, and what its template reads: filters read columns, never what is made of them."""

    key: str = ""
    """Empty: none that is known makes these messages."""
    expression: str = ""
    """What its template is, in the braces; empty where it is more than one expression."""
    columns: Sequence[str] = ()

    @property
    def said(self) -> str:
        """What is said behind a place in messages which is none in a column; empty where rows hold the messages."""
        if self.key in ("", self.expression):
            return ""
        named = " and ".join(f"`{name}`" for name in self.columns)
        of = f" of the column{'s' * (len(self.columns) > 1)} {named}" if named else ""
        return f" (data.format.{self.key} makes the messages{of})"

    def leave_out(self, condition: str) -> str:
        """The line of a config that keeps rows by a condition behind the expression."""
        return leave_out(f"{self.expression} {condition}") if self.expression else ""

    def by_filters(self, *filters: str) -> str:
        """The line of a config that changes messages by Jinja filters."""
        if not self.key:
            return ""
        behind = " | ".join(filters)
        template = json.dumps(f"{{{{ {self.expression} | {behind} }}}}", ensure_ascii=False)
        line = f"data.format: {{{self.key}: {template}}}" if self.expression else ""
        if self.key != self.expression:
            return line or f"end the template of data.format.{self.key} by `| {behind}`"
        keys = "`teacher_messages` or `teacher_prompt`" if self.key == "teacher_messages" else f"`{self.key}`"
        return f"{line}; if the config has a template for {keys}, end that by `| {behind}`"


def leave_out(expression: str) -> str:
    """The line of a config that keeps the rows for which an expression is true."""
    return f"data.filter: {json.dumps(expression, ensure_ascii=False)} leaves such rows out"


AS_THEY_ARE = {name: MadeOf(name, name, (name,)) for name in ("messages", "teacher_messages")}
"""Messages that rows hold."""
UNKNOWN = MadeOf()
