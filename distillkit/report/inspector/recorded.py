"""All completions that runs recorded: where each stands in its file, read once, and again where it is shown."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

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


def read_recorded(files: Sequence[Path], look: Callable[[Place, Completion], None]) -> Recorded:
    """Where the completions of `samples.jsonl` of each run are; `look` is called with each. A file may be missing."""
    places: list[Place] = []
    damaged = 0
    for run, path in enumerate(files):
        for offset, line in _lines(path):
            completion = _completion(line)
            if completion is None:
                damaged += 1
                continue
            of = completion
            place = Place(run, offset, of.route, of.step, of.stage, of.row_id, of.sample)
            places.append(place)
            look(place, completion)
    return Recorded(places, damaged)


def read_again(files: Sequence[Path], places: Iterable[Place]) -> Iterator[tuple[Place, Completion]]:
    """These completions, in this order, but for those whose file has changed meanwhile."""
    for place in places:
        try:
            with files[place.run].open("rb") as file:
                file.seek(place.offset)
                completion = _completion(file.readline())
        except OSError:
            continue
        if completion is not None:
            yield place, completion


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    offset = 0
    try:
        with path.open("rb") as file:
            for line in file:
                yield offset, line
                offset += len(line)
    except FileNotFoundError:
        return


def _completion(line: bytes) -> Completion | None:
    try:
        return completion_of(json.loads(line))
    except UNREADABLE:
        return None
