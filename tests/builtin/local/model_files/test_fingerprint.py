import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from distillkit_builtin.local.model_files import fingerprint
from distillkit_builtin.local.model_files.fingerprint import model_fingerprint


def test_a_fingerprint_is_of_what_the_model_is_made_of(tiny_model: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy, copy_function=shutil.copyfile)
    (copy / "README.md").write_text("no part of the model")
    before = model_fingerprint(tiny_model)
    assert model_fingerprint(str(copy)) == before
    config = copy / "config.json"
    config.write_text(config.read_text().replace('"rms_norm_eps"', '"rms_norm_epsilon"'))
    after = model_fingerprint(str(copy))
    assert [name for name in before if after[name] != before[name]] == ["model config"]


@pytest.mark.parametrize("offset", [0, 400_000, 1_048_575], ids=["first", "middle", "last"])
def test_of_a_large_file_a_sample_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offset: int) -> None:
    monkeypatch.setattr(fingerprint, "WHOLE", 1000)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(bytes(1_048_576))
    before = model_fingerprint(str(tmp_path))
    changed = bytearray(1_048_576)
    changed[max(0, offset - 5000) : offset + 5000] = b"x" * len(changed[max(0, offset - 5000) : offset + 5000])
    weights.write_bytes(changed)
    assert model_fingerprint(str(tmp_path)) != before
    weights.write_bytes(bytes(1_048_576))
    assert model_fingerprint(str(tmp_path)) == before
    weights.write_bytes(bytes(1_048_577))
    assert model_fingerprint(str(tmp_path)) != before


HUB = """
from distillkit_builtin.local.model_files.fingerprint import model_fingerprint

print(model_fingerprint("org/name"))
print(model_fingerprint("org/name"), model_fingerprint("org/other"))
"""


def test_a_model_on_the_hub_is_known_by_its_revision(tiny_model: str, tmp_path: Path) -> None:
    cache, revision = tmp_path / "hub/models--org--name", "f" * 40
    (cache / "refs").mkdir(parents=True)
    (cache / "refs/main").write_text(revision)
    (cache / "snapshots" / revision).mkdir(parents=True)
    shutil.copy(Path(tiny_model) / "config.json", cache / "snapshots" / revision)  # the weights come later
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_HUB_CACHE", None)
    done = subprocess.run([sys.executable, "-c", HUB], env=environment, capture_output=True, text=True, check=True)
    known = f"{{'revision on the hub': '{revision}'}}"
    assert done.stdout.splitlines() == [known, f"{known} {{}}"]
