"""A function of a script is found by pickle on a host that has the script at another path."""

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from distillkit.config.script_modules import import_script
from distillkit_builtin.local.ranks.script_names import know_names, script_names


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_function_travels_between_paths(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    for folder in (there, here):
        folder.mkdir()
        (folder / "loss.py").write_text("def double(x):\n    return 2 * x\n")
    theirs = import_script(there / "loss.py")
    sent, names = pickle.dumps(theirs.double), {theirs.__name__: script_names()[theirs.__name__]}
    del sys.modules[theirs.__name__]  # another process, from here on
    own = import_script(here / "loss.py")
    with pytest.raises(ModuleNotFoundError):
        pickle.loads(sent)
    know_names([names, {own.__name__: script_names()[own.__name__]}])
    assert pickle.loads(sent) is own.double


def test_a_script_of_other_content_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "loss.py").write_text("def double(x):\n    return 3 * x\n")
    own = import_script(tmp_path / "loss.py")
    know_names([{"distillkit_script_loss_other": "another digest"}])
    assert "distillkit_script_loss_other" not in sys.modules
    assert own.__name__ in script_names()
