"""What every plugin finds out before anything is loaded; and that what is not installed is said before all else."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import NoneType

from distillkit.context import RunContext
from distillkit.errors import InputError
from distillkit.preflight.compatibility import RunPlugins
from distillkit.roles.attribution import attribute_to
from distillkit.roles.plugin import CheckReport
from distillkit.roles.returned import returned


def check_reports(plugins: RunPlugins, contexts: Mapping[str, RunContext]) -> dict[str, CheckReport]:
    """Each plugin's report, once all have declared what they want of what they share.

    Raises:
        InputError: with what is wrong with any of them; one that lacks a package is named first.
    """
    for user, plugin in plugins.by_key.items():
        with attribute_to(plugin, "in declare()"):
            plugin.declare(contexts[user])
    reports: dict[str, CheckReport] = {}
    problems: list[InputError] = []
    for user, plugin in plugins.by_key.items():
        try:
            report = returned(plugin, "check", (CheckReport, NoneType), partial(plugin.check, contexts[user]))
            reports[user] = report or CheckReport()
        except InputError as error:
            problems.append(error)
    if problems:
        raise _behind(missing_in(reports), *problems)
    return reports


@contextmanager
def missing_said_first(reports: Mapping[str, CheckReport]) -> Iterator[None]:
    """Put what is not installed in front of an InputError, which may be of nothing else."""
    try:
        yield
    except InputError as error:
        raise _behind(missing_in(reports), error) from error.__cause__


def missing_in(reports: Mapping[str, CheckReport]) -> tuple[str, ...]:
    """What has to be installed before the run, one line each."""
    return tuple(dict.fromkeys(report.missing for report in reports.values() if report.missing))


def _behind(missing: tuple[str, ...], *problems: InputError) -> InputError:
    """One error with all these lines; a single problem stays as it is."""
    lines = dict.fromkeys([*missing, *map(str, problems)])
    return problems[0] if len(lines) == 1 else InputError("\n".join(lines))
