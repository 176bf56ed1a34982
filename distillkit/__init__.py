"""distillkit: on-policy distillation of language models. This is the whole public surface."""

from distillkit.api import RunResult, arun, run
from distillkit.config.run_config import RunConfig
from distillkit.errors import DistillkitError
from distillkit.hookspecs import hookimpl
from distillkit.registry import Registry
from distillkit.roles.roles import (
    EvalContext,
    Evaluator,
    Loss,
    PromptBuilder,
    Router,
    Sampler,
    Scorer,
    Sink,
    Student,
)

__all__ = [
    "DistillkitError",
    "EvalContext",
    "Evaluator",
    "Loss",
    "PromptBuilder",
    "Registry",
    "Router",
    "RunConfig",
    "RunResult",
    "Sampler",
    "Scorer",
    "Sink",
    "Student",
    "arun",
    "hookimpl",
    "run",
]
