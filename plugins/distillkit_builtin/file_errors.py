"""Why a model's or a tokenizer's files cannot be had, in the words of whoever read them, and what to do."""

import re
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path

from distillkit_builtin.hub import WITHOUT_A_HUB, hub_problem
from distillkit_builtin.model_source import is_path
from distillkit_builtin.no_model_here import no_model_here, wrong_file

LONGEST_REASON = 300
"""Letters of another library's error that are shown: some name everything that they know."""
SHOWN = 4
"""Names of tensors or files that are shown: a wrong config has thousands."""
MISSING = re.compile(r"requires the (.+?) library but it was not found")
"""What transformers says of a package that a part of a model or tokenizer is made of; it goes on for a paragraph."""
OTHER_NAMES = {"PIL": "pillow", "SentencePiece": "sentencepiece"}
"""Of packages that are installed by another name than transformers calls them."""
NO_READER = "`tiktoken` is required"
"""What transformers says of a `tokenizer.model` that it could not read by sentencepiece either."""
WHAT_TO_GIVE = f"Give a local directory, or `org/name` of a model on the Hugging Face hub; {WITHOUT_A_HUB}"


def unavailable(what: str, source: str, error: Exception) -> str:
    """Why a model's files cannot be had, and what to do."""
    if "trust_remote_code" in str(error):
        return (
            f"the {what} of {source!r} is made by code that comes with the model, and distillkit runs no such code: "
            "trust_remote_code is off, and no option turns it on. Choose a model whose architecture transformers has "
            "itself, or serve this one and name a tokenizer that transformers has"
        )
    start = f"the {what} of {source!r} cannot be read:"
    packages = missing_packages(error)
    if packages:
        return f"{start} {to_install(packages)}"
    if Path(source).is_dir():
        elsewhere = "; tokenizer_model says where another one is" if what == "tokenizer" else ""
        return f"{start} {wrong_file(Path(source), what) or one_line(error)}{elsewhere}"
    if is_path(source):
        wrong = no_model_here(Path(source))
        end = "" if wrong.endswith("?") else "."
        return f"{start} {wrong}" if Path(source).exists() else f"{start} {wrong}{end} {WHAT_TO_GIVE}"
    return f"{start} {hub_problem(source, error) or f'{one_line(error)}. {WHAT_TO_GIVE}'}"


def missing_packages(error: Exception) -> list[str]:
    """What has to be installed, by what transformers says; empty if something else is wrong."""
    if NO_READER in str(error):
        return [name for name in ("sentencepiece", "tiktoken") if find_spec(name) is None]
    names = MISSING.findall(str(error)) if isinstance(error, ImportError) else []
    return [OTHER_NAMES.get(name, name) for name in dict.fromkeys(names)]


def to_install(packages: Collection[str]) -> str:
    """What is missing, and the command that installs it."""
    verb = "is" if len(packages) == 1 else "are"
    return f"it needs {' and '.join(packages)}, which {verb} not installed: pip install {' '.join(packages)}"


def first_names(names: Collection[str]) -> str:
    """The first few names in alphabetical order, and whether there are more."""
    return ", ".join(sorted(names)[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def first_line(error: Exception) -> str:
    """The kind and the first line of what a library says of its own computing: the other lines are its developers'."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0] or 'no reason is given'}"


def one_line(error: Exception) -> str:
    """What a library says of the user's files, in one line; with the error's kind where its text is no sentence."""
    text = " ".join(str(error).split()).rstrip(".:") or "no reason is given"
    text = text if len(text) <= LONGEST_REASON else f"{text[:LONGEST_REASON]}..."
    return text if isinstance(error, OSError | ValueError | ImportError) else f"{type(error).__name__}: {text}"
