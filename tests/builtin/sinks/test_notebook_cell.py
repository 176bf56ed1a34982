"""In a notebook one output of the cell changes in place; nothing is printed for a step."""

import sys
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

from builtin.sinks.console_events import STARTED, step
from distillkit.events import RunFinished
from distillkit.testing import make_context
from distillkit_builtin.sinks.console import ConsoleSink
from distillkit_builtin.sinks.notebook_cell import NotebookCell


class Notebook:
    """What IPython's `display` was given, and what stands in each output now."""

    def __init__(self) -> None:
        self.outputs: list[Any] = []
        self.updates = 0

    def display(self, *shown: Any, display_id: bool = False, **rest: Any) -> "Handle":
        self.outputs.append(shown)
        return Handle(self, len(self.outputs) - 1)

    def text(self, number: int) -> str:
        (shown,) = self.outputs[number]
        bundle: dict[str, str] = shown._repr_mimebundle_(["text/plain", "text/html"], [])
        assert "<pre" in bundle["text/html"]
        return bundle["text/plain"]


class Handle:
    def __init__(self, notebook: Notebook, number: int) -> None:
        self.notebook, self.number = notebook, number

    def update(self, *shown: Any) -> None:
        self.notebook.updates += 1
        self.notebook.outputs[self.number] = shown


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Notebook:
    found, ipython, module = Notebook(), ModuleType("IPython"), ModuleType("IPython.display")
    module.display = found.display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return found


async def test_steps_change_one_output_and_the_last_one_stays(notebook: Notebook) -> None:
    sink = ConsoleSink()
    sink._console = Console(force_jupyter=True, width=80, color_system=None)
    await sink.open(make_context())
    sink.emit(STARTED)
    outputs = len(notebook.outputs)
    for number in range(1, 5):
        sink.emit(step(number))
    sink.emit(RunFinished({}))
    await sink.close()
    assert len(notebook.outputs) == outputs
    assert "step 4/4" in notebook.text(0)


async def test_a_quiet_run_has_no_output(notebook: Notebook) -> None:
    sink = ConsoleSink()
    sink._console = Console(force_jupyter=True, width=80)
    sink.silence()
    await sink.open(make_context())
    sink.emit(STARTED)
    sink.emit(step(1))
    await sink.close()
    assert notebook.outputs == []


def test_a_notebook_is_sent_no_more_than_it_keeps_up_with(notebook: Notebook) -> None:
    now = [100.0]
    cell = NotebookCell(clock=lambda: now[0])
    for number in range(100):
        cell.show(str(number))
        now[0] += 0.05
    cell.show("last", last=True)
    assert 8 <= notebook.updates <= 12
    assert "last" in notebook.text(0)
