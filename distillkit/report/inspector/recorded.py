"""All completions that runs recorded: where each stands in its file, read once, and again where it is shown."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distillkit.files.jsonl import LONGEST_LINE, lines_from
from distillkit.report.inspector.completion import Completion, Stage, completion_of

UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a completion is, and what it is of."""

    run: int
    """Which of the runs, from 0."""
    offset: int
    """Bytes before its line."""
    route: str
    step: int
    stage: Stage
    row_id: str
    sample: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the files hold."""

    places: Sequence[Place]
    """In the files' order."""
    damaged: int
    """Lines that are no completion: cut off, or not as a run writes them."""


@dataclass(slots=True)
class SamplesFile:
    """One `samples.jsonl`, of which each call reads what has come since the last."""

    run: int
    path: Path
    places: list[Place] = field(default_factory=list)
    damaged: int = 0
    cut_off: int = 0
    """1 where the last line has no end yet."""
    _end: int = 0
    """Of the last whole line that was read."""
    _last: tuple[int, bytes] | None = None
    """Where that line begins, and its digest."""

    def is_continued(self) -> bool:
        """Whether what was read stands there still: a resume cuts the file, and may write other lines."""
        if self._last is None:
            return self._end == 0
        try:
            offset, line = next(lines_from(self.path, self._last[0]), (0, b""))
        except OSError:
            return False
        return offset + len(line) >= self._end and _digest(line) == self._last[1]

    def read_on(self, look: Callable[[Place, Completion], None]) -> None:
        """Call `look` with each completion that is new. Raises OSError for a file that is there and cannot be read."""
        self.cut_off = 0
        if not self.path.exists():
            return
        for offset, line in lines_from(self.path, self._end):
            if not line.endswith(b"\n"):
                self.cut_off = 1
                continue
            self._end, self._last = offset + len(line), (offset, _digest(line))
            completion = _completion(line)
            if completion is None:
                self.damaged += 1
                continue
            of = completion
            place = Place(self.run, offset, of.route, of.step, of.stage, of.row_id, of.sample)
            self.places.append(place)
            look(place, completion)


def _digest(line: bytes) -> bytes:
    return hashlib.sha256(line).digest()


def read_again(files: Sequence[Path], places: Iterable[Place]) -> Iterator[tuple[Place, Completion]]:
    """These completions, in this order, but for those whose file has changed meanwhile."""
    for place in places:
        try:
            with files[place.run].open("rb") as file:
                file.seek(place.offset)
                completion = _completion(file.readline(LONGEST_LINE))
        except OSError:
            continue
        if completion is not None:
            yield place, completion


def _completion(line: bytes) -> Completion | None:
    try:
        return completion_of(json.loads(line))
    except UNREADABLE:
        return None
