"""Code blocks that pages mark for tests, and commands on them."""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from typer.testing import CliRunner

from distillkit.cli.main import app
from helpers.doc_pages import TOP

MARKED = re.compile(r"<!-- test: (\S+) -->\n```\w+\n(.*?)```", re.DOTALL)
QUICK = ["sampling.max_completion_tokens=8", "train.max_steps=1", "-q"]


def blocks(page: str) -> Mapping[str, str]:
    """File name to content, of the code that a page marks for tests."""
    return dict(MARKED.findall((TOP / page).read_text(encoding="utf-8")))


def write_blocks(page: str, student: str, teacher: str) -> None:
    """Write a page's files into the working directory, with these models in the place of Qwen's."""
    for name, content in blocks(page).items():
        small = content.replace("HuggingFaceTB/SmolLM2-135M-Instruct", student)
        small = small.replace("Qwen/Qwen3-0.6B", student).replace("Qwen/Qwen3-1.7B", teacher)
        Path(name).write_text(small, encoding="utf-8")


def call(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.output


def passes_its_own_tests(name: str) -> None:
    runs_alone("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", name)


def runs_alone(*arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
