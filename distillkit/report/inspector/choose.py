"""In which order completions are put into a page until it is full.

First whole evaluations: of each held-out row what was written before and after, so that no half of a pair is missing.
Then the examples that the page points to. Then the others, in turn over runs and routes, and of each first those that
are furthest apart in training: the first, the last, the middle, and so on.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import TypeVar

from distillkit.report.inspector.recorded import Place

T = TypeVar("T")


def in_order_of_choice(places: Sequence[Place], examples: Iterable[Place]) -> Iterator[Place]:
    """Every place once."""
    first_and_last = _edges(places)
    pairs = _by_group([place for place in places if (place.run, place.step, place.stage) in first_and_last])
    others = (_spread(group) for group in _groups(places))
    seen: set[Place] = set()
    for place in (*pairs, *examples, *_in_turn(others)):
        if place not in seen:
            seen.add(place)
            yield place


def _edges(places: Sequence[Place]) -> set[tuple[int, int, str]]:
    """The first and the last evaluation of each run."""
    evaluations: dict[int, list[tuple[int, int, str]]] = {}
    for place in places:
        if place.stage != "train":
            evaluations.setdefault(place.run, []).append((place.run, place.step, place.stage))
    return {each for found in evaluations.values() for each in (found[0], found[-1])}


def _by_group(places: Sequence[Place]) -> Iterator[Place]:
    """Held-out completions, those of a row together, routes in turn."""
    routes: dict[tuple[int, str], dict[str, list[Place]]] = {}
    for place in places:
        routes.setdefault((place.run, place.route), {}).setdefault(place.row_id, []).append(place)
    for rows in _in_turn(list(rows.values()) for rows in routes.values()):
        yield from rows


def _groups(places: Sequence[Place]) -> Iterator[list[Place]]:
    found: dict[tuple[int, str], list[Place]] = {}
    for place in places:
        found.setdefault((place.run, place.route), []).append(place)
    yield from found.values()


def _in_turn(groups: Iterable[Iterable[T]]) -> Iterator[T]:
    nothing = object()
    for turn in zip_longest(*groups, fillvalue=nothing):
        yield from (each for each in turn if each is not nothing)  # type: ignore[misc]  # what is left is of type T


def _spread(places: Sequence[Place]) -> list[Place]:
    """The first, the last, then whatever lies in the middle of the largest part not yet taken, and so on."""
    if len(places) <= 2:
        return list(places)
    order, halves = [0, len(places) - 1], [(0, len(places) - 1)]
    while halves:
        halves, parts = [], halves
        for low, high in parts:
            if high - low > 1:
                middle = (low + high) // 2
                order.append(middle)
                halves += [(low, middle), (middle, high)]
    return [places[at] for at in order]
