"""Servers whose weights a run must not replace, since a teacher that does not move is scored by them."""

from collections.abc import Iterable

from distillkit.context import RunContext
from distillkit.errors import InputError


def keep_weights(run: RunContext, roots: Iterable[str], teacher: str) -> None:
    """Note that `teacher` is served at `roots`."""
    _teachers(run).update(dict.fromkeys(roots, teacher))


def require_replaceable(run: RunContext, roots: Iterable[str], sampler: str) -> None:
    """Raise InputError for a server of a teacher, to which `sampler` would push all of the student's weights."""
    for root in roots:
        if root in _teachers(run):
            raise InputError(
                f"sampler {sampler!r}: {root} also serves teacher {_teachers(run)[root]!r}, whose weights the "
                "student's would replace at each sync; give the teacher a server of its own, or train a LoRA "
                "(student.lora_rank)"
            )


def _teachers(run: RunContext) -> dict[str, str]:
    """Address to the teacher that is served there."""
    return run.share("servers of frozen teachers", dict[str, str])
