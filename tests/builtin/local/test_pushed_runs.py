"""A run of a real model on a hub on this machine: what arrives there loads, and has no path of this machine in it."""

import getpass
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import question
from helpers.hub_server import Hub, serving
from helpers.hub_uploads import ModelRepo
from huggingface_hub import constants
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

import distillkit
from distillkit.cli.main import app

LICENCE = ("--license", "apache-2.0")
BASE = ("--base", "org/base")
SECRET = "hf_secretsecretsecret"


def call(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["push", *map(str, arguments)], env={"COLUMNS": "200"})
    assert done.exit_code == code, done.output
    return " ".join(done.output.split()) if code else done.output


@pytest.fixture(scope="module")
def runs(tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """A run of one step: a LoRA of a rank, or all weights; of data, models and directory of this machine."""
    folder = tmp_path_factory.mktemp("of-somebody")

    def make(rank: int) -> Path:
        run_dir = folder / f"rank-{rank}"
        if not run_dir.exists():
            shutil.copytree(tiny_model, folder / "my-base", dirs_exist_ok=True)
            rows = "".join(f"{json.dumps(question(str(number)))}\n" for number in range(4))
            (folder / "private-rows.jsonl").write_text(rows, encoding="utf-8")
            rows_at = str(folder / "private-rows.jsonl")
            scorer = {"name": "local", "dtype": "float32", "device": "cpu"}
            student = {"name": "local", "model": str(folder / "my-base"), "dtype": "float32", "device": "cpu"}
            distillkit.run(
                {
                    "name": f"rank-{rank}",
                    "log_path": str(folder / "{name}"),
                    "data": {"path": rows_at, "eval_path": rows_at},
                    "student": {**student, "lora_rank": rank},
                    "teachers": [{"model": str(folder / "my-base"), "scorer": scorer}],
                    "sampling": {"max_completion_tokens": 4},
                    "train": {"prompt_groups_per_step": 4},
                    "probe": {"at_start": "never"},
                    "sinks": [],
                }
            )
        return run_dir

    return make


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving(Hub()) as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # a protocol of its own, in a library of Rust
        monkeypatch.setenv("HF_TOKEN", SECRET)
        yield served


def arrived(hub: Hub, folder: Path, branch: str = "main") -> Path:
    """The files of the repository, in a directory."""
    folder.mkdir()
    for name, content in hub.uploads.models["org/new"].branches[branch].items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("rank", [4, 0])
def test_what_arrives_loads_as_what_was_exported(
    hub: Hub, runs: Callable[[int], Path], tiny_model: str, tmp_path: Path, rank: int
) -> None:
    said = call(runs(rank), "org/new", *LICENCE, *BASE, "--private")
    assert f"org/new: {hub.url}/org/new/commit/" in said
    assert hub.uploads.models["org/new"].private
    assert hub.uploads.models["org/new"].messages == ["distillkit: weights after step 1"]
    assert hub.uploads.tokens <= {f"Bearer {SECRET}", ""}
    there = arrived(hub, tmp_path / "there")
    exported = runs(rank) / ("adapter" if rank else "model")
    weights = "adapter_model.safetensors" if rank else "model.safetensors"
    assert (there / weights).read_bytes() == (exported / weights).read_bytes()
    AutoTokenizer.from_pretrained(there)
    if rank:
        assert json.loads((there / "adapter_config.json").read_text())["base_model_name_or_path"] == "org/base"
        PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), there)
    else:
        AutoModelForCausalLM.from_pretrained(there)


@pytest.mark.parametrize("rank", [4, 0])
def test_no_byte_that_arrives_says_where_it_was_made(
    hub: Hub, runs: Callable[[int], Path], tmp_path: Path, rank: int
) -> None:
    run_dir = runs(rank)
    (run_dir / "report.html").write_text(f"<p>{run_dir}/config.yaml</p>", encoding="utf-8")
    extra = run_dir / ("adapter" if rank else "model") / "notes.txt"
    extra.write_text("mine", encoding="utf-8")
    call(run_dir, "org/new", *LICENCE, *BASE, "--report")
    files = hub.uploads.models["org/new"].branches["main"]
    assert "notes.txt" not in files
    assert b"<p>config.yaml</p>" in files["report.html"]
    forbidden = [str(run_dir.parent), str(Path.home()) + "/", str(Path.cwd()), "of-somebody", SECRET]
    forbidden += [f"/{getpass.getuser()}/"]
    for name, content in files.items():
        for each in forbidden:
            assert each.encode() not in content, name
    extra.unlink()


def test_the_card_says_what_came_of_the_run(hub: Hub, runs: Callable[[int], Path]) -> None:
    said = call(runs(4), "org/new", *LICENCE, *BASE, "--dry-run")
    assert hub.requests == []
    columns = [line.split() for line in said[: said.index("---\n")].splitlines()[1:] if line]
    assert columns[0] == ["file", "bytes", "from"]
    sources = {name: " ".join(source) for name, _, *source in columns[1:]}
    assert sources["README.md"] == "made for the hub"
    assert sources["adapter_model.safetensors"].endswith("adapter/adapter_model.safetensors")
    _, front, text = said[said.index("---\n") :].split("---\n", 2)
    assert yaml.safe_load(front) == {
        "base_model": "org/base",
        "library_name": "peft",
        "license": "apache-2.0",
        "pipeline_tag": "text-generation",
        "tags": ["distillkit", "on-policy-distillation", "lora"],
    }
    assert "| my-base | 4 | reverse KL, nats a token |" in text or "| all | 4 | reverse KL, nats a token |" in text
    assert 'PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("org/base"), "org/new")' in text
    for words in ("data: `private-rows.jsonl`", "teachers: `my-base`", "loss: `importance_sampling`", "lora rank: 4"):
        assert f"- {words}\n" in text
    assert "path/to" not in text


def test_a_branch_is_made_and_a_licence_may_be_the_base_models(hub: Hub, runs: Callable[[int], Path]) -> None:
    hub.uploads.models["org/base"] = ModelRepo(private=False, licence="mit")
    call(runs(4), "org/new", "--license", "base", *BASE, "--revision", "trial")
    repo = hub.uploads.models["org/new"]
    assert "license: mit" in repo.branches["trial"]["README.md"].decode()
    assert repo.branches["main"] == {}
    hub.uploads.models["org/base"].licence = None
    said = call(runs(4), "org/new", "--license", "base", *BASE, code=2)
    assert "the hub names no licence of org/base" in said


def test_what_is_missing_is_asked_for_before_anything_is_sent(
    hub: Hub, runs: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = runs(4)
    assert "name the licence, as the hub writes it: --license apache-2.0" in call(run_dir, "org/new", *BASE, code=2)
    assert "name it as the hub has it, by --base ORG/NAME" in call(run_dir, "org/new", *LICENCE, code=2)
    assert "'new' is no name of a repository on the hub" in call(run_dir, "new", *LICENCE, *BASE, code=2)
    assert hub.requests == []
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert "there is no token of the hub: set HF_TOKEN" in call(run_dir, "org/new", *LICENCE, *BASE, code=2)
    assert hub.requests == []


def test_what_the_hub_refuses_is_said_on_one_line(hub: Hub, runs: Callable[[int], Path]) -> None:
    hub.uploads.models["org/new"] = ModelRepo(private=False)
    assert "is there already, and public" in call(runs(4), "org/new", *LICENCE, *BASE, "--private", code=2)
    hub.uploads.may_write = False
    said = call(runs(4), "org/new", *LICENCE, *BASE, code=2)
    assert "the hub refused org/new: " in said
    assert "the token may lack the right to write there" in said
    assert hub.uploads.models["org/new"].branches["main"] == {}


@pytest.fixture
def copied(runs: Callable[[int], Path], tmp_path: Path) -> Path:
    shutil.copytree(runs(4), tmp_path / "copied")
    return tmp_path / "copied"


def change_summary(run_dir: Path, **values: Any) -> None:
    summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    (run_dir / "summary.json").write_text(json.dumps({**summary, **values}), encoding="utf-8")


@pytest.mark.parametrize(("status", "words"), [("failed", "the run is failed"), ("running", "the run has not ended")])
def test_a_run_that_is_not_complete_is_refused(hub: Hub, copied: Path, status: str, words: str) -> None:
    change_summary(copied, status=status)
    said = call(copied, "org/new", *LICENCE, *BASE, code=2)
    assert f"{words}, and only a completed one is published; go on with it by --resume" in said


def test_an_export_that_cannot_be_trusted_is_refused(hub: Hub, copied: Path) -> None:
    weights = copied / "adapter" / "adapter_model.safetensors"
    whole, card = weights.read_bytes(), copied / "adapter" / "README.md"
    weights.write_bytes(whole[:-1])
    assert "is cut off or damaged" in call(copied, "org/new", *LICENCE, *BASE, code=2)
    weights.unlink()
    assert "holds no weights" in call(copied, "org/new", *LICENCE, *BASE, code=2)
    weights.write_bytes(whole)
    card.write_text(f"{card.read_text()}\n**what others load from x is not what was trained: y**\n", encoding="utf-8")
    assert "came back as other weights than were trained" in call(copied, "org/new", *LICENCE, *BASE, code=2)
    card.unlink()
    assert "was not written to its end, nor read back" in call(copied, "org/new", *LICENCE, *BASE, code=2)
    shutil.rmtree(copied / "adapter")
    assert "is not there any more" in call(copied, "org/new", *LICENCE, *BASE, code=2)


def test_a_path_that_cannot_be_taken_out_is_refused(hub: Hub, copied: Path) -> None:
    (copied / "adapter" / "vocab.json").write_text(json.dumps({str(copied): 1}), encoding="utf-8")
    said = call(copied, "org/new", *LICENCE, *BASE, code=2)
    assert "vocab.json has the path" in said
    assert "which is not to be published" in said
