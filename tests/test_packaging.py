"""What is in the wheel, and what works when nothing but the core is installed."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import question

TOP = Path(__file__).parent.parent
WITHOUT_EXTRAS = (
    "import sys\n"
    "absent = ('torch', 'peft', 'gguf', 'accelerate')\n"
    "sys.modules.update(dict.fromkeys(absent))\n"  # find_spec says None, import raises
    "from distillkit.cli.main import main\n"
    "main()\n"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(TOP)], check=True)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_carries_the_examples_and_the_types(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for example in ("routed_mopd", "gsm8k_privileged", "single_teacher"):
        for name in ("config.yaml", "train.jsonl", "heldout.jsonl"):
            assert f"distillkit/examples/{example}/{name}" in names
    assert {"distillkit/py.typed", "distillkit_builtin/py.typed", "distillkit/loop/engine.py"} <= names
    assert not [name for name in names if name.startswith("tests")]


def without_extras(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_EXTRAS, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_with_the_core_alone_plugins_are_listed_and_runs_checked(tmp_path: Path, tiny_model: str) -> None:
    listed = without_extras("plugins", "list")
    assert listed.returncode == 0, listed.stderr
    assert "local" in listed.stdout
    rows = tmp_path / "rows.jsonl"
    rows.write_text(f"{question('why?')}\n".replace("'", '"'), encoding="utf-8")
    config = tmp_path / "config.yaml"
    config.write_text(
        f"data: {rows}\nstudent: {{name: local, model: {tiny_model}}}\nteachers: [{{model: {tiny_model}}}]\n"
        f"sampling: {{max_completion_tokens: 8}}\nlog_path: {tmp_path}/runs\n",
        encoding="utf-8",
    )
    checked = without_extras("check", str(config))
    assert checked.returncode == 0, checked.stderr
    assert "pip install 'distillkit[local]'" in checked.stdout
    assert "check: ok, once the above is installed" in checked.stdout
    run = without_extras("run", str(config))
    assert run.returncode == 2
    assert "student (LoRA of rank 16) needs torch, peft: pip install 'distillkit[local]'" in run.stderr
    assert "Traceback" not in run.stderr
