"""What every rank must have alike before a model is loaded: found by each on its own host, and compared by rank 0.

Hosts may have models, scripts and caches at paths of their own; what lies there must be the same.
"""

import hashlib
import platform
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import torch
from pydantic import JsonValue

from distillkit.context import RunContext
from distillkit.errors import InputError
from distillkit.tokenizer import tokenizer_fingerprint
from distillkit.types import Teacher
from distillkit_builtin.hf_tokenizer import shared_tokenizer
from distillkit_builtin.local.device import resolve_dtype
from distillkit_builtin.local.model_files.fingerprint import adapter_digest, model_fingerprint
from distillkit_builtin.local.model_files.model_config import read_config
from distillkit_builtin.local.option_types import DTypeName
from distillkit_builtin.local.options import LocalScorerOptions, LocalStudentOptions
from distillkit_builtin.local.requirements import LIBRARIES

Fingerprint = Mapping[str, JsonValue]
"""What a rank has, by what the user calls it."""
VERSION, CODE, CONTENT, FORMAT = "the version of ", "the code of ", "the content of ", "the number format of "
FIXES = {
    VERSION: "install the same one on every host",
    CODE: "copy the same file to every host",
    CONTENT: "every host needs a copy of the same model, at any path",
    FORMAT: "say which by dtype: what `auto` takes depends on the machine",
}
OTHERWISE = "start every process with the same options"


def student_fingerprint(run: RunContext, options: LocalStudentOptions, device: torch.device) -> Fingerprint:
    """Options, code, versions, and the student that this rank would load. Raises InputError if it cannot be read."""
    found: dict[str, JsonValue] = {"seed": run.seed, **run.must_agree, **dict(_versions())}
    found |= {f"{CODE}distillkit": _own_code()}
    found |= _of_model("student", options.model, options.dtype, device)
    if options.adapter is not None:
        found[f"{CONTENT}student.adapter"] = adapter_digest(Path(options.adapter))
    tokenizer = shared_tokenizer(run, options.tokenizer_model or options.model, options.model)
    return {**found, f"{CONTENT}student's tokenizer": tokenizer_fingerprint(tokenizer)}


def teacher_fingerprint(teacher: Teacher, options: LocalScorerOptions, device: torch.device) -> Fingerprint:
    """The teacher that this rank would load. Raises InputError if it cannot be read."""
    return _of_model(f"teacher {teacher.name!r}", teacher.model, options.dtype, device)


def require_alike(found: Sequence[Fingerprint], named: Sequence[str]) -> None:
    """Raise InputError, a line for each rank and each thing that it has otherwise than rank 0; `named`: the ranks."""
    problems = [
        f"{who}: {_difference(name, found[0].get(name), theirs.get(name))} on {named[0]}; {_fix(name)}"
        for who, theirs in zip(named[1:], found[1:], strict=True)
        for name in dict.fromkeys([*found[0], *theirs])
        if found[0].get(name) != theirs.get(name)
    ]
    if problems:
        raise InputError("\n".join(problems))


def _difference(name: str, ours: JsonValue, theirs: JsonValue) -> str:
    if name.startswith((CODE, CONTENT)):
        return f"{name} is not what it is"
    return f"{name} is {theirs}, and {ours}"


def _fix(name: str) -> str:
    return next((fix for kind, fix in FIXES.items() if name.startswith(kind)), OTHERWISE)


def _of_model(who: str, source: str, dtype: DTypeName, device: torch.device) -> dict[str, JsonValue]:
    read_config(source)  # of a model on the hub this fetches what says its revision
    parts = {f"{CONTENT}{who}'s model ({part})": value for part, value in model_fingerprint(source).items()}
    return {**parts, f"{FORMAT}{who}": str(resolve_dtype(dtype, device)).removeprefix("torch.")}


def _versions() -> Iterator[tuple[str, JsonValue]]:
    """Of Python, since objects travel by pickle, without its last number; and of what numbers depend on."""
    yield f"{VERSION}Python", ".".join(platform.python_version_tuple()[:2])
    for name in sorted({"distillkit", *LIBRARIES}):
        try:
            yield f"{VERSION}{name}", version(name)
        except PackageNotFoundError:
            yield f"{VERSION}{name}", None


@cache
def _own_code() -> str:
    """Of all files of the engine and the built-in plugins: two working copies may have one version."""
    digest = hashlib.blake2b(digest_size=8)
    for package in ("distillkit", "distillkit_builtin"):
        spec = find_spec(package)
        for folder in () if spec is None else spec.submodule_search_locations or ():
            for path in sorted(Path(folder).rglob("*.py")):
                digest.update(f"{path.relative_to(folder).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()
