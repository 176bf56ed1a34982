"""What the entry point names: one hook for each role that this distribution has plugins for."""

from collections.abc import Sequence

from distillkit import Dataset, Router, Scorer, Sink, Weighting, hookimpl
from weather_distill.dataset import ReportsDataset
from weather_distill.router import KeywordRouter
from weather_distill.scorer import VowelScorer
from weather_distill.sink import CsvSink
from weather_distill.weighting import DigitsWeighting


@hookimpl
def distillkit_datasets() -> Sequence[type[Dataset]]:
    """`reports`."""
    return [ReportsDataset]


@hookimpl
def distillkit_routers() -> Sequence[type[Router]]:
    """`keyword`."""
    return [KeywordRouter]


@hookimpl
def distillkit_scorers() -> Sequence[type[Scorer]]:
    """`vowels`."""
    return [VowelScorer]


@hookimpl
def distillkit_weightings() -> Sequence[type[Weighting]]:
    """`digits`."""
    return [DigitsWeighting]


@hookimpl
def distillkit_sinks() -> Sequence[type[Sink]]:
    """`csv`."""
    return [CsvSink]
