"""The documentation is true: its code runs, its pages are those of the classes, its links lead somewhere."""

import json
import re
import runpy
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from unittest.mock import patch

import pytest
from conftest import read_jsonl
from typer.testing import CliRunner

import distillkit
import distillkit.testing
from distillkit import Registry
from distillkit.cli.main import app
from distillkit.cli.reporting import OUT
from distillkit.config.load import load_config
from distillkit.preflight.compatibility import plugins_of
from distillkit.testing import check_plugin
from distillkit_builtin.losses.importance_sampling import ImportanceSampling

TOP = Path(__file__).parent.parent
PAGES = sorted([TOP / "README.md", TOP / "CONTRIBUTING.md", TOP / "CHANGELOG.md", *(TOP / "docs").rglob("*.md")])
REFERENCE = TOP / "docs" / "reference"
MARKED = re.compile(r"<!-- test: (\S+) -->\n```\w+\n(.*?)```", re.DOTALL)
QUICK = ["sampling.max_completion_tokens=8", "train.max_steps=1", "-q"]


def blocks(page: str) -> Mapping[str, str]:
    """File name to content, of the code that a page marks for tests."""
    return dict(MARKED.findall((TOP / page).read_text(encoding="utf-8")))


@pytest.fixture
def write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: str, other_tiny_model: str
) -> Callable[[str], None]:
    """Write a page's files into the working directory, with tiny models in the place of Qwen's."""

    def write_all(page: str) -> None:
        monkeypatch.chdir(tmp_path)
        for name, content in blocks(page).items():
            small = content.replace("HuggingFaceTB/SmolLM2-135M-Instruct", tiny_model)
            small = small.replace("Qwen/Qwen3-0.6B", tiny_model).replace("Qwen/Qwen3-1.7B", other_tiny_model)
            Path(name).write_text(small, encoding="utf-8")

    return write_all


def call(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output
    return done.output


def test_the_readmes_shortest_config_runs(write: Callable[[str], None]) -> None:
    write("README.md")
    write("docs/getting-started.md")
    call("run", "shortest.yaml", *QUICK)
    assert len(read_jsonl(Path("runs/run/samples.jsonl"))) == 1


def test_the_single_teacher_example_runs(write: Callable[[str], None]) -> None:
    write("docs/getting-started.md")
    call("run", "single.yaml", *QUICK)
    (sample,) = read_jsonl(Path("runs/single/samples.jsonl"))
    assert sample["question"].startswith("Solve 6 * 7.")


def test_the_routed_example_runs(write: Callable[[str], None]) -> None:
    write("docs/getting-started.md")
    call("run", "routed.yaml", *QUICK)
    prompts = {sample["route"]: sample["teacher_prompts"] for sample in read_jsonl(Path("runs/routed/samples.jsonl"))}
    assert set(prompts) == {"math-teacher", "arithmetic-teacher"}
    assert "The correct answer is 42" in prompts["math-teacher"]["math-teacher"]


def test_the_dataset_tutorial(write: Callable[[str], None]) -> None:
    write("docs/tutorials/README.md")
    write("docs/tutorials/write-a-dataset.md")
    runs_alone("make_database.py")
    assert "query" in call("plugins", "show", "dataset", "sqlite", "-p", "my_dataset.py")
    assert "questions.db row 1" in call("check", "sqlite.yaml")
    call("run", "sqlite.yaml", "train.max_steps=2")
    first = read_jsonl(Path("runs/sqlite/ledger.jsonl"))
    call("run", "sqlite.yaml", "train.max_steps=3", "--resume")
    trained = read_jsonl(Path("runs/sqlite/ledger.jsonl"))
    assert trained[:2] == first
    assert sorted(entry["row_id"].partition("-")[0] for entry in trained) == ["1", "2", "3"]
    with closing(sqlite3.connect("questions.db")) as database, database:
        database.execute("UPDATE questions SET answer = '43' WHERE id = 1")
    refused = CliRunner().invoke(app, ["run", "sqlite.yaml", "train.max_steps=4", "--resume"])
    assert refused.exit_code == 2
    assert "the rows changed" in refused.output
    passes_its_own_tests("test_my_dataset.py")


def test_the_dataset_of_many_files(write: Callable[[str], None]) -> None:
    write("docs/tutorials/README.md")
    write("docs/tutorials/write-a-dataset.md")
    for name in ("logs/a.log", "logs/sub/b.log"):
        Path(name).parent.mkdir(exist_ok=True, parents=True)
        Path(name).write_text("Why?\tSo.\n", encoding="utf-8")
    source = ("data.source={name: logs, folder: logs}", "data.eval_source=null", "-p", "my_logs.py")
    call("run", "sqlite.yaml", *source, "evaluators=[]")
    trained = {entry["row_id"].partition("-")[0] for entry in read_jsonl(Path("runs/sqlite/ledger.jsonl"))}
    assert trained == {"a.log:1", "sub/b.log:1"}
    Path("logs/sub/b.log").write_text("Why?\n", encoding="utf-8")
    refused = CliRunner().invoke(app, ["check", "sqlite.yaml", *source, "evaluators=[]"])
    assert "logs/sub/b.log:1: line: has no tab" in refused.output


def test_the_router_tutorial(write: Callable[[str], None]) -> None:
    write("docs/tutorials/README.md")
    write("docs/tutorials/write-a-router.md")
    assert "cutoff" in call("plugins", "show", "router", "length", "-p", "my_router.py")
    assert "short 1, long 1" in call("check", "length.yaml")
    assert "  short 0.000 (1)  long " in call("run", "length.yaml")
    call("run", "length.yaml", "router.cutoff=50", "name=fifty")
    assert [entry["route"] for entry in read_jsonl(Path("runs/fifty/ledger.jsonl"))] == ["short", "short"]
    runs_alone("from_python.py")
    routes = {entry["route"] for entry in read_jsonl(Path("runs/from-python/ledger.jsonl"))}
    assert routes == {"short", "long"}
    written = Path("runs/from-python/config.yaml").read_text(encoding="utf-8")
    assert "# NOT RE-RUNNABLE: router was passed in Python" in written
    passes_its_own_tests("test_my_router.py")


def test_the_scorer_tutorial(write: Callable[[str], None]) -> None:
    write("docs/tutorials/README.md")
    write("docs/tutorials/write-a-scorer.md")
    assert "share" in call("plugins", "show", "scorer", "words", "-p", "my_scorer.py")
    assert "check: ok" in call("check", "words.yaml")
    assert "done: 3 steps, 24 completions trained, 0 failed" in call("run", "words.yaml")
    first, _, last = (row["train/reverse_kl"] for row in read_jsonl(Path("runs/words/metrics.jsonl")))
    assert last < first
    passes_its_own_tests("test_my_scorer.py")


def test_the_scorer_of_the_tutorial_that_gives_more(write: Callable[[str], None]) -> None:
    write("docs/tutorials/write-a-scorer.md")
    with Path("my_scorer.py").open("a", encoding="utf-8") as script:
        script.write("\n\n" + Path("more.py").read_text(encoding="utf-8"))
    assert "words_with_more" in call("plugins", "list", "-p", "my_scorer.py")
    check_plugin(runpy.run_path("my_scorer.py")["WordScorerWithMore"]())


def test_the_loss_tutorial(write: Callable[[str], None]) -> None:
    write("docs/tutorials/write-a-loss.md")
    assert "cap" in call("plugins", "show", "loss", "squared_gap", "-p", "my_loss.py")
    assert "check: ok" in call("check", "squared.yaml")
    out = call("run", "squared.yaml")
    assert "12 rows, 3 steps, 24 completions, 1 teacher: short" in out
    assert "done: 3 steps, 24 completions trained, 0 failed" in out
    assert all(row["train/loss"] > 0 for row in read_jsonl(Path("runs/squared/metrics.jsonl")))
    call("run", "squared.yaml", "loss.cap=0.5", "name=half", *QUICK)
    passes_its_own_tests("test_my_loss.py")


def test_the_divergence_of_the_loss_tutorial(write: Callable[[str], None]) -> None:
    write("docs/tutorials/write-a-loss.md")
    code = [line for line in Path("my_divergence.py").read_text(encoding="utf-8").splitlines() if line]
    assert len(code) == 20
    assert "proven" in call("plugins", "prove", "alpha", "-p", "my_divergence.py")
    chosen = ("-p", "my_divergence.py", "loss={name: alpha, alpha: 0.3}", "name=alpha")
    call("run", "squared.yaml", *chosen, "train.max_steps=2")
    assert all(row["train/loss"] > 0 for row in read_jsonl(Path("runs/alpha/metrics.jsonl")))
    passes_its_own_tests("test_my_divergence.py")


def test_the_config_of_the_page_about_losses_runs(write: Callable[[str], None]) -> None:
    write("docs/losses.md")
    write("docs/tutorials/write-a-loss.md")
    call("run", "whole.yaml", "train.max_steps=2")
    assert all(row["train/loss"] > 0 for row in read_jsonl(Path("runs/whole/metrics.jsonl")))
    topk = "loss={name: divergence, support: teacher_topk, k: 20}"
    call("run", "whole.yaml", topk, "name=topk", *QUICK)


def test_a_reference_of_the_page_about_losses_reads_the_students_prompt_and_has_no_rows(
    write: Callable[[str], None],
) -> None:
    write("docs/losses.md")
    write("docs/tutorials/write-a-loss.md")
    call("run", "beyond.yaml", *QUICK)
    call("run", "beyond.yaml", "name=plain", "loss.extrapolate=null", *QUICK)
    for sample in read_jsonl(Path("runs/beyond/samples.jsonl")):
        assert (sample["route"], {*sample["teacher_logprobs"]}) == ("short", {"short"})
        assert "in one short sentence" in sample["teacher_prompts"]["short"]
        assert sample["teacher_prompts"]["start"] == sample["prompt"]
    plain, beyond = (read_jsonl(Path(f"runs/{name}/metrics.jsonl"))[0] for name in ("plain", "beyond"))
    # The student is still the reference: the gap to the teacher is stretched, and that to the anchor is none.
    assert beyond["train/abs_advantage"] == pytest.approx(1.25 * plain["train/abs_advantage"], rel=1e-3)


def test_several_teachers_of_the_page_about_losses_are_one_mixture(write: Callable[[str], None]) -> None:
    write("docs/losses.md")
    write("docs/tutorials/write-a-loss.md")
    call("run", "mixture.yaml", *QUICK)
    for sample in read_jsonl(Path("runs/mixture/samples.jsonl")):
        assert sample["teacher_logprobs"].keys() == {"short", "start"}


def test_the_page_on_proofs(write: Callable[[str], None]) -> None:
    write("docs/prove-a-loss.md")
    said = re.search(
        r"^> is zero \(\S+\): (.*?)\n\n", (TOP / "docs/prove-a-loss.md").read_text(encoding="utf-8"), re.M | re.S
    )
    assert said is not None
    with patch.object(OUT, "_width", 1000):  # COLUMNS is read when a console is made
        refused = CliRunner().invoke(app, ["plugins", "prove", "gap", "-p", "my_gap.py"])
    assert refused.exit_code == 1
    assert said[1].replace("\n> ", " ") in refused.output
    assert "not proven: expected gradient, teacher felt, another teacher" in refused.output
    script = Path("my_gap.py")
    broken = script.read_text(encoding="utf-8").partition("def gap(")[0]
    script.write_text(broken + Path("fixed_gap.py").read_text(encoding="utf-8"), encoding="utf-8")
    assert call("plugins", "prove", "gap", "-p", "my_gap.py").endswith("\nproven\n")


def test_the_table_of_proofs_is_that_of_the_losses() -> None:
    script = runpy.run_path(str(TOP / "docs" / "make_proofs.py"))
    written = (TOP / "docs" / "prove-a-loss.md").read_text(encoding="utf-8")
    assert written == script["page"](), "docs/prove-a-loss.md has fallen behind: run python docs/make_proofs.py"
    assert "**no**" not in written
    with pytest.raises(LookupError, match=r"no line of the table of proofs sets importance_sampling.scale"):
        script["require_all_set"]("importance_sampling", ImportanceSampling, [{"ratio_log_cap": 1}])


def test_the_weighting_tutorial(write: Callable[[str], None]) -> None:
    write("docs/tutorials/README.md")
    write("docs/tutorials/write-a-weighting.md")
    code = blocks("docs/tutorials/write-a-weighting.md")["my_weighting.py"]
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    assert "nats" in call("plugins", "show", "weighting", "within", "-p", "my_weighting.py")
    assert "within" in call("plugins", "list", "-p", "my_weighting.py")
    assert "check: ok" in call("check", "within.yaml")
    call("run", "within.yaml", "train.weightings.0.nats=3")
    rows = read_jsonl(Path("runs/within/metrics.jsonl"))
    assert len(rows) == 3
    assert all(row["weights/kept_fraction"] <= row["weights/truncated"] <= 1 for row in rows)
    assert all(0 < row["weights/within"] <= 1 for row in rows)
    passes_its_own_tests("test_my_weighting.py")


def test_the_page_on_several_teachers(write: Callable[[str], None]) -> None:
    write("docs/tutorials/README.md")
    write("docs/several-teachers.md")
    checked = " ".join(call("check", "shares.yaml").split())
    page = (TOP / "docs" / "several-teachers.md").read_text(encoding="utf-8")
    shown = re.search(r"```\n(rows .*?)```", page, re.DOTALL)
    assert shown
    for line in shown[1].splitlines():
        assert line == "..." or " ".join(line.split()) in checked
    call("run", "shares.yaml")
    for row in read_jsonl(Path("runs/shares/metrics.jsonl")):
        assert (row["teacher_route/long/scored"], row["teacher_route/short/scored"]) == (3, 1)
        assert row["teacher_route/long/weight"] == pytest.approx(0.5)
    routes = [entry["route"] for entry in read_jsonl(Path("runs/shares/ledger.jsonl"))]
    assert routes.count("long") == 9


def test_the_evaluator_tutorial(write: Callable[[str], None]) -> None:
    write("docs/tutorials/README.md")
    write("docs/tutorials/write-an-evaluator.md")
    assert "below" in call("plugins", "show", "evaluator", "surprise", "-p", "my_evaluator.py")
    assert "check: ok" in call("check", "surprise.yaml")
    out = call("run", "surprise.yaml")
    assert "held-out prompts after training (6 steps), before -> now" in out
    assert all(measure in out for measure in ("surprising tokens", "96% -> 73%", "prompt's gain"))
    found = json.loads(Path("runs/surprise/summary.json").read_text(encoding="utf-8"))["eval"]
    assert found["after"]["surprises"] < found["before"]["surprises"]
    assert found["after"]["routes"]["made-up"]["prompt_gain"] == 0
    assert "eval/surprises" in read_jsonl(Path("runs/surprise/metrics.jsonl"))[-1]
    passes_its_own_tests("test_my_evaluator.py")


def test_the_sink_tutorial(write: Callable[[str], None]) -> None:
    write("docs/tutorials/README.md")
    write("docs/tutorials/write-a-sink.md")
    assert "check: ok" in call("check", "steps.yaml")
    call("run", "steps.yaml")
    call("run", "steps.yaml", "--resume", "data.epochs=5")
    lines = Path("runs/steps/steps.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "step,train/reverse_kl,completions/mean_length"
    assert [line.partition(",")[0] for line in lines[1:]] == ["1", "2", "3", "4", "5"]
    passes_its_own_tests("test_my_sink.py")


def passes_its_own_tests(name: str) -> None:
    runs_alone("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", name)


def runs_alone(*arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


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


def headings_of(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = re.findall(r"^#+ (.*)$", prose, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


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


def test_every_built_in_plugin_has_a_place_in_the_docs() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in (TOP / "docs" / "reference").glob("*.md"))
    mine = [info for info in Registry.discover().infos() if info.distribution == "distillkit"]
    assert mine
    assert all(f"### `{info.name}`" in text for info in mine)


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
