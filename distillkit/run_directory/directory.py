"""Where a run writes: can it write there, may it go on there, and does another process hold it?"""

import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import JsonValue

from distillkit.config.run_config import RunConfig
from distillkit.errors import InputError
from distillkit.files.jsonl import explain_write_errors
from distillkit.files.os_errors import TOO_MANY_FILES
from distillkit.files.strict_json import shortened
from distillkit.roles.plugin import PENDING_CLEANUP, Plugin
from distillkit.run_directory.checkpoint import checkpoints
from distillkit.run_directory.run_lock import LOCK, OWNER, held
from distillkit.run_directory.run_start import RunStart

MARKER = "config.yaml"
HEADER = "# The resolved config of this run"
"""A directory that holds this file, beginning like this, holds a run: a project's folder may have a config.yaml too."""
PATHS_START_AT = "# Relative paths start at "
"""How the second line of that file begins."""
PROBE_FOLDER = ".probe"
"""Where a probe without a run writes, in the run's directory: it is gone when the probe ends, unless it was killed.

A second one beside it has `.probe-2`, and so on.
"""
REPORT = "report.html"
"""The run as a page, which the sink `report` and `distillkit report` write."""
EVALUATIONS = "evaluations"
"""What `distillkit eval` finds of a run, a file a step."""
WRITTEN = frozenset(
    {MARKER, "metrics.jsonl", "samples.jsonl", "ledger.jsonl", "run.log", "summary.json", "summary.json.new"}
    | {"checkpoints", "probe.json", EVALUATIONS, REPORT}
)
"""What the engine writes in a run's directory; the plugins say what they write (`Plugin.writes`)."""
ASIDE = frozenset({LOCK, OWNER, PENDING_CLEANUP, PROBE_FOLDER})
"""What stands in a run's directory and is no part of the run."""
DEEPEST = "checkpoints/.step-1000000000.partial/student/model-00001-of-00001.safetensors"
"""About the longest path below it."""


def run_directory(config: RunConfig) -> Path:
    """The run directory of a config: `log_path` with `{name}` filled in."""
    return Path(config.log_path.replace("{name}", config.name))


def require_writable_path(run_dir: Path) -> None:
    """Raise InputError if `run_dir` cannot be created or written, as far as that shows without writing."""
    with _looking(run_dir):
        absolute = run_dir.absolute()
        (absolute / DEEPEST).exists()  # too long as a whole
        existing = next(path for path in (absolute, *absolute.parents) if path.exists())
        for part in absolute.relative_to(existing).parts:
            (existing / part).exists()  # too long as one name, which is not found below what does not exist
        if not existing.is_dir():
            raise InputError(
                f"{run_dir if existing == absolute else existing} is a file; choose another log_path or name"
            )
        for folder in (existing, absolute / "checkpoints"):
            if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
                raise InputError(f"{folder} cannot be written; make it writable, or choose another log_path")


@contextmanager
def _looking(run_dir: Path) -> Iterator[None]:
    """Turn what the operating system says of a path into an error that names it."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError) as error:  # too long, not readable, or of characters that no path can hold
        reason = (error.strerror or error) if isinstance(error, OSError) else error
        shown = shortened(str(run_dir), 200)
        if isinstance(error, OSError) and error.errno in TOO_MANY_FILES:
            raise
        raise InputError(f"{shown!r} cannot be a run's directory: {reason}; choose another log_path or name") from error


def require_startable(run_dir: Path, start: RunStart) -> None:
    """Raise InputError, before anything is loaded, if a run cannot write or go on here."""
    require_writable_path(run_dir)
    _require_clean_probe(run_dir)
    if start.resume:
        if not checkpoints(run_dir):
            how = "replace what is there by --overwrite" if holds_run(run_dir) else "run without --resume"
            raise InputError(f"{run_dir}: nothing to resume, no checkpoint is there; {how}")
    elif holds_run(run_dir) and not start.overwrite:
        go_on = "Go on with it by --resume, replace" if checkpoints(run_dir) else "It has no checkpoint; replace"
        raise InputError(
            f"{run_dir} already holds a run. {go_on} it by --overwrite, "
            "or write elsewhere by name=another-name (in Python: resume=True, overwrite=True, name=...)"
        )
    elif _content(run_dir) and not is_run(run_dir):
        raise InputError(f"{run_dir} holds files that are no run of distillkit's; choose another log_path or name")


def holds_run(run_dir: Path) -> bool:
    """Whether a run got as far as its first evaluation or step here; one that failed before is in no one's way."""
    with _looking(run_dir):
        metrics = run_dir / "metrics.jsonl"
        measured = metrics.is_file() and metrics.stat().st_size > 0
        return is_run(run_dir) and (measured or bool(checkpoints(run_dir)))


def is_run(run_dir: Path) -> bool:
    """Whether a run wrote the config that stands in a directory."""
    if not (run_dir / MARKER).is_file():
        return False
    with (run_dir / MARKER).open("rb") as file:
        return file.read(len(HEADER)) == HEADER.encode()


def _content(run_dir: Path) -> list[Path]:
    found = run_dir.iterdir() if run_dir.is_dir() else ()
    return [path for path in found if path.name not in ASIDE and not path.name.startswith(f"{PROBE_FOLDER}-")]


def require_cleanup_handlers(
    run_dir: Path, plugins: Collection[type[Plugin]], known: Collection[type[Plugin]] = ()
) -> None:
    """Raise InputError if an older run left something elsewhere that none of `plugins`, those of this run, cleans up.

    `known` are all plugins there are: one that is not of the run can say what it is.
    """
    handled = {leftover.record for plugin in plugins for leftover in plugin.leftovers(run_dir)}
    records = [path for path in sorted((run_dir / PENDING_CLEANUP).glob("[!.]*")) if path not in handled]
    if records:
        described = {
            leftover.record: leftover.description for plugin in known for leftover in plugin.leftovers(run_dir)
        }
        record = records[0]
        what = described.get(record) or record.read_text(encoding="utf-8", errors="replace").rstrip()
        raise InputError(
            f"the run that was in {run_dir} could not clean up after itself; this may still cost money, and this run "
            f"uses no plugin that cleans it up:\n{what}\nGo on with that run by "
            f"--resume, or remove what is listed by hand, and then {record}"
        )


def _require_clean_probe(run_dir: Path) -> None:
    """Raise InputError if a probe that was killed here left something elsewhere, which the next probe cleans up."""
    records = probe_records(run_dir)
    if records:
        raise InputError(
            f"a probe in {run_dir} was killed before it could clean up after itself, and this may still cost money: "
            f"{', '.join(map(str, records))}. Probe once more by `distillkit check CONFIG --probe`, which cleans it up"
        )


def probe_records(run_dir: Path) -> list[Path]:
    """What probes wrote down of what is elsewhere, and is still to be cleaned up."""
    return sorted(run_dir.glob(f"{PROBE_FOLDER}*/{PENDING_CLEANUP}/[!.]*"))


@contextmanager
def claim_directory(
    run_dir: Path,
    start: RunStart,
    *,
    plugins: Collection[type[Plugin]] = (),
    known: Collection[type[Plugin]] = (),
    written: Collection[str] = (),
) -> Iterator[list[str]]:
    """Make the run's directory and hold it against other processes; what an older run left goes, if the user said so.

    `plugins` are those that will run here, and clean up what the older run left elsewhere, `known` all there are;
    `written` is what plugins write in the directory. What it gives are the names of files that stay there, since no run
    writes them. A process that died holds nothing.
    """
    with held(run_dir):
        require_startable(run_dir, start)  # again, now that nobody else can change it
        if not start.resume:
            require_cleanup_handlers(run_dir, plugins, known)
        rest = [] if start.resume else _cleared(run_dir, WRITTEN.union(written))
        with explain_write_errors(run_dir / MARKER):
            if not (run_dir / MARKER).exists():  # from now on it is a run's, whatever becomes of this one
                (run_dir / MARKER).write_text(f"{HEADER}, which is written when the run begins.\n", encoding="utf-8")
        yield rest


def _cleared(run_dir: Path, written: Collection[str]) -> list[str]:
    """Remove what a run wrote; return the names of the rest, which somebody else put there.

    The marker stays until it is written again, so that what stayed with it is in the way of no other run.
    """
    rest = [path.name for path in _content(run_dir) if path.name not in written]
    for path in _content(run_dir):
        if path.name in written and path.name != MARKER:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return sorted(rest)


def is_complete(run_dir: Path) -> bool:
    """Whether the run that a directory holds came to its end."""
    summary = read_summary(run_dir)
    return summary is not None and summary.get("status") == "completed"


def read_summary(run_dir: Path) -> Mapping[str, JsonValue] | None:
    """What the run that a directory holds came to; None where it has not ended."""
    try:
        summary: dict[str, JsonValue] = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return summary
