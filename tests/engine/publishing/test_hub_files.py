"""What goes to the hub of the files beside the weights: no path of the machine, however it is written there."""

import json
from pathlib import Path

import pytest

from distillkit.publishing.hub_files import HubFile, hub_files
from distillkit.publishing.machine_paths import MachinePaths

HOME = "/home/jos\u00e9 p"
PATHS = MachinePaths((HOME,))


def sent(exported: Path) -> dict[str, str]:
    files: list[HubFile] = list(hub_files(exported, "org/base", PATHS))
    return {file.name: bytes(file.content).decode() for file in files if isinstance(file.content, bytes)}


@pytest.mark.parametrize("ascii_only", [True, False])
def test_folders_are_taken_out_of_configs_whoever_they_are_of(tmp_path: Path, ascii_only: bool) -> None:
    config = {
        "_name_or_path": "/elsewhere/client/model",
        "inner": [{"vocab_file": f"{HOME}/vocab.json"}],
        "note": f"{HOME}/x",
        "bos_token": "/s",
    }
    (tmp_path / "config.json").write_text(json.dumps(config, ensure_ascii=ascii_only), encoding="utf-8")
    assert json.loads(sent(tmp_path)["config.json"]) == {
        "_name_or_path": "model",
        "inner": [{"vocab_file": "vocab.json"}],
        "note": "x",
        "bos_token": "/s",
    }


def test_an_adapter_names_its_base_as_the_hub_does(tmp_path: Path) -> None:
    config = {"base_model_name_or_path": f"{HOME}/model", "r": 8}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    assert json.loads(sent(tmp_path)["adapter_config.json"]) == {"base_model_name_or_path": "org/base", "r": 8}


@pytest.mark.parametrize("written", [HOME, r"/home/jos\u00e9 p", "/home/jos%C3%A9%20p"])
def test_a_path_is_found_in_every_writing(written: str) -> None:
    assert PATHS.found_in(f'{{"a": "{written}/x"}}'.encode()) == HOME
    assert PATHS.found_in(b"/home/joseph") is None
