"""How the rows of a source are read: by the mapping that the config has, over that of the shape that they have."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from distillkit.data.row_format.column_templates import of_column
from distillkit.data.row_format.literals import PROMPTS, meant_columns
from distillkit.data.row_format.shapes import Columns, Mapped, shapes_of
from distillkit.errors import DataError
from distillkit.files.strict_json import shortened

LOOKED_AT = 50
"""Rows that are looked at to recognize a shape."""
AS_THEY_ARE: Mapped = {"messages": "{{ messages }}"}
"""The mapping of rows that hold `messages` already, which needs nothing done."""
NATIVE = frozenset({"tools", "documents", "chat_template_kwargs", "expected_answer"})
"""Columns that mean something as they are."""
OF_QUESTIONS = ("question", "problem", "prompt", "query", "instruction", "input", "text")
OF_ANSWERS = ("answer", "final_answer", "correct_answer", "ground_truth", "target", "label")
"""Columns that are likely meant, the likeliest first, for a line that the user is to look at."""
COLUMN = re.compile(r"\{\{-?\s*([A-Za-z_]\w*)\s*-?\}\}")
SHOWN = 400
"""Characters of the first row in a message."""


@dataclass(frozen=True, slots=True)
class ReadAs:
    """How rows are read."""

    mapping: Mapped
    """In full, and always spelt alike."""
    shape: str = ""
    """The shape that was recognized; empty where the config says everything."""

    @property
    def is_plain(self) -> bool:
        """Whether rows hold `messages` and stay as they are."""
        return self.mapping == AS_THEY_ARE

    def note(self, columns: Iterable[str]) -> str | None:
        """What to tell the user of rows with these columns besides what is read as it is; None: nothing was guessed."""
        if not self.shape or self.is_plain:
            return None
        text = json.dumps(self.mapping)
        unused = [name for name in columns if name not in NATIVE and not re.search(rf"\b{re.escape(name)}\b", text)]
        rest = f"; not read by it: {shortened(', '.join(unused), 200)}" if unused else ""
        return f"rows are read as {self.shape}: data.format: {as_yaml(self.mapping)}{rest}"


def recognized(rows: Sequence[Columns], written: Mapped, place: str) -> ReadAs:
    """How rows are read that begin with `rows`, by a config whose `data.format` is `written`.

    Raises:
        DataError: where `written` makes no prompt, and the rows have none of the known shapes, or several; and where it
            has the name of a column as a text.
    """
    wrong = list(meant_columns(written, columns_of(rows)))
    if wrong:
        raise DataError("\n".join(f"{place}: {said}" for said in wrong))
    if any(key in written for key in PROMPTS):
        return ReadAs(_spelt_alike(written))
    found = dict(shapes_of(rows))
    if len(found) == 1:
        ((shape, mapping),) = found.items()
        return ReadAs(_spelt_alike({**mapping, **written}), shape)
    if found:
        raise DataError(_several(found, place))
    if not rows:  # of a source that has none that can be read, which is said of each
        return ReadAs(AS_THEY_ARE)
    raise DataError(_none(rows, place))


def _spelt_alike(mapping: Mapped) -> Mapped:
    return {name: _column_alike(mapping[name]) for name in mapping}


def _column_alike(value: JsonValue) -> JsonValue:
    found = COLUMN.fullmatch(value.strip()) if isinstance(value, str) else None
    return f"{{{{ {found[1]} }}}}" if found else value


def as_yaml(mapping: Mapped) -> str:
    """A mapping on one line, to be pasted into a config."""
    return f"{{{', '.join(f'{name}: {in_yaml(value)}' for name, value in mapping.items())}}}"


def in_yaml(value: JsonValue) -> str:
    """A value as JSON, which is YAML too, with what YAML does not print as escapes."""
    return "".join(
        character if character.isprintable() else f"\\U{ord(character):08x}"
        for character in json.dumps(value, ensure_ascii=False)
    )


def _several(found: Mapping[str, Mapped], place: str) -> str:
    lines = [f"  format: {as_yaml(mapping)}   # {shape}" for shape, mapping in found.items()]
    return "\n".join(
        [
            f"{place}: rows can be read as {' and as '.join(found)}, and which is meant is not guessed; write one of "
            "these lines below `data:`",
            *lines,
        ]
    )


def _none(rows: Sequence[Columns], place: str) -> str:
    columns = columns_of(rows)
    if not columns:
        return f"{place}: rows have no columns"
    return (
        f"{place}: rows have none of the shapes that are recognized (messages; prompt; question and answer; "
        f"conversations; instruction, input and output). They have {shortened(', '.join(columns), SHOWN)}; the first "
        f"is\n  {shortened(json.dumps(rows[0], ensure_ascii=False), SHOWN)}\nSay below `data:` what prompts are made "
        f"of, such as\n  format: {as_yaml(suggested(rows))}"
    )


def columns_of(rows: Iterable[Columns]) -> list[str]:
    """The columns that any of the rows has."""
    return list(dict.fromkeys(name for row in rows for name in row))


def suggested(rows: Sequence[Columns]) -> Mapped:
    """A mapping to begin with, of columns that there are: to be looked at, not to be used unseen."""
    columns = columns_of(rows)
    texts = [name for name in columns if any(isinstance(row.get(name), str) for row in rows)]
    scalars = [name for name in columns if any(isinstance(row.get(name), str | int | float) for row in rows)]
    question = _likely(OF_QUESTIONS, texts) or _likely(OF_QUESTIONS, scalars) or (texts or scalars or columns)[0]
    answer = _likely(OF_ANSWERS, [name for name in scalars if name != question])
    prompt = of_column(question)
    if question in scalars and question not in texts:
        prompt = prompt.replace(" }}", " | string }}")
    return {"prompt": prompt, **({} if answer is None else {"expected_answer": of_column(answer)})}


def _likely(names: Sequence[str], columns: Sequence[str]) -> str | None:
    lower = {name.lower(): name for name in reversed(columns)}
    return next((lower[name] for name in names if name in lower), None)
