"""One hook a role. A distribution implements those it has plugins for, and names its module as an entry point.

```toml
[project.entry-points.distillkit]
my_plugins = "my_package.plugins"
```
"""

from collections.abc import Sequence

import pluggy

from distillkit.roles.dataset import Dataset
from distillkit.roles.evaluator import Evaluator
from distillkit.roles.loss import Loss
from distillkit.roles.prompt_builder import PromptBuilder
from distillkit.roles.router import Router
from distillkit.roles.sampler import Sampler
from distillkit.roles.scorer import Scorer
from distillkit.roles.sink import Sink
from distillkit.roles.student import Student
from distillkit.roles.weighting import Weighting

hookspec = pluggy.HookspecMarker("distillkit")
hookimpl = pluggy.HookimplMarker("distillkit")
"""Marks a function of a package as the hook of its name, such as `distillkit_routers`, which returns classes."""


@hookspec
def distillkit_datasets() -> Sequence[type[Dataset]]:
    """Dataset classes: where rows come from."""
    raise NotImplementedError


@hookspec
def distillkit_routers() -> Sequence[type[Router]]:
    """Router classes: which teacher scores a row."""
    raise NotImplementedError


@hookspec
def distillkit_prompt_builders() -> Sequence[type[PromptBuilder]]:
    """PromptBuilder classes: what student and teacher each read."""
    raise NotImplementedError


@hookspec
def distillkit_students() -> Sequence[type[Student]]:
    """Student classes: where the student is trained."""
    raise NotImplementedError


@hookspec
def distillkit_samplers() -> Sequence[type[Sampler]]:
    """Sampler classes: where completions come from, if not from the student itself."""
    raise NotImplementedError


@hookspec
def distillkit_scorers() -> Sequence[type[Scorer]]:
    """Scorer classes: how tokens are scored under a teacher."""
    raise NotImplementedError


@hookspec
def distillkit_losses() -> Sequence[type[Loss]]:
    """Loss classes: what is trained."""
    raise NotImplementedError


@hookspec
def distillkit_weightings() -> Sequence[type[Weighting]]:
    """Weighting classes: how much each token counts."""
    raise NotImplementedError


@hookspec
def distillkit_evaluators() -> Sequence[type[Evaluator]]:
    """Evaluator classes: how progress is measured."""
    raise NotImplementedError


@hookspec
def distillkit_sinks() -> Sequence[type[Sink]]:
    """Sink classes: where metrics go."""
    raise NotImplementedError
