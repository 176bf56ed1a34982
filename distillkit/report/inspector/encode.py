"""Completions as the page holds them: texts once, in tables; numbers as 16 bits each, in base64.

A completion is an object of short keys, which `inspector-data.js` reads:

    s r w n   indices of its source (run, step, stage), route and row; which of the row's completions
    f         1 where it was cut at the limit
    q p t     indices of texts: question, the student's prompt; pairs of teacher and prompt
    k         tokens: base64 of uint16, indices of the token table
    x         positions of special tokens, where there are any
    m         positions that are not trained, as pairs of first and number
    u v       numbers: logprobs of the student, and of the teacher or the mixture
    o         pairs of teacher and its logprobs, where there are several
    a g e h   numbers: advantages where they are not the gap, weights, entropy, the teacher's rank
    y z       top-K of the student; pairs of teacher and its top-K: [K, tokens, logprobs]
    d         active tokens, the gap's sum, its least value and where that is

Numbers are a base64 text of int16 in thousandths, or [unit, text] where that is too coarse or too narrow, or one number
for all; -32768 is not known.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from pydantic import JsonValue

from distillkit.arrays import Array, FloatArray
from distillkit.report.inspector.completion import Completion, TopK
from distillkit.report.inspector.recorded import Place
from distillkit.report.route_names import RouteNames

T = TypeVar("T")

UNIT = 0.001
"""Nats: what logprobs are rounded to."""
LARGEST = 32767
UNKNOWN = -32768
MOST_TEXTS = 65536
"""Of the token table, whose indices have 16 bits."""
TOPK_SHOWN = 5
SMALL_ENOUGH = 0.002
"""Nats by which an advantage may be off the gap for both to be one number: twice what rounding makes."""


BYTES_A_NUMBER = 8 / 3
"""16 bits in base64."""


@dataclass(slots=True)
class Table:
    """Texts, each once; its size in a page."""

    texts: dict[str, int] = field(default_factory=dict)
    bytes: int = 0

    def index(self, text: str) -> int:
        """Where the text stands."""
        if text not in self.texts:
            self.texts[text] = len(self.texts)
            self.bytes += size_of(text) + 1
        return self.texts[text]


@dataclass(slots=True)
class Encoder:
    """What goes into the page; its tables grow with it."""

    run_names: Sequence[str]
    called: Sequence[RouteNames]
    """By run: how people read its routes and teachers."""
    tokens: Table = field(default_factory=Table)
    texts: Table = field(default_factory=Table)
    rows: Table = field(default_factory=Table)
    routes: Table = field(default_factory=Table)
    teachers: Table = field(default_factory=Table)
    sources: dict[tuple[int, int, str], int] = field(default_factory=dict)
    completions: dict[Place, JsonValue] = field(default_factory=dict)
    bytes: int = 0
    """Of `completions`."""

    @property
    def size(self) -> int:
        """Bytes of all that is held, about."""
        tables = (self.tokens, self.texts, self.rows, self.routes, self.teachers)
        return self.bytes + sum(table.bytes for table in tables) + 24 * len(self.sources)

    def add(self, place: Place, completion: Completion, room: int) -> bool:
        """Add a completion if it fits into `room` bytes, about; whether it did."""
        new = _token_texts(completion) - self.tokens.texts.keys()
        texts = {completion.prompt, completion.question, *completion.teacher_prompts.values()} - self.texts.texts.keys()
        tables = len(completion.teacher_topk) + (completion.student_topk is not None)
        numbers = len(completion.tokens) * (3 + tables * 2 * TOPK_SHOWN)
        about = numbers * BYTES_A_NUMBER + sum(map(size_of, texts | new))
        if len(self.tokens.texts) + len(new) > MOST_TEXTS or about > room:
            return False
        made = self._made(place, completion)
        self.completions[place] = made
        self.bytes += size_of(made) + 1
        return True

    def _made(self, place: Place, completion: Completion) -> dict[str, JsonValue]:
        source, called = (place.run, place.step, place.stage), self.called[place.run]
        gap, of = completion.gap, completion
        known = np.where(np.isfinite(gap), gap, 0.0)
        lowest = int(known.argmin())
        found: dict[str, JsonValue] = {
            "s": self.sources.setdefault(source, len(self.sources)),
            "r": self.routes.index(called.shown_label(of.route)),
            "w": self.rows.index(of.row_id),
            "n": of.sample,
            "f": int(of.finish_reason == "length"),
            "q": self.texts.index(of.question),
            "p": self.texts.index(of.prompt),
            "t": [
                [self.teachers.index(called.shown_label(name)), self.texts.index(text)]
                for name, text in of.teacher_prompts.items()
            ],
            "k": self._tokens(of.tokens),
            "u": packed(np.where(of.active, of.student, np.nan)),
            "v": packed(np.where(of.active, of.teacher, np.nan)),
            "d": [int(of.active.sum()), round(float(known.sum()), 3), round(float(known[lowest]), 3), lowest],
        }
        return found | self._where_there(of, called)

    def _where_there(self, of: Completion, called: RouteNames) -> dict[str, JsonValue]:
        found: dict[str, JsonValue] = {}

        def by_teacher(values: Mapping[str, T], made: Callable[[T], JsonValue]) -> JsonValue:
            return [[self.teachers.index(called.shown_label(name)), made(value)] for name, value in values.items()]

        if of.special:
            found["x"] = [*sorted(of.special)]
        if not of.active.all():
            found["m"] = _stretches(~of.active)
        if len(of.teachers) > 1:
            found["o"] = by_teacher(of.teachers, packed)
        if of.advantages is not None and not _same(of.advantages, of.gap):
            found["a"] = packed(of.advantages)
        for key, values in (("g", of.weights), ("e", of.entropy), ("h", of.ranks)):
            if values is not None:
                found[key] = packed(values, whole=key == "h")
        if of.student_topk is not None:
            found["y"] = self._topk(of.student_topk)
        if of.teacher_topk:
            found["z"] = by_teacher(of.teacher_topk, self._topk)
        return found

    def _topk(self, table: TopK) -> list[JsonValue]:
        tokens, logprobs = table
        wide = min(TOPK_SHOWN, max(map(len, tokens)))
        texts = [text for row in tokens for text in (*row[:wide], *[""] * (wide - len(row)))]
        numbers = [x for row in logprobs for x in (*row[:wide], *[None] * (wide - len(row)))]
        return [wide, self._tokens(texts), packed(np.array([np.nan if x is None else x for x in numbers]))]

    def _tokens(self, tokens: Sequence[str]) -> str:
        return _base64(np.array([self.tokens.index(token) for token in tokens], dtype="<u2"))

    def places(self) -> dict[Place, int]:
        """Where in the page's list each completion is: as they were recorded."""
        ordered = sorted(self.completions, key=lambda place: (place.run, place.offset))
        return {place: at for at, place in enumerate(ordered)}

    def data(self) -> dict[str, JsonValue]:
        """What the page's script reads."""
        return {
            "runs": list(self.run_names),
            "sources": [list(source) for source in self.sources],
            "tokens": [*self.tokens.texts],
            "texts": [*self.texts.texts],
            "rows": [*self.rows.texts],
            "routes": [*self.routes.texts],
            "teachers": [*self.teachers.texts],
            "completions": [self.completions[place] for place in self.places()],
        }


def _token_texts(completion: Completion) -> set[str]:
    """All texts that the token table needs for a completion."""
    found = {*completion.tokens, ""}
    for tokens, _ in (*completion.teacher_topk.values(), *filter(None, [completion.student_topk])):
        found.update(text for row in tokens for text in row[:TOPK_SHOWN])
    return found


def packed(values: FloatArray, *, whole: bool = False) -> JsonValue:
    """Numbers as the module describes them; `whole`: counts, whose unit is 1."""
    finite = np.isfinite(values)
    if not finite.any():
        return None
    known = values[finite]
    if finite.all() and (known == known[0]).all():
        return float(f"{known[0]:.5g}")
    largest = float(np.abs(known).max())
    unit = 1.0 if whole else UNIT if 1.0 <= largest <= LARGEST * UNIT else float(f"{largest / LARGEST:.3g}") * 1.001
    numbers = np.where(finite, np.clip(np.round(np.where(finite, values, 0) / unit), -LARGEST, LARGEST), UNKNOWN)
    text = _base64(numbers.astype("<i2"))
    return text if unit == UNIT else [unit, text]


def size_of(value: Mapping[str, JsonValue] | JsonValue) -> int:
    """Bytes of a value in the page; what is escaped there counts as that."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return len(text.encode("utf-8", errors="backslashreplace")) + 5 * sum(map(text.count, "<>&"))


def _base64(array: Array) -> str:
    return base64.b64encode(array.tobytes()).decode()


def _same(values: FloatArray, others: FloatArray) -> bool:
    known = np.isfinite(values) & np.isfinite(others)
    return bool((np.abs(values[known] - others[known]) < SMALL_ENOUGH).all())


def _stretches(marked: Array) -> list[JsonValue]:
    """Pairs of first position and length, one after the other."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], marked.astype(np.int8), [0]])))
    return [int(x) for low, high in edges.reshape(-1, 2) for x in (low, high - low)]
