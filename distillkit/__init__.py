"""distillkit: on-policy distillation of language models. This is the whole public surface."""

from distillkit.api import arun, run
from distillkit.config.run_config import RunConfig
from distillkit.errors import DistillkitError
from distillkit.hookspecs import hookimpl
from distillkit.registry import Registry
from distillkit.roles.evaluator import EvalContext, Evaluator
from distillkit.roles.loss import Loss
from distillkit.roles.prompt_builder import PromptBuilder
from distillkit.roles.router import Router
from distillkit.roles.sampler import Sampler
from distillkit.roles.scorer import Scorer
from distillkit.roles.sink import Sink
from distillkit.roles.student import Student
from distillkit.run_directory.result import RunResult

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
