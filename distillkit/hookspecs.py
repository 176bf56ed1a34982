"""One hook a role. A distribution implements those it has plugins for, and names its module as an entry point.

```toml
[project.entry-points.distillkit]
my_plugins = "my_package.plugins"
```
"""

from collections.abc import Sequence

import pluggy

from distillkit.roles.roles import Evaluator, Loss, PromptBuilder, Router, Sampler, Scorer, Sink, Student

hookspec = pluggy.HookspecMarker("distillkit")
hookimpl = pluggy.HookimplMarker("distillkit")


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
def distillkit_evaluators() -> Sequence[type[Evaluator]]:
    """Evaluator classes: how progress is judged."""
    raise NotImplementedError


@hookspec
def distillkit_sinks() -> Sequence[type[Sink]]:
    """Sink classes: where metrics go."""
    raise NotImplementedError
