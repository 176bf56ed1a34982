"""The documentation is true of what is there: its links, names, examples, and the README's map of folders."""

import re
import runpy
from pathlib import Path

import pytest
from conftest import read_jsonl
from helpers.doc_pages import PAGES, TOP, headings_of

from distillkit.config.load import load_config
from distillkit.preflight.compatibility import plugins_of


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(TOP).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"<!--.*?-->|```.*?```|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target, heading in re.findall(r"\]\((?!https?:|mailto:)([^)#]*)#?([^)]*)\)", prose):
        place = page.parent / target if target else page
        assert place.exists(), f"{page.name} links to {target}"
        assert not heading or heading in headings_of(place), f"{page.name} links to {target}#{heading}"


def test_the_readme_fits_on_a_few_screens() -> None:
    assert len((TOP / "README.md").read_text(encoding="utf-8").splitlines()) < 150


def mapped() -> dict[str, str]:
    """Path to what its line says, of the README's tree; a line may name several, as in `report/, view/`."""
    tree = (TOP / "README.md").read_text(encoding="utf-8").partition("## Where things are\n\n```\n")[2]
    found: dict[str, str] = {}
    above: list[str] = []
    for line in tree.partition("```")[0].splitlines():
        indent, names, meaning = re.fullmatch(r"( *)([^\s,]+(?:, [^\s,]+)*)\s+(\S.*)", line).groups()
        for name in names.split(", "):
            above[len(indent) // 2 :] = [name]
            found["".join(above)] = meaning
    return found


TREES = {
    "distillkit/": 1,
    "plugins/distillkit_builtin/": 2,
    "loopback/distillkit_loopback/": 1,
    "tests/": 1,
    "docs/": 1,
    "examples/": 1,
    "benchmarks/": 1,
}
"""How deep the README maps the folders."""


def folders_of(top: str, depth: int) -> set[str]:
    """The folders with files, down to `depth` below `top`, and `top`."""
    folders = {
        path.relative_to(TOP).as_posix() + "/"
        for path in (TOP / top).rglob("*")
        if path.is_dir() and any(file.is_file() and file.suffix != ".pyc" for file in path.rglob("*"))
    }
    return {top, *(folder for folder in folders if folder.removeprefix(top).count("/") <= depth)}


def test_the_readme_maps_every_folder_and_nothing_else() -> None:
    lines = mapped()
    folders = {path for path in lines if path.endswith("/")}
    assert folders == set.union(*(folders_of(top, depth) for top, depth in TREES.items()))
    assert not [path for path in lines if not (TOP / path).exists()]
    named = [(path, file) for path, line in lines.items() for file in re.findall(r"\b\w+\.py\b", line)]
    assert len(named) > 5
    assert not [(path, file) for path, file in named if not any((TOP / path).glob(f"**/{file}"))]


@pytest.mark.parametrize(
    ("below", "of"),
    [
        ("tests/engine/", "distillkit"),
        ("tests/builtin/", "plugins/distillkit_builtin"),
        ("tests/loopback/", "loopback/distillkit_loopback"),
    ],
)
def test_tests_stand_in_the_folders_of_what_they_test(below: str, of: str) -> None:
    folders = {folder.removeprefix(below) for folder in folders_of(below, 9)}
    assert not [folder for folder in folders if not (TOP / of / folder).is_dir()]


@pytest.mark.parametrize("path", sorted((TOP / "examples").glob("*/config.yaml")), ids=lambda path: path.parent.name)
def test_examples_are_valid_but_for_their_models(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from helpers.rows import rows_of

    from distillkit.data.row_pipeline import RowPipeline

    monkeypatch.chdir(TOP)
    config, registry = load_config([path])
    assert not config.unreproducible(registry)
    assert plugins_of(config, registry).scorers
    for file in (config.data.path, config.data.eval_path):
        if file is not None:
            pipeline = RowPipeline.of(config)
            rows_of(Path(file)).validate(pipeline.count)
            assert sum(pipeline.rows_of.values()) == len(rows_of(Path(file)))


def test_the_routed_examples_data_is_what_its_script_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = TOP / "examples" / "routed_mopd"
    script = runpy.run_path(str(example / "make_data.py"))
    (tmp_path / "questions").symlink_to(example / "questions")
    monkeypatch.setitem(script["main"].__globals__, "HERE", tmp_path)
    script["main"]()
    for name in ("train.jsonl", "heldout.jsonl"):
        assert (tmp_path / name).read_text(encoding="utf-8") == (example / name).read_text(encoding="utf-8")
    train, held_out = (
        {row["messages"][-1]["content"] for row in read_jsonl(example / name)}
        for name in ("train.jsonl", "heldout.jsonl")
    )
    assert not train & held_out
    assert len(train) >= 96
    assert len(held_out) >= 32


NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
PRIVATE = re.compile(
    r"\b(draws?|drawn|drew|laws?|judge[sd]?|likelier|likeliest|belongings|learnt|blame[sd]?|pupils?|rolled back)\b",
    re.IGNORECASE,
)
"""Words of the code's old dialect, for which the field has others."""


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(TOP).as_posix())
def test_pages_speak_the_fields_words(page: Path) -> None:
    if page.name != "CHANGELOG.md" and page.parent.name != "developers":
        prose = re.sub(r"`[^`\n]*`", "", page.read_text(encoding="utf-8"))
        assert not [line for line in prose.splitlines() if PRIVATE.search(line)]


PLACE = re.compile(r"`((?:distillkit|plugins|loopback|tests|docs|examples|benchmarks)/[\w./-]+)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(TOP).as_posix())
def test_files_and_folders_that_a_page_names_are_there(page: Path) -> None:
    if page.name != "CHANGELOG.md":  # it also tells of what was there
        places = PLACE.findall(page.read_text(encoding="utf-8"))
        assert not [place for place in places if not (TOP / place).exists()]


def test_every_promise_of_the_reliability_page_names_tests_that_exist() -> None:
    named = NAMED_TEST.findall((TOP / "docs/reliability.md").read_text(encoding="utf-8"))
    assert len(named) > 40
    for path, name in named:
        assert f"def {name}" in (TOP / path).read_text(encoding="utf-8"), (path, name)
