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
