"""Every code block of the pages is run, or checked, or says in a visible sentence why it is neither.

Run are the blocks that carry `<!-- test: NAME -->` (test_docs_tutorials.py, test_docs_losses.py) and the commands of
docs/silently-wrong.md (test_silently_wrong.py). Here the others are checked: a config is read as `check` reads it, the
arguments of a command are parsed by the command line.
"""

import ast
import importlib
import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import typer
import yaml

from distillkit import Rank, Registry
from distillkit.cli.main import app
from distillkit.config.load import load_config
from distillkit.errors import ConfigError, InputError
from distillkit.preflight.compatibility import plugins_of, require_fitting

TOP = Path(__file__).parent.parent
PAGES = [
    TOP / "README.md",
    TOP / "CONTRIBUTING.md",
    *sorted((TOP / "benchmarks").glob("*.md")),
    TOP / "loopback" / "README.md",
    *sorted(page for page in (TOP / "docs").rglob("*.md") if page.parent.name != "reference"),
]
BLOCK = re.compile(
    r"[^\n]*\n(?P<mark><!-- (?P<said>[^>]*) -->\n)?(?P<indent> *)```(?P<language>\w*)\n(?P<code>.*?)\n? *```", re.DOTALL
)
NOT_RUN = re.compile(r"\bnot run by tests: \w+")
"""The visible sentence: at the top of a page for all of it, or in the paragraph before a block."""
BASE: Mapping[str, Any] = {
    "data": "prompts.jsonl",
    "student": {"name": "local", "model": "org/student"},
    "teachers": [{"model": "org/teacher"}],
}
"""What a block that shows a part of a config is laid over."""
WHOLE = """\
data: prompts.jsonl
student: {name: local, model: org/student}
teachers: [{model: org/teacher, scorer: {name: http, base_url: "http://localhost:8000"}}]
"""
OURS = re.compile(r"(?:^|\s)(?:distillkit|python -m distillkit|-m distillkit)(?=\s)")
FILES = (".yaml", ".toml", ".json")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    code: str
    mark: str
    """The comment before it, such as `test: NAME`."""
    not_run: bool

    def __str__(self) -> str:
        return f"{self.page.relative_to(TOP)}:{self.line}"


def blocks_of(page: Path, text: str) -> Iterator[Block]:
    whole_page = NOT_RUN.search(text.partition("\n## ")[0]) is not None and text.startswith("#")
    whole_page = whole_page and "```" not in text.partition("\n## ")[0]
    for found in BLOCK.finditer(text):
        paragraph = (
            text[: found.start("mark") if found["mark"] else found.start("indent")].rstrip().rpartition("\n\n")[2]
        )
        line = text.count("\n", 0, found.start("indent")) + 1
        excused = whole_page or NOT_RUN.search(paragraph) is not None
        yield Block(page, line, found["language"], dedent(found["code"]), found["said"] or "", excused)


BLOCKS = [block for page in PAGES for block in blocks_of(page, page.read_text(encoding="utf-8"))]


def of_language(*languages: str) -> list[Block]:
    """Those that nothing else runs and nobody excuses."""
    return [b for b in BLOCKS if b.language in languages and not b.not_run and not b.mark.startswith("test: ")]


# -- what is done with each kind


def check_yaml(block: Block, folder: Path) -> None:
    shown = yaml.safe_load(block.code)
    assert isinstance(shown, dict), "a part of a config is a mapping"
    path = folder / "config.yaml"
    scripts = shown.pop("plugins", [])
    assert all(script.endswith(".py") for script in scripts)
    path.write_text(yaml.safe_dump({**BASE, **shown}), encoding="utf-8")
    config, registry = load_config([path])
    plugins = plugins_of(config, registry)
    if BASE.keys() <= shown.keys():
        require_fitting(config, plugins, Rank())


def check_bash(block: Block, folder: Path) -> None:
    for command in commands(block.code):
        words = shlex.split(command, comments=True)
        if words[:1] == ["make"]:
            targets = {word for word in words[1:] if "=" not in word}
            assert targets <= make_targets(), f"no such target: {command}"
        for script in re.findall(r"\bpython3? ((?:docs|benchmarks|examples)/\S+\.py)", command):
            assert (TOP / script).is_file(), f"no such script: {script}"
        for module in re.findall(r"\bpython3? -m (benchmarks(?:\.\w+)*)", command):
            place = TOP / module.replace(".", "/")
            assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file(), f"no such module: {module}"
        ours = OURS.search(command)
        if ours is not None:
            arguments = shlex.split(command[ours.end() :], comments=True)
            parse(arguments)
            if "-p" not in arguments and block.page.parent.name != "tutorials":
                check_overrides(arguments, folder)


def commands(code: str) -> Iterator[str]:
    """The commands of a block: lines joined where they go on, cut at `&&`, without what follows a pipe."""
    for line in re.sub(r"\\\n\s*", " ", code).splitlines():
        bare = line.strip().removeprefix("$ ")
        if bare and not bare.startswith("#"):
            for part in bare.split(" && "):
                yield part.split(" | ")[0].removesuffix(" &").strip()


def parse(arguments: list[str]) -> None:
    """As the command line does, up to the point where the command would run."""
    command: Any = typer.main.get_command(app)
    context: Any = None
    words = arguments
    while True:
        context = command.make_context(command.name or "distillkit", list(words), parent=context)
        rest = [*getattr(context, "_protected_args", ()), *context.args]
        if not hasattr(command, "commands"):
            assert not context.args, f"left over: {context.args}"
            return
        _, command, words = command.resolve_command(context, rest)


def check_overrides(arguments: list[str], folder: Path) -> None:
    """Words `key=value` that are laid over a config."""
    overrides = [word for word in arguments[1:] if re.match(r"[a-z_]+(\.\w+)*=", word)]
    if arguments[0] in ("run", "check", "diagnose", "eval", "export", "generate", "demo") and overrides:
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump(dict(BASE)), encoding="utf-8")
        load_config([path], [word.replace("$MODEL", "org/model") for word in overrides])


def make_targets() -> set[str]:
    return set(re.findall(r"^([\w-]+):", (TOP / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))


def check_python(block: Block, folder: Path) -> None:
    for node in ast.walk(ast.parse(block.code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("distillkit"):
            module = importlib.import_module(str(node.module))
            missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
            assert not missing, f"{node.module} has no {missing}"


def check_json(block: Block, folder: Path) -> None:
    try:
        json.loads(block.code)
    except ValueError:
        for line in block.code.splitlines():
            json.loads(line)


USAGE_ERROR = typer.BadParameter.__bases__[0]
FAILURES = (AssertionError, ConfigError, InputError, SyntaxError, ValueError, typer.Exit, USAGE_ERROR)
CHECKS: Mapping[str, Callable[[Block, Path], None]] = {
    "yaml": check_yaml,
    "bash": check_bash,
    "python": check_python,
    "json": check_json,
}
RUN_ELSEWHERE = {"console": {TOP / "docs" / "silently-wrong.md"}}
PLAIN = {"", "text", "toml"}
"""What a command prints, drawings, a packaging file: nothing that this project could read."""


@pytest.mark.parametrize("block", of_language(*CHECKS), ids=str)
def test_a_block_is_what_this_project_reads(block: Block, tmp_path: Path) -> None:
    CHECKS[block.language](block, tmp_path)


def test_no_block_is_left_out() -> None:
    known = {*CHECKS, *RUN_ELSEWHERE, *PLAIN}
    assert not [f"{block}: {block.language}" for block in BLOCKS if block.language not in known]
    elsewhere = [b for b in BLOCKS if b.language in RUN_ELSEWHERE and b.page not in RUN_ELSEWHERE[b.language]]
    assert not [f"{block}: no test runs {block.language} blocks of this page" for block in elsewhere]
    assert len(BLOCKS) > 150


def test_what_is_marked_for_a_test_is_written_by_one() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.rglob("*.py"))
    marked = {str(block.page.relative_to(TOP)) for block in BLOCKS if block.mark.startswith("test: ")}
    assert len(marked) > 10
    assert not [page for page in marked if f'"{page}"' not in tests and f'"{Path(page).name}"' not in tests]


@pytest.mark.parametrize(
    ("language", "code", "said"),
    [
        ("yaml", "train: {max_step: 3}", "max_step"),
        ("yaml", "loss: {name: divergence, suport: full}", "suport"),
        ("yaml", "loss: no_such_loss", "no_such_loss"),
        ("yaml", WHOLE + "loss: divergence", "full"),
        ("bash", "distillkit check config.yaml --prob", "--prob"),
        ("bash", "distillkit run config.yaml train.max_step=3", "max_step"),
        ("bash", "torchrun --nproc-per-node 2 -m distillkit rum config.yaml", "rum"),
        ("bash", "make no-such-target", "no-such-target"),
        ("bash", "python docs/no_such.py", "no_such"),
        ("python", "from distillkit import NoSuchName", "NoSuchName"),
        ("python", "def f(:", "syntax"),
        ("json", '{"a": }', "Expecting"),
    ],
)
def test_what_is_wrong_is_found(
    language: str, code: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = blocks_of(TOP / "docs" / "page.md", f"# A page\n\nText:\n\n```{language}\n{code}\n```\n")
    with pytest.raises(FAILURES) as error:
        CHECKS[language](block, tmp_path)
    assert said in f"{error.value}{getattr(error.value, 'message', '')}{capsys.readouterr().err}"


def test_a_reason_that_nobody_sees_excuses_nothing() -> None:
    page, code = TOP / "docs" / "page.md", "```python\nf(\n```\n"
    (hidden,) = blocks_of(page, f"# A page\n\nText.\n\n<!-- not run by tests: notes -->\n{code}")
    (shown,) = blocks_of(page, f"# A page\n\n## Part\n\nIt is not run by tests: it needs an account.\n\n{code}")
    (all_of_it,) = blocks_of(page, f"# A page\n\nCode is not run by tests: notes.\n\n## Part\n\nText.\n\n{code}")
    assert (hidden.not_run, shown.not_run, all_of_it.not_run) == (False, True, True)


def test_the_registry_knows_plugins_of_this_project_alone() -> None:
    """A stranger's package in the environment would let a page name what readers have not."""
    assert {info.distribution for info in Registry.discover().infos()} == {"distillkit"}
