"""docs/silently-wrong.md is true: each of its commands is run, and says what stands below it."""

import re
import runpy
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from shlex import split

import pytest
from typer.testing import CliRunner

from distillkit.cli.main import app
from distillkit_loopback.openai.__main__ import options, started

TOP = Path(__file__).parent.parent
PAGE = (TOP / "docs" / "silently-wrong.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^#+ (.*?)\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL))
CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")
MARGIN, LEAST = 0.5, 0.05
"""How far a number may be from the page's: of it, and at least. Other CPUs round otherwise, and sample other tokens."""


def commands(section: str) -> Iterator[tuple[str, str]]:
    """Each command of a section, and the output that stands below it."""
    for block in CONSOLE.findall(section):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            yield command, output


def same(said: str, shown: str) -> bool:
    """Whether output is what the page shows: `...` is anything, lines may end elsewhere, and numbers are near."""
    numbers: list[float] = []
    pattern = ""
    for part in re.split(rf"(\.\.\.|{NUMBER.pattern})", " ".join(shown.split())):
        if part == "...":
            pattern += ".*?"
        elif NUMBER.fullmatch(part):
            pattern += f"({NUMBER.pattern})"
            numbers.append(float(part))
        else:
            pattern += re.escape(part)
    found = re.fullmatch(pattern, " ".join(said.split()))
    return found is not None and all(
        abs(float(mine) - there) <= LEAST + MARGIN * abs(there)
        for mine, there in zip(found.groups(), numbers, strict=True)
    )


def test_what_is_not_the_same_is_found() -> None:
    assert same("a gap of 0.46\nnats", "a gap of 0.40 nats")
    assert same("a gap of 0.46 nats, and\nmore", "a gap ... nats, ...")
    assert not same("a gap of 0.95 nats", "a gap of 0.40 nats")
    assert not same("a gap of 0.20 nats", "a gap of 0.00 nats")
    assert not same("warning: a gap of 0.40 nats", "a gap of 0.40 nats")
    assert not same("a gap of 0.40 nats", "no gap of 0.40 nats")


class Shell:
    """Runs a section's commands one after another; servers run until it is closed, on ports that are free."""

    def __init__(self, servers: ExitStack) -> None:
        self.servers = servers
        self.ports: dict[str, str] = {}

    def run(self, command: str) -> str:
        """What a command prints, errors too."""
        for page, real in self.ports.items():
            command = command.replace(f":{page}/", f":{real}/")
        arguments = split(command)
        match arguments:
            case ["distillkit", *rest]:
                return CliRunner().invoke(app, rest).output
            case ["python", "-m", "distillkit_loopback.openai", *rest]:
                assert rest.pop() == "&"
                chosen = options().parse_args(rest)
                page, chosen.port = str(chosen.port), 0
                self.ports[page] = self.servers.enter_context(started(chosen)).url.rpartition(":")[2]
                return ""
            case ["python", script]:
                runpy.run_path(script, run_name="__main__")
                return ""
        return subprocess.run(command, shell=True, capture_output=True, text=True, check=False, timeout=60).stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the examples, where runs are written."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "examples").symlink_to(TOP / "examples")
    return folder


@pytest.fixture
def shell(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    monkeypatch.chdir(checkout)
    if not Path("runs/models").exists():
        monkeypatch.setattr("sys.argv", ["make_models.py"])
        runpy.run_path("examples/silently_wrong/make_models.py", run_name="__main__")
    with ExitStack() as servers:
        yield Shell(servers)


@pytest.mark.parametrize("title", [title for title, section in SECTIONS.items() if "$ " in section])
def test_each_command_says_what_stands_below_it(title: str, shell: Shell) -> None:
    for command, shown in commands(SECTIONS[title]):
        said = shell.run(command)
        assert same(said, shown), f"{command}\n--- says\n{said}\n--- and the page\n{shown}"


def test_there_is_a_command_for_each_of_a_dozen_ways() -> None:
    ways = [title for title, section in SECTIONS.items() if "$ distillkit" in section]
    assert len(ways) == 13  # and where nothing is wrong
