"""The built-in plugins, made known through the very hooks that strangers use. Imports nothing heavy."""

from collections.abc import Sequence

from distillkit import (
    Dataset,
    Evaluator,
    Loss,
    PromptBuilder,
    Router,
    Sampler,
    Scorer,
    Sink,
    Student,
    Weighting,
    hookimpl,
)
from distillkit_builtin.datasets.files import FilesDataset
from distillkit_builtin.datasets.hf import HuggingFaceDataset
from distillkit_builtin.evaluators.exact_match import ExactMatch
from distillkit_builtin.evaluators.pattern import Pattern
from distillkit_builtin.evaluators.reverse_kl import ReverseKL
from distillkit_builtin.evaluators.teacher_trace import TeacherTrace
from distillkit_builtin.fireworks.scorer import FireworksScorer
from distillkit_builtin.fireworks.student import FireworksStudent
from distillkit_builtin.http.scorer import HttpScorer
from distillkit_builtin.local.scorer import LocalScorer
from distillkit_builtin.local.student import LocalStudent
from distillkit_builtin.losses.divergence import Divergence
from distillkit_builtin.losses.entropy_aware import EntropyAware
from distillkit_builtin.losses.importance_sampling import ImportanceSampling
from distillkit_builtin.losses.topk_cross_entropy import TopkCrossEntropy
from distillkit_builtin.prompts import MessagesPrompts
from distillkit_builtin.routers import AllRouter, FieldRouter, SingleRouter
from distillkit_builtin.sglang.sampler import SGLangSampler
from distillkit_builtin.sinks.console import ConsoleSink
from distillkit_builtin.sinks.csv_file import CsvSink
from distillkit_builtin.sinks.mlflow import MlflowSink
from distillkit_builtin.sinks.report import ReportSink
from distillkit_builtin.sinks.tensorboard import TensorboardSink
from distillkit_builtin.sinks.trackio import TrackioSink
from distillkit_builtin.sinks.wandb import WandbSink
from distillkit_builtin.tinker.scorer import TinkerScorer
from distillkit_builtin.tinker.student import TinkerStudent
from distillkit_builtin.vllm.sampler import VllmSampler
from distillkit_builtin.weightings.entropy import Entropy
from distillkit_builtin.weightings.position import Position
from distillkit_builtin.weightings.repetition import Repetition
from distillkit_builtin.weightings.skip_first import SkipFirst
from distillkit_builtin.weightings.special_tokens import SpecialTokens
from distillkit_builtin.weightings.truncated import Truncated


@hookimpl
def distillkit_datasets() -> Sequence[type[Dataset]]:
    """`files` and `hf`."""
    return [FilesDataset, HuggingFaceDataset]


@hookimpl
def distillkit_routers() -> Sequence[type[Router]]:
    """`field`, `single` and `all`."""
    return [FieldRouter, SingleRouter, AllRouter]


@hookimpl
def distillkit_prompt_builders() -> Sequence[type[PromptBuilder]]:
    """`messages`."""
    return [MessagesPrompts]


@hookimpl
def distillkit_students() -> Sequence[type[Student]]:
    """`local`, `fireworks` and `tinker`."""
    return [LocalStudent, FireworksStudent, TinkerStudent]


@hookimpl
def distillkit_samplers() -> Sequence[type[Sampler]]:
    """`vllm` and `sglang`; students sample by themselves."""
    return [VllmSampler, SGLangSampler]


@hookimpl
def distillkit_scorers() -> Sequence[type[Scorer]]:
    """`local`, `http`, `fireworks` and `tinker`."""
    return [LocalScorer, HttpScorer, FireworksScorer, TinkerScorer]


@hookimpl
def distillkit_losses() -> Sequence[type[Loss]]:
    """`importance_sampling`, `divergence`, `entropy_aware` and `topk_cross_entropy`."""
    return [ImportanceSampling, Divergence, EntropyAware, TopkCrossEntropy]


@hookimpl
def distillkit_weightings() -> Sequence[type[Weighting]]:
    """`position`, `entropy`, `skip_first`, `special_tokens`, `repetition` and `truncated`."""
    return [Position, Entropy, SkipFirst, SpecialTokens, Repetition, Truncated]


@hookimpl
def distillkit_evaluators() -> Sequence[type[Evaluator]]:
    """`reverse_kl`, `exact_match`, `pattern` and `teacher_trace`."""
    return [ReverseKL, ExactMatch, Pattern, TeacherTrace]


@hookimpl
def distillkit_sinks() -> Sequence[type[Sink]]:
    """The terminal, the report, and trackers."""
    return [ConsoleSink, ReportSink, CsvSink, MlflowSink, TensorboardSink, TrackioSink, WandbSink]
