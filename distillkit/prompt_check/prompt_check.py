"""Rows whose prompt is not what they say: parts left out, texts that become special tokens, empty questions."""

from collections import Counter
from collections.abc import Mapping

from distillkit.data.counted import counted
from distillkit.data.render import Reader, Renderer
from distillkit.errors import RowError
from distillkit.prompt_check.special_texts import SpecialTexts
from distillkit.prompt_check.unprinted_parts import UnprintedParts
from distillkit.types import Messages, RoutedRow


class PromptCheck:
    """Looks at rows that can be rendered, and remembers what is to be said of them all."""

    def __init__(self, renderer: Renderer) -> None:
        """Nothing was found so far."""
        self._readers: Mapping[str, Reader] = {
            name: renderer.first_alike(side) for name, side in renderer.teachers.items()
        }
        readers = {None, *self._readers.values()}
        self._unprinted = {reader: UnprintedParts(renderer.side(reader)) for reader in readers}
        self._special = {reader: SpecialTexts(renderer.side(reader).tokenizer) for reader in readers}
        self._rows: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def problem(self, routed_row: RoutedRow) -> RowError | None:
        """A part without which a prompt is another one, and which is not in it."""
        chat = routed_row.chat
        problem = self._look(routed_row, None, "the student", chat.student)
        for name, messages in chat.teachers.items():
            reader = self._readers[name]
            if reader is not None or messages is not chat.student:
                problem = problem or self._look(routed_row, reader, f"teacher {name!r}", messages)
        return problem

    def _look(self, routed_row: RoutedRow, reader: Reader, who: str, messages: Messages) -> RowError | None:
        options, place = routed_row.chat.template_options, routed_row.row.place
        special = self._special[reader].first_in(messages, options)
        if special is not None:
            said = f"a text is that of a special token, and becomes it in the prompt of {who}"
            self._count(said, f"{special!r} at {place}")
        asks = [message for message in messages if message.role in ("user", "tool")]
        if not asks:
            self._count(f"no user's turn is in what {who} reads", place)
        elif asks[-1].role == "user" and not asks[-1].content.strip():
            self._count(f"the last user's turn that {who} reads has no text", place)
        unprinted = self._unprinted[reader].of(messages, options)
        for kind in unprinted.left_out:
            self._count(f"the chat template of {who} leaves out {kind}", place)
        part = unprinted.needed
        if part is None:
            return None
        field = "messages" if messages is routed_row.chat.student else "teacher prompt"
        return RowError(
            f"{field}{part.place}" if part.place.startswith("[") else part.place,
            f"is not in the prompt of {who}, whose chat template leaves out {part.kind}; choose a model whose template "
            f"prints it, or {'write it under another role' if part.place.endswith('content') else 'take it out'}",
        )

    def _count(self, said: str, where: str) -> None:
        self._rows[said] += 1
        self._first.setdefault(said, where)

    def notes(self, of: str) -> list[str]:
        """What was found of how many rows, and where first."""
        return [
            f"{said}, in {counted(count, of)} (first: {self._first[said]})"
            for said, count in sorted(self._rows.items())
        ]
