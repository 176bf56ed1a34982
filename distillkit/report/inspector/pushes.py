"""Where a teacher pushes a student, added up: which tokens it makes more and less probable, over all completions.

A token's push is its advantage, or the gap of its logprobs where no advantage is recorded. What is summed is that of
the training completions; of runs that recorded none, that of the evaluations.
"""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from distillkit.report.inspector.completion import Completion
from distillkit.report.inspector.recorded import Place

FIRST = 10
"""Tokens that are called the beginning of a completion."""
EXAMPLES = 3
"""Kept of each token, with the largest push."""
ROUNDING = 0.001
"""Nats a token: teacher and student that are one model differ by less, in float32."""
SHOWN = 8
"""Tokens a route and direction."""
BEFORE, AFTER = 8, 4
"""Tokens around an example."""


@dataclass(frozen=True, slots=True)
class Example:
    """One place where a token was pushed."""

    place: Place
    position: int
    push: float
    before: str
    """The text before the token."""
    after: str


@dataclass(slots=True)
class TokenPush:
    """What is pushed at one token, wherever it was sampled."""

    text: str
    total: float = 0.0
    """Nats times the advantages' scale."""
    count: int = 0
    """How often it was sampled."""
    examples: list[tuple[float, int, Example]] = field(default_factory=list)
    """A heap: the least push first."""
    least: float = 0.0
    """The size that a push has to exceed to be an example."""

    def keep(self, size: float, number: int, example: Example) -> None:
        """Keep an example, in the place of the least where there are enough."""
        entry = (size, number, example)
        (heapq.heappush if len(self.examples) < EXAMPLES else heapq.heapreplace)(self.examples, entry)
        if len(self.examples) == EXAMPLES:
            self.least = self.examples[0][0]

    @property
    def best_examples(self) -> list[Example]:
        """Those in the direction of the total, the largest first."""
        found = (example for *_, example in sorted(self.examples, key=lambda each: -each[0]))
        return [example for example in found if example.push * self.total > 0]


@dataclass(slots=True)
class RoutePushes:
    """The pushes of one run's route."""

    run: int
    route: str
    tokens: dict[str, TokenPush] = field(default_factory=dict)
    completions: int = 0
    cut: int = 0
    """Completions that the limit ended."""
    places: int = 0
    """Tokens that count."""
    size: float = 0.0
    """The sum of all pushes' magnitudes."""
    first_places: int = 0
    """Those among the first tokens of completions."""
    at_first: float = 0.0
    """The part of `size` in the first tokens of completions."""
    down: float = 0.0
    """The sum of all negative pushes."""

    @property
    def is_still(self) -> bool:
        """Whether what is pushed is no more than rounding."""
        return self.size <= ROUNDING * self.places

    def most(self, sign: int, count: int = SHOWN) -> list[TokenPush]:
        """The tokens that are pushed most in one direction (1: up, -1: down)."""
        found = [token for token in self.tokens.values() if sign * token.total > 0]
        return heapq.nlargest(count, found, key=lambda token: abs(token.total))


@dataclass(slots=True)
class Pushes:
    """The pushes of all routes, from completions that are added one by one."""

    routes: dict[tuple[bool, int, str], RoutePushes] = field(default_factory=dict)
    """By whether it is training, run and route."""
    _added: int = 0

    def add(self, place: Place, completion: Completion) -> None:
        """Count what one completion's tokens were pushed."""
        key = (place.stage == "train", place.run, place.route)
        pushes = self.routes.setdefault(key, RoutePushes(place.run, place.route))
        values = np.nan_to_num(completion.push, nan=0.0, posinf=0.0, neginf=0.0)
        pushes.completions += 1
        pushes.cut += completion.finish_reason == "length"
        pushes.places += int(completion.active.sum())
        pushes.first_places += int(completion.active[:FIRST].sum())
        pushes.size += float(np.abs(values).sum())
        pushes.at_first += float(np.abs(values[:FIRST]).sum())
        pushes.down += float(values[values < 0].sum())
        self._count(pushes.tokens, place, completion, values.tolist())

    def _count(
        self, tokens: dict[str, TokenPush], place: Place, completion: Completion, values: Sequence[float]
    ) -> None:
        """Add each active token's push to what the token had; files of 100 MB have two million of them."""
        active = completion.active.tolist()
        for position, (text, push, counts) in enumerate(zip(completion.tokens, values, active, strict=True)):
            if not counts:
                continue
            token = tokens.get(text)
            if token is None:
                token = tokens[text] = TokenPush(text)
            token.total += push
            token.count += 1
            if abs(push) > token.least:
                self._added += 1  # so that no two examples are compared with each other
                token.keep(abs(push), self._added, _example(place, completion, position, push))

    def told(self) -> list[RoutePushes]:
        """A run's routes as trained; of a run without training completions, as evaluated."""
        trained = {run for training, run, _ in self.routes if training}
        return [pushes for (training, run, _), pushes in self.routes.items() if training == (run in trained)]


def examples_of(routes: Sequence[RoutePushes]) -> Iterable[Place]:
    """Where the examples of the tokens that are shown stand: the best of each token first."""
    shown = [token for pushes in routes for sign in (1, -1) for token in pushes.most(sign)]
    for rank in range(EXAMPLES):
        for token in shown:
            yield from (example.place for example in token.best_examples[rank : rank + 1])


def _example(place: Place, completion: Completion, position: int, push: float) -> Example:
    tokens = completion.tokens
    before = "".join(tokens[max(0, position - BEFORE) : position])
    return Example(place, position, push, before, "".join(tokens[position + 1 : position + 1 + AFTER]))
