"""Servers whose weights a run must not replace, since a teacher that does not move is scored by them."""

from collections.abc import Iterable
from typing import NamedTuple

from distillkit.context import RunContext
from distillkit.errors import InputError
from distillkit_builtin.http.probe import WEIGHTS_PATHS
from distillkit_builtin.remote.service_client import ServiceClient

SECONDS = 5.0
"""Within which a teacher's server is to say what its weights are called."""
OWN_SERVER = "give the teacher a server of its own, or train a LoRA (student.lora_rank)"


class Addresses(NamedTuple):
    """Where a teacher is served, as the config says it."""

    teacher: str
    roots: tuple[str, ...]


class FrozenTeacher(NamedTuple):
    """A teacher, and who asks its servers."""

    name: str
    client: ServiceClient


def declare_addresses(run: RunContext, teacher: str, roots: Iterable[str]) -> None:
    """Note, before anything is checked, that `teacher` is served at `roots`."""
    _addresses(run).append(Addresses(teacher, tuple(roots)))


def keep_weights(run: RunContext, client: ServiceClient, teacher: str) -> None:
    """Note that `teacher` is asked by `client`."""
    _teachers(run).append(FrozenTeacher(teacher, client))


def require_replaceable(run: RunContext, roots: Iterable[str]) -> None:
    """Raise InputError for a server of a teacher, to which all of the student's weights would be pushed."""
    pushed = frozenset(roots)
    for teacher in _addresses(run):
        for root in pushed.intersection(teacher.roots):
            raise InputError(
                f"{root} also serves teacher {teacher.teacher!r}, whose weights the student's would replace at each "
                f"sync; {OWN_SERVER}"
            )


async def require_not_replaced(run: RunContext, label: str) -> None:
    """Raise InputError for a teacher's server that has the weights called `label`, which were pushed to a student's.

    It is the same one by another address, which nothing but its answer tells.
    """
    for teacher in _teachers(run):
        for root in teacher.client.roots:
            if await _has(teacher.client, root, label):
                raise InputError(
                    f"{root}, which serves teacher {teacher.name!r}, has the student's weights now: it is a server of "
                    f"the student's by another address; start it anew, and {OWN_SERVER}"
                )


async def _has(client: ServiceClient, root: str, label: str) -> bool:
    """Whether that is what a server calls its weights, where it says so."""
    for path in WEIGHTS_PATHS:
        result = await client.get_once(root, path, SECONDS)
        if result is not None and isinstance(result.value, dict) and result.value.get("weight_version") == label:
            return True
    return False


def _teachers(run: RunContext) -> list[FrozenTeacher]:
    return run.share("servers of frozen teachers", list[FrozenTeacher])


def _addresses(run: RunContext) -> list[Addresses]:
    return run.share("addresses of frozen teachers", list[Addresses])
