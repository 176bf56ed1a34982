"""A row's teachers asked for one completion as the engine asks them: once, or again for the union of their top-K."""

from collections.abc import Callable, Sequence

from distillkit.loop.wanted import Wanted, both_rounds
from distillkit.records import Score, ScoreRequest
from distillkit.types import Route


def ask_as_wanted(
    wanted: Wanted, route: Route, requests: Sequence[ScoreRequest], answer: Callable[[ScoreRequest], Score]
) -> dict[str, Score]:
    """Teacher name to score, of `requests` without what is wanted; `answer` gives a score with what its request has."""
    scores = [answer(wanted.first(request, route)) for request in requests]
    if wanted.unites(route):
        again = [answer(request) for request in wanted.second(scores)]
        scores = [both_rounds(first, second) for first, second in zip(scores, again, strict=True)]
    return {score.request.teacher: score for score in scores}
