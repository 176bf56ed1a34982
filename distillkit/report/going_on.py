"""How a run that did not come to its end goes on: from which checkpoint, and by which command."""

import shlex
from collections.abc import Mapping

from distillkit.report.run_record import RunRecord
from distillkit.run_directory.checkpoint import checkpoints, step_of

OF_A_START = frozenset({"--resume", "--overwrite", "--force"})
"""Words of a command that say how a run begins, in place of which `--resume` stands; `--from-step` has a number."""
PROGRAMS = (["distillkit", "run"], ["python", "-m", "distillkit", "run"])


def how_to_go_on(run: RunRecord) -> str:
    """A sentence: from where a resume goes on, and the command, as far as the run's files say."""
    saved = checkpoints(run.run_dir)
    if not saved:
        return "It left no checkpoint to go on from: it begins anew by --overwrite, or under another name."
    return f"Go on after step {step_of(saved[-1])} by {resume_command(run)}."


def resume_command(run: RunRecord) -> str:
    """What is typed, in backquotes, by how the run was started; where that says nothing, which option it takes."""
    origin = run.summary.get("provenance")
    command = origin.get("command") if isinstance(origin, Mapping) and origin.get("processes", 1) == 1 else None
    try:
        words = shlex.split(command) if isinstance(command, str) else []
    except ValueError:  # an open quote: somebody else wrote it
        words = []
    if not any(words[: len(program)] == program for program in PROGRAMS):
        return "`--resume` (in Python `resume=True`)"
    kept, skip = [], False
    for word in words:
        if not skip and word not in OF_A_START and word.partition("=")[0] != "--from-step":
            kept.append(word)
        skip = not skip and word == "--from-step"
    return f"`{shlex.join([*kept, '--resume'])}`"
