"""Scorer `http` as `check` asks it."""

from collections.abc import Sequence

from distillkit.testing import make_context
from distillkit_builtin.http.scorer import HttpScorer


def checked(plugin: HttpScorer) -> Sequence[str]:
    return plugin.check(make_context()).notes
