"""Scorers `fireworks` that are open, and what they say of one response."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from distillkit.arrays import token_ids
from distillkit.records import Failure, Score, ScoreRequest
from distillkit.testing import make_context, make_rollout
from distillkit_builtin.fireworks.scorer import FireworksScorer

PROMPT = [1, 70, 71, 72]
RESPONSE = [80, 81, 82, 83, 84]


@asynccontextmanager
async def opened(plugin: FireworksScorer) -> AsyncIterator[FireworksScorer]:
    context = make_context()
    plugin.declare(context)
    plugin.check(context)
    try:
        await plugin.open(context)
        yield plugin
    finally:
        await plugin.close()


async def score(plugin: FireworksScorer, count: int = 1) -> list[Score | Failure]:
    requests = [ScoreRequest(make_rollout(RESPONSE, sample=i), "teacher", token_ids(PROMPT)) for i in range(count)]
    async with opened(plugin):
        return [outcome async for outcome in plugin.score(requests)]
