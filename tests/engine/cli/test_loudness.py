"""How much a command says of what it does: `--verbose` and `--quiet`."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.cli.conftest import call

EVERY_COMMAND = [
    ("run", "config.yaml"),
    ("check", "config.yaml"),
    ("init", "new"),
    ("plugins", "list"),
    ("plugins", "show", "loss", "importance_sampling"),
    ("config", "schema"),
]


@pytest.mark.parametrize("command", EVERY_COMMAND, ids=" ".join)
@pytest.mark.parametrize("at", ["before", "between", "after"])
def test_verbose_and_quiet_count_before_and_after_every_command(
    config: Callable[..., str], command: tuple[str, ...], at: str
) -> None:
    config()
    name, *rest = command
    words = {"before": ["-v", "-q", *command], "between": [name, "-v", "-q", *rest], "after": [*command, "-v", "-q"]}
    quiet = call(*words[at])
    assert quiet.exit_code == 0, quiet.output
    if name == "run":
        assert quiet.output.splitlines()[0] == "run directory: runs/fake"
        assert "step 1/3" not in quiet.output
    elif name == "check":
        assert quiet.output == "check: ok\n"
    elif name == "init":
        assert quiet.output == ""
    else:
        assert quiet.output == call(*command).output


def test_verbose_shows_the_log_while_the_command_lasts(config: Callable[..., str]) -> None:
    log = logging.getLogger("distillkit")
    name, before = config(data={"path": "train.jsonl"}, evaluators=[]), list(log.handlers)
    Path("late.py").write_text(
        "import logging\nfrom distillkit.testing import FakeStudent\n"
        "class Late(FakeStudent):\n    '''Talks.'''\n    name = 'late'\n"
        "    async def open(self, run):\n        logging.getLogger('distillkit').debug('in detail')\n",
        encoding="utf-8",
    )
    words = ["run", name, "student.name=late", "-p", "late.py", "teachers.0.scorer=fake", "--overwrite"]
    assert "in detail" in call(*words, "-v").output
    assert log.handlers == before
    assert "in detail" not in call(*words).output
