"""The pages that scripts write are those of the classes."""

import re
import runpy

import pytest
from helpers.doc_pages import REFERENCE, TOP, headings_of

import distillkit
import distillkit.testing
from distillkit import Registry
from distillkit_builtin.losses.importance_sampling import ImportanceSampling


def test_the_table_of_proofs_is_that_of_the_losses() -> None:
    script = runpy.run_path(str(TOP / "docs" / "make_proofs.py"))
    written = (TOP / "docs" / "prove-a-loss.md").read_text(encoding="utf-8")
    assert written == script["page"](), "docs/prove-a-loss.md has fallen behind: run python docs/make_proofs.py"
    assert "**no**" not in written
    with pytest.raises(LookupError, match=r"no line of the table of proofs sets importance_sampling.scale"):
        script["require_all_set"]("importance_sampling", ImportanceSampling, [{"ratio_log_cap": 1}])


def test_the_reference_pages_are_those_of_the_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOP / "docs"))
    pages = runpy.run_path(str(TOP / "docs" / "make_reference.py"))["pages"]()
    assert {path.name for path in REFERENCE.iterdir()} == set(pages)
    for name, content in pages.items():
        written = (REFERENCE / name).read_text(encoding="utf-8")
        assert written == content, f"{name} has fallen behind: run python docs/make_reference.py"


def test_every_section_of_a_config_has_a_table_in_the_reference() -> None:
    written = (REFERENCE / "config.md").read_text(encoding="utf-8")
    assert "## probe" in written
    assert not re.findall(r"\w+Config\b", re.sub(r"`[^`]*`", "", written))  # the class of a section without one


def test_every_public_name_has_a_place_in_the_reference() -> None:
    headings = {name: headings_of(REFERENCE / name) for name in (path.name for path in REFERENCE.glob("*.md"))}
    listed = (REFERENCE / "README.md").read_text(encoding="utf-8")
    places = dict(re.findall(r"\[(\w+)\]\((\S+?)\)", listed.partition("## `from distillkit import")[2]))
    assert places.keys() == {*distillkit.__all__, *distillkit.testing.__all__}
    for name, place in places.items():
        page, _, heading = place.partition("#")
        assert (heading or name.lower()) in headings[page], f"{name} is not described on {page}"


def test_every_field_of_the_reference_has_a_meaning() -> None:
    for page in REFERENCE.glob("*.md"):
        rows = [line for line in page.read_text(encoding="utf-8").splitlines() if re.search(r"\|\s*\|$", line)]
        assert not rows, f"{page.name}: give these fields a docstring or description: {rows}"


def test_every_built_in_plugin_has_a_place_in_the_docs() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in (TOP / "docs" / "reference").glob("*.md"))
    mine = [info for info in Registry.discover().infos() if info.distribution == "distillkit"]
    assert mine
    assert all(f"### `{info.name}`" in text for info in mine)
