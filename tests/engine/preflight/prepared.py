"""Runs of the fakes as they are prepared."""

from distillkit import Registry, RunConfig
from distillkit.preflight.prepared_run import PreparedRun, prepare_run

TWO = [
    {"model": "t", "route_value": "math", "scorer": {"name": "fake"}},
    {"model": "t", "route_value": "prose", "scorer": {"name": "fake"}, "teacher_messages_key": "prose_messages"},
]


def inspect(config: RunConfig) -> PreparedRun:
    return prepare_run(config, Registry.discover(), lambda message: None)
