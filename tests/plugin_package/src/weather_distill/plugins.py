"""What the entry point names: one hook for each role that this distribution has plugins for."""

from collections.abc import Sequence

from distillkit import Router, Scorer, Sink, hookimpl
from weather_distill.router import KeywordRouter
from weather_distill.scorer import VowelScorer
from weather_distill.sink import CsvSink


@hookimpl
def distillkit_routers() -> Sequence[type[Router]]:
    """`keyword`."""
    return [KeywordRouter]


@hookimpl
def distillkit_scorers() -> Sequence[type[Scorer]]:
    """`vowels`."""
    return [VowelScorer]


@hookimpl
def distillkit_sinks() -> Sequence[type[Sink]]:
    """`csv`."""
    return [CsvSink]
