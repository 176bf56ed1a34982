"""distillkit: on-policy distillation of language models.

This is the whole public surface: what runs a config, and all that a plugin needs besides `pydantic` (its options) and
`distillkit.testing` (its tests).
"""

from distillkit.api import arun, check, run
from distillkit.arrays import (
    LOGPROB_ROUNDING,
    Array,
    BoolArray,
    FloatArray,
    IntArray,
    frozen_array,
    logprob_array,
    token_ids,
)
from distillkit.config.run_config import RunConfig
from distillkit.context import RunContext
from distillkit.data.parse_row import parse_messages
from distillkit.data.template_options import parse_template_options
from distillkit.errors import (
    AlignmentError,
    BadStepError,
    ConfigError,
    DataError,
    DistillkitError,
    InputError,
    MissingExtraError,
    PluginError,
    PluginNotFoundError,
    RowError,
    RunFailedError,
    suggest,
)
from distillkit.events import (
    Activity,
    EvalResult,
    EvalStage,
    Evaluated,
    Event,
    Measure,
    Notice,
    NoticeKind,
    PhaseProgress,
    PhaseStarted,
    PolicyFigures,
    RowValue,
    RunFinished,
    RunStarted,
    StepFinished,
)
from distillkit.files.atomic import replacing, write_json
from distillkit.files.redaction import keep_secret, redact
from distillkit.files.strict_json import shortened
from distillkit.frozen import FrozenDict, FrozenList, frozen
from distillkit.hookspecs import hookimpl
from distillkit.memory import DeviceMemory, MemoryPart, MemoryReport, MemoryUse, PlannedDevice
from distillkit.metrics import eval_metrics, finite, mean_over_tokens, reverse_kl, route_order, route_shown, route_slug
from distillkit.positions import READS, NextTokenDivergence, Positions, TokenLoss
from distillkit.preflight.check_result import CheckResult
from distillkit.probe.report import ProbeReport
from distillkit.ranks import Rank
from distillkit.raw_row import MAX_ROW_BYTES, RawRow, RowFile, UnreadableRow, too_long
from distillkit.records import Failure, FinishReason, Rollout, Score, ScoredRollout, ScoreRequest, Weights
from distillkit.registry import Registry
from distillkit.report.report_page import write_report
from distillkit.roles.dataset import Dataset
from distillkit.roles.evaluator import EvalContext, EvalNeed, EvalRequests, Evaluator
from distillkit.roles.loss import Loss
from distillkit.roles.plugin import PENDING_CLEANUP, CheckReport, Leftover, Plugin
from distillkit.roles.prompt_builder import PromptBuilder
from distillkit.roles.router import Router
from distillkit.roles.sampler import Sampler, TokenScorer
from distillkit.roles.scorer import Scorer, ScoresAnew
from distillkit.roles.sink import Sink
from distillkit.roles.student import ComputesLogprobs, MeasuresRouteGradients, Student, token_at
from distillkit.roles.weighting import Weighting
from distillkit.run_directory.result import RunResult
from distillkit.run_plan import Plan
from distillkit.seeds import derive_seed
from distillkit.significant import significant
from distillkit.token_arrays import NO_ID
from distillkit.tokenizer import (
    HasTemplateVariables,
    RendersMany,
    Tokenizer,
    TurnEnds,
    first_difference,
    require_compatible,
    tokenizer_fingerprint,
    unknown_id,
    vocabulary_size,
)
from distillkit.training_data import Batch, Datum, StepResult, TeacherPrompt
from distillkit.types import (
    ChatPrompts,
    Message,
    Messages,
    Prompts,
    Route,
    RoutedRow,
    Row,
    SampleKey,
    SampleRequest,
    SamplingParams,
    Teacher,
)
from distillkit.verdict.run_verdict import Change, DecayWarning, RouteVerdict
from distillkit.verdict.verdict_sentences import Verdict

# Running a config.
__all__ = ["CheckResult", "ProbeReport", "Registry", "RunConfig", "RunResult", "arun", "check", "run", "write_report"]
__all__ += ["Change", "DecayWarning", "RouteVerdict", "Verdict"]

# The roles that a plugin derives from, the hooks that make it known, and what it is given.
__all__ += ["Dataset", "Evaluator", "Loss", "PromptBuilder", "Router", "Sampler", "Scorer", "Sink", "Student"]
__all__ += ["Weighting"]
__all__ += [
    "CheckReport",
    "ComputesLogprobs",
    "MeasuresRouteGradients",
    "EvalContext",
    "EvalNeed",
    "EvalRequests",
    "Plugin",
    "RunContext",
    "ScoresAnew",
    "TokenScorer",
    "hookimpl",
]
__all__ += ["PENDING_CLEANUP", "Leftover"]
__all__ += ["READS", "NextTokenDivergence", "Positions", "TokenLoss"]
__all__ += ["DeviceMemory", "MemoryPart", "MemoryReport", "MemoryUse", "PlannedDevice"]

# The journey of the data: what is asked, and what comes of it.
__all__ += ["MAX_ROW_BYTES", "RawRow", "RowFile", "UnreadableRow", "too_long"]
__all__ += ["ChatPrompts", "Message", "Messages", "Prompts", "Route", "RoutedRow", "Row", "Teacher"]
__all__ += ["parse_messages", "parse_template_options"]
__all__ += ["FinishReason", "Rollout", "SampleKey", "SampleRequest", "SamplingParams", "Score", "ScoreRequest"]
__all__ += ["Batch", "Datum", "Failure", "ScoredRollout", "StepResult", "TeacherPrompt", "Weights", "token_at"]

# What sinks hear, and what evaluators find.
__all__ += ["Activity", "EvalResult", "EvalStage", "Evaluated", "Event", "Measure", "Notice", "NoticeKind"]
__all__ += [
    "PhaseProgress",
    "PhaseStarted",
    "Plan",
    "PolicyFigures",
    "RowValue",
    "RunFinished",
    "RunStarted",
    "StepFinished",
]

# What goes wrong.
__all__ += ["AlignmentError", "BadStepError", "ConfigError", "DataError", "DistillkitError", "InputError"]
__all__ += ["MissingExtraError", "PluginError", "PluginNotFoundError", "RowError", "RunFailedError", "suggest"]

# Arrays and other values that nobody can change.
__all__ += ["LOGPROB_ROUNDING", "NO_ID", "Array", "BoolArray", "FloatArray", "IntArray"]
__all__ += ["FrozenDict", "FrozenList", "frozen", "frozen_array", "logprob_array", "token_ids"]

# Tokenizers.
__all__ += ["HasTemplateVariables", "RendersMany", "Tokenizer", "TurnEnds", "first_difference", "require_compatible"]
__all__ += ["tokenizer_fingerprint", "unknown_id", "vocabulary_size"]

# The numbers of a step and of an evaluation.
__all__ += ["eval_metrics", "finite", "mean_over_tokens", "reverse_kl", "route_order", "route_shown", "route_slug"]

# Seeds, secrets, files and processes.
__all__ += ["Rank", "derive_seed", "keep_secret", "redact", "replacing", "shortened", "significant"]
__all__ += ["write_json"]
