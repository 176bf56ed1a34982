"""Scorer `tinker` on a stand-in of the SDK: what its tests share."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, ClassVar

from builtin.http.serving import outcomes, score_requests
from builtin.tinker.fake_sdk import FakeServer
from distillkit.context import RunContext
from distillkit.records import Failure, Score
from distillkit.testing import ByteTokenizer, make_context, make_teacher
from distillkit.tokenizer import Tokenizer
from distillkit_builtin.tinker.scorer import TinkerScorer

MODEL, ROOT, SAVED = "test/model", "http://tinker.test", "tinker://run-1/sampler_weights/best"
Fake = Callable[..., FakeServer]


class ByteScorer(TinkerScorer):
    """Of a model whose tokens are bytes."""

    name: ClassVar[str] = "tinker_bytes"

    def tokenizer(self, run: RunContext) -> Tokenizer:
        return run.share("byte tokenizer", ByteTokenizer)


def scorer(model: str = MODEL, name: str = "teacher", tokenizer_model: str | None = None, **options: Any) -> ByteScorer:
    plugin = ByteScorer(**{"base_url": ROOT, **options})
    plugin.bind(make_teacher(name, model=model, tokenizer_model=tokenizer_model))
    return plugin


@asynccontextmanager
async def opened(*plugins: Any, run: RunContext | None = None) -> AsyncIterator[Any]:
    run = run or make_context()
    runs = [replace(run, user=f"{run.user} {i}") for i in range(len(plugins))]
    for plugin, own in zip(plugins, runs, strict=True):
        plugin.check(own)
    try:
        for plugin, own in zip(plugins, runs, strict=True):
            await plugin.open(own)
        yield plugins[0]
    finally:
        for plugin, own in zip(plugins, runs, strict=True):
            await plugin.close()
            await own.shared.release(own.user)


async def scores(plugin: Any, run: RunContext | None = None, **asked: Any) -> list[Score | Failure]:
    async with opened(plugin, run=run):
        return await outcomes(plugin, score_requests(**asked))
