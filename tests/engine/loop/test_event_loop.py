"""Heavy work never blocks the event loop; held-out rows are rendered once."""

import threading
from collections.abc import Callable, Sequence

import pytest
from conftest import question

import distillkit
from distillkit import RunConfig
from distillkit.data.render import Renderer
from distillkit.errors import RowError
from distillkit.records import ScoredRollout
from distillkit.testing import ByteTokenizer, FakeScorer, FakeStudent
from distillkit.training_data import Batch
from distillkit.types import Prompts, RoutedRow
from distillkit_builtin.losses.importance_sampling import ImportanceSampling

Make = Callable[..., RunConfig]


def test_rows_are_rendered_off_the_event_loop_and_held_out_ones_once(
    fake_config: Make, jsonl: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[int] = set()
    rendered: list[str] = []
    render = Renderer.render

    def noting(renderer: Renderer, routed: Sequence[RoutedRow]) -> list[Prompts | RowError]:
        threads.add(threading.get_ident())
        rendered.extend(row.row.messages[-1].content for row in routed)
        return render(renderer, routed)

    monkeypatch.setattr(Renderer, "render", noting)
    held_out = jsonl([question(f"held out {i}") for i in range(3)], "heldout.jsonl")
    config = fake_config(data={"eval_path": held_out}, train={"eval_every": 1})
    assert distillkit.run(config, plugins=[FakeStudent, FakeScorer]).steps == 5
    assert threading.get_ident() not in threads
    assert sorted(rendered) == sorted([f"held out {i}" for i in range(3)] + [f"number {i}" for i in range(10)])


def test_a_loss_makes_its_batches_off_the_event_loop(fake_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: set[int] = set()
    batch = ImportanceSampling.batch

    def noting(loss: ImportanceSampling, scored: Sequence[ScoredRollout]) -> Batch:
        threads.add(threading.get_ident())
        return batch(loss, scored)

    monkeypatch.setattr(ImportanceSampling, "batch", noting)
    distillkit.run(fake_config(), plugins=[FakeStudent, FakeScorer])
    assert threads
    assert threading.get_ident() not in threads


def test_completions_are_turned_into_lines_off_the_event_loop(
    fake_config: Make, jsonl: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    show = ByteTokenizer.show

    def noting(tokenizer: ByteTokenizer, ids: Sequence[int]) -> str:
        threads.append(threading.get_ident())
        return show(tokenizer, ids)

    monkeypatch.setattr(ByteTokenizer, "show", noting)
    held_out = jsonl([question("held out")], "heldout.jsonl")
    config = fake_config(data={"eval_path": held_out}, probe={"at_start": "never"})
    result = distillkit.run(config, plugins=[FakeStudent, FakeScorer])
    assert "heldout" in (result.run_dir / "samples.jsonl").read_text()
    assert threads
    assert threading.get_ident() not in threads
