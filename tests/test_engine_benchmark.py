"""The benchmark of the engine, on few rows: its plugins go through a run, with a loss of token positions too."""

from pathlib import Path

import pytest

from benchmarks.engine import data, steps
from benchmarks.engine.inputs import write_rows, write_tokenizer


@pytest.mark.parametrize("loss", ["importance_sampling", "instant"])
def test_no_completion_is_refused(loss: str, tmp_path: Path) -> None:
    rows, tokenizer = write_rows(tmp_path / "rows.jsonl", 8), write_tokenizer(tmp_path / "tokenizer")
    assert len(steps.run(rows, tokenizer, 2, rows=2, steps=2, loss=loss)) == 2


def test_rows_are_read_and_routed(tmp_path: Path) -> None:
    assert data.schema_and_routes(write_rows(tmp_path / "rows.jsonl", 8), 1) > 0
