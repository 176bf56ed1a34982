"""Rows that are the same as others: twice in the training data, or held out and trained on all the same."""

from array import array
from collections.abc import Mapping

import numpy as np
from pydantic import JsonValue

from distillkit.arrays import IntArray
from distillkit.data.counted import counted
from distillkit.data.indexed_rows import IndexedRows
from distillkit.types import Messages, RoutedRow


class RowHashes:
    """64 bits of what is made of each row, in the order in which rows were added: 16 bytes a row.

    Of a million different rows two would have the same by chance in one dataset of forty million.
    """

    def __init__(self) -> None:
        """No rows so far."""
        self._students, self._rows = array("q"), array("q")

    def add(self, routed_row: RoutedRow) -> None:
        """Add one more row."""
        chat, options = routed_row.chat, routed_row.chat.template_options
        student = _hash(chat.student, options)
        teachers = [
            (name, weight, student if chat.teachers[name] is chat.student else _hash(chat.teachers[name], options))
            for name, weight in routed_row.route.weights.items()
        ]
        self._students.append(student)
        self._rows.append(hash((student, *teachers)))

    @property
    def students(self) -> IntArray:
        """[N] of what the student reads."""
        return np.array(self._students, dtype=np.int64)

    @property
    def rows(self) -> IntArray:
        """[N] of what the student and its teachers read, and who these are."""
        return np.array(self._rows, dtype=np.int64)


def _hash(messages: Messages, options: Mapping[str, JsonValue]) -> int:
    """Of this process alone: hashes of texts begin elsewhere in another."""
    parts = [(message.role, message.content, repr(message.extra) if message.extra else "") for message in messages]
    return hash((*parts, repr(options) if options else ""))


def repeated_rows(hashes: RowHashes, rows: IndexedRows) -> list[str]:
    """A note on rows that are the same as an earlier one, if there are any."""
    found = hashes.rows
    order = np.argsort(found, kind="stable")
    later = order[1:][found[order[1:]] == found[order[:-1]]]
    if not len(later):
        return []
    example = int(later.min())
    first = int(np.argmax(found == found[example]))
    return [
        f"{counted(len(later), 'row')} {'is' if len(later) == 1 else 'are'} the same as an earlier row to student and "
        f"teachers, such as {rows.place_of(example)} and {rows.place_of(first)}; they count as often as they stand "
        "there; take them out if that is not meant"
    ]


def trained_held_out_rows(
    hashes: RowHashes, rows: IndexedRows, held_out_hashes: RowHashes, held_out: IndexedRows
) -> list[str]:
    """A note on held-out rows whose prompt the student is trained on, if there are any."""
    ours, theirs = hashes.students, held_out_hashes.students
    shared = np.flatnonzero(np.isin(theirs, ours))
    if not len(shared):
        return []
    example = int(shared[0])
    where = f"{held_out.place_of(example)} and {rows.place_of(int(np.argmax(ours == theirs[example])))}"
    return [
        f"{len(shared):,} of {counted(len(theirs), 'held-out row')} {'has' if len(shared) == 1 else 'have'} a prompt "
        f"that the student is trained on too, such as {where}: what is measured on them says nothing of other prompts; "
        "take them out of the one or the other"
    ]
