"""What a plugin raises is named with its class, method, promise and line, and reads as a sentence."""

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

import distillkit
from distillkit import Evaluator, Loss, RunConfig, Sink
from distillkit.cli.reporting import reporting
from distillkit.config.script_modules import import_script
from distillkit.errors import AlignmentError, PluginError, PluginNotFoundError, error_text
from distillkit.roles.attribution import attribute_to, named, raised_at
from distillkit.testing import FakeScorer, FakeStudent, ListSink
from distillkit.training_data import Datum


def line_of(text: str, file: str = __file__) -> int:
    """The number of the line that holds `text`."""
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, start=1) if text in line)


class Deep(ListSink):
    """Fails inside a library that it calls."""

    def emit(self, event: object) -> None:
        json.loads("{")  # the line that is named


class Blocking(Evaluator):
    """Is not async."""

    name: ClassVar[str] = "blocking"

    def evaluate(self, context: Any) -> Any:
        return None


class ShortDatum(Loss):
    """Builds a value whose arrays do not fit together."""

    name: ClassVar[str] = "short"
    loss_function: ClassVar[str] = "importance_sampling"

    def options(self) -> dict[str, float]:
        return {}

    def batch(self, scored: Any) -> Any:
        rollout = scored[0].rollout
        return Datum(scored[0].key, rollout.request.prompt_ids, rollout.token_ids[:-1], {"weights": rollout.logprobs})


def notes_of(plugin: Any, doing: str, call: Callable[[], object]) -> str:
    """The only note on what `call` raises."""
    with pytest.raises(Exception) as caught, attribute_to(plugin, doing):  # noqa: PT011 - any error
        call()
    (note,) = caught.value.__notes__
    return note


def test_the_last_line_of_the_authors_own_code_is_named_not_the_librarys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    place = f"test_attribution.py:{line_of('the line that is named')}"
    assert f"in emit(), {place}. Sink.emit: Take one event." in notes_of(Deep(), "in emit()", lambda: Deep().emit(1))


def test_where_no_line_of_theirs_ran_it_is_the_methods(fake_config: Callable[..., RunConfig]) -> None:
    config = fake_config()
    config = fake_config(data={"eval_path": config.data.path}, evaluators=[Blocking()])
    with pytest.raises(PluginError, match=r"evaluate\(\) returned .* at once: write `async def evaluate`") as caught:
        distillkit.run(config, plugins=[FakeStudent, FakeScorer])
    assert f"test_attribution.py:{line_of('def evaluate')}. Evaluator.evaluate:" in str(caught.value)


def test_values_that_do_not_fit_are_attributed_to_who_built_them(fake_config: Callable[..., RunConfig]) -> None:
    with pytest.raises(AlignmentError) as caught:
        distillkit.run(fake_config(loss=ShortDatum()), plugins=[FakeStudent, FakeScorer])
    assert f"in batch(), {__file__}:{line_of('return Datum')}" in caught.value.__notes__[0].replace(
        str(Path(__file__).relative_to(Path.cwd())), __file__
    )


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A plugin of a package that is installed, which calls another one that is installed too."""
    monkeypatch.setattr("distillkit.roles.attribution.INSTALLED", (str(tmp_path),))
    library = tmp_path / "their_library.py"
    library.write_text("def fails():\n    raise ValueError('deep inside')\n", encoding="utf-8")
    plugin = tmp_path / "their_plugin.py"
    plugin.write_text("import their_library\n\n\ndef call():\n    their_library.fails()\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = importlib.util.spec_from_file_location("their_plugin", plugin)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("their_library", None)


def test_of_an_installed_plugin_it_is_its_own_package(installed: ModuleType) -> None:
    with pytest.raises(ValueError, match="deep inside") as caught:
        installed.call()
    assert caught.value.__traceback__ is not None
    called = caught.value.with_traceback(caught.value.__traceback__.tb_next)  # without this test's own frame
    assert raised_at(called) == f"{installed.__file__}:5"


def test_a_missing_key_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert error_text(KeyError("x")) == "KeyError: no key 'x'"
    assert error_text(KeyError()) == "KeyError"
    assert error_text(PluginNotFoundError("said whole")) == "PluginNotFoundError: said whole"
    with pytest.raises(BaseException), reporting():  # noqa: B017, PT011 - typer's
        raise KeyError("teacher")
    assert "failed: KeyError: no key 'teacher' (-v" in capsys.readouterr().err


def test_an_error_of_no_ones_code_names_no_line() -> None:
    assert raised_at(ValueError("never raised")) == ""
    assert issubclass(Deep, Sink)


def test_a_class_of_a_script_is_named_by_its_file(tmp_path: Path) -> None:
    script = tmp_path / "r_key.py"
    script.write_text(
        "import distillkit\nclass R(distillkit.Weighting):\n"
        "    name = 'r'\n    def weigh(self, step):\n        return 1.0\n",
        encoding="utf-8",
    )
    made = import_script(script).R()
    assert named(made) == "weighting 'r' (R of r_key.py)"
    assert named(FakeStudent()) == "student 'fake' (distillkit.testing.fakes.FakeStudent)"
