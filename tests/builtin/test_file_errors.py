"""What is said of a model's files that cannot be had."""

import re
from pathlib import Path

import pytest

from distillkit_builtin.file_errors import unavailable

DOCS = Path(__file__).parents[2] / "docs"


def test_where_no_hub_is_reachable_the_docs_say_what_to_do() -> None:
    said = unavailable("tokenizer", "org/name", OSError("We couldn't connect to the hub."))
    found = re.search(r'see docs/(\S+), "(.*)"$', said)
    assert found is not None
    assert f"\n## {found[2]}\n" in (DOCS / found[1]).read_text(encoding="utf-8")


@pytest.mark.parametrize("error", [OSError("broken"), ValueError("requires trust_remote_code")])
def test_a_directory_needs_no_hub(error: Exception, tmp_path: Path) -> None:
    assert "Without a model hub" not in unavailable("model", str(tmp_path), error)


@pytest.mark.parametrize(
    ("error", "command"),
    [
        (
            ImportError(
                "A requires the PIL library but it was not found in your environment. And so on.\n"
                "A requires the timm library but it was not found in your environment.\n"
            ),
            "it needs pillow and timm, which are not installed: pip install pillow timm",
        ),
        (ImportError("B requires the mistral-common library but it was not found"), "pip install mistral-common"),
        (ValueError("`tiktoken` is required to read a `tiktoken` file. Install it with `pip install tiktoken`"),
         "pip install sentencepiece tiktoken"),
    ],
)  # fmt: skip
def test_packages_that_are_missing_are_named_in_one_line(
    error: Exception, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distillkit_builtin.file_errors.find_spec", lambda name: None)
    for source in (str(tmp_path), "org/name"):
        said = unavailable("tokenizer", source, error)
        assert said.endswith(command)
        assert "\n" not in said
