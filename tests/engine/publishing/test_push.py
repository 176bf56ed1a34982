"""What of a run goes to the hub, as far as its files alone say: which model an adapter there is for."""

import json
from pathlib import Path

import pytest
import yaml

from distillkit.errors import InputError
from distillkit.publishing.push import Wish, prepare_push
from distillkit.run_directory.directory import HEADER


def make_run(folder: Path, model: str) -> Path:
    """A completed run of a student of that model, which exported an adapter without tensors."""
    adapter = folder / "run/adapter"
    adapter.mkdir(parents=True)
    config = {"name": "run", "student": {"name": "tinker", "model": model}, "teachers": [{"model": model}]}
    (folder / "run/config.yaml").write_text(HEADER + yaml.safe_dump(config), encoding="utf-8")
    summary = {"status": "completed", "steps": 3, "adapter_path": str(adapter)}
    (folder / "run/summary.json").write_text(json.dumps(summary), encoding="utf-8")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/models/here", "r": 4}))
    header = b"{}"
    (adapter / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    (adapter / "README.md").write_text("# An adapter\n", encoding="utf-8")
    return folder / "run"


def wish(run_dir: Path, licence: str = "mit") -> Wish:
    return Wish(run_dir, "org/new", licence, None, private=False, revision=None, report=False)


@pytest.mark.parametrize("model", ["Qwen/Qwen3-8B", "Qwen/Qwen3-8B:peft:131072"])
def test_the_base_is_the_students_model_by_its_name_on_the_hub(tmp_path: Path, model: str) -> None:
    asked: list[str] = []

    def licence(base: str) -> str:
        asked.append(base)
        return "apache-2.0"

    push = prepare_push(wish(make_run(tmp_path, model), "base"), licence)
    assert asked == ["Qwen/Qwen3-8B"]
    (config,) = [file for file in push.files if file.name == "adapter_config.json"]
    assert json.loads(bytes(config.content))["base_model_name_or_path"] == "Qwen/Qwen3-8B"
    assert ":peft" not in push.card


@pytest.mark.parametrize("model", ["/models/Qwen3-8B", "./Qwen3-8B", "Qwen3-8B:peft:131072"])
def test_a_base_without_a_name_on_the_hub_is_to_be_named(tmp_path: Path, model: str) -> None:
    with pytest.raises(InputError, match=r"by --base ORG/NAME"):
        prepare_push(wish(make_run(tmp_path, model)), lambda base: None)
