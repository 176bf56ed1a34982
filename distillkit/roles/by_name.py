"""The roles by the name that hooks and configs call them, in the order of the design."""

from collections.abc import Mapping

from distillkit.roles.dataset import Dataset
from distillkit.roles.evaluator import Evaluator
from distillkit.roles.loss import Loss
from distillkit.roles.plugin import Plugin
from distillkit.roles.prompt_builder import PromptBuilder
from distillkit.roles.router import Router
from distillkit.roles.sampler import Sampler
from distillkit.roles.scorer import Scorer
from distillkit.roles.sink import Sink
from distillkit.roles.student import Student
from distillkit.roles.weighting import Weighting

ROLES: Mapping[str, type[Plugin]] = {
    role.role: role
    for role in (Dataset, Router, PromptBuilder, Student, Sampler, Scorer, Loss, Weighting, Evaluator, Sink)
}
