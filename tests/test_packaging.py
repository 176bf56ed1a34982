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
    "absent = ('torch', 'peft', 'gguf', 'accelerate', 'pyarrow')\n"
    "sys.modules.update(dict.fromkeys(absent))\n"  # find_spec says None, import raises
    "from distillkit.cli.main import main\n"
    "main()\n"
)


def built(source: Path, folder: Path) -> zipfile.ZipFile:
    """The wheel of a project."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(source)], check=True)
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    return built(TOP, tmp_path_factory.mktemp("wheel"))


def test_the_wheel_carries_the_examples_the_types_and_what_the_report_is_made_of(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for example in ("routed_mopd", "gsm8k_privileged", "single_teacher"):
        for name in ("config.yaml", "train.jsonl", "heldout.jsonl"):
            assert f"distillkit/examples/{example}/{name}" in names
    assert {"distillkit/py.typed", "distillkit_builtin/py.typed", "distillkit/loop/engine.py"} <= names
    for name in ("assets/page.css", "assets/charts.js", "templates/page.html", "vendor/uPlot.iife.min.js"):
        assert f"distillkit/report/{name}" in names
    assert any(name.endswith("licenses/distillkit/report/vendor/uPlot.LICENSE") for name in names)
    assert not [name for name in names if name.startswith("tests")]


def test_the_loopback_servers_are_a_wheel_of_their_own(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    assert not [name for name in wheel.namelist() if "loopback" in name]
    own = built(TOP / "loopback", tmp_path)
    names = own.namelist()
    assert {name.partition("/")[0] for name in names} == {"distillkit_loopback", "distillkit_loopback-0.1.0.dist-info"}
    for module in ("openai/__main__", "fireworks/__main__", "tinker/__main__", "transport/faults", "hf/causal_lm"):
        assert f"distillkit_loopback/{module}.py" in names
    assert "distillkit_loopback/py.typed" in names
    metadata = own.read("distillkit_loopback-0.1.0.dist-info/METADATA").decode()
    assert "Requires-Dist: distillkit[local]" in metadata
    assert "# distillkit-loopback" in metadata  # its README


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
    assert checked.returncode == 2, checked.stderr
    assert "tokens sampled" in checked.stdout  # what can be known without it is said all the same
    assert "check: ok" not in checked.stdout
    assert checked.stderr.startswith(
        "error: student (LoRA of rank 16) needs torch, peft: pip install 'distillkit[local]'"
    )
    run = without_extras("run", str(config))
    assert run.returncode == 2
    assert "student (LoRA of rank 16) needs torch, peft: pip install 'distillkit[local]'" in run.stderr
    assert "Traceback" not in run.stderr
    table = rows.with_suffix(".parquet")
    table.write_bytes(b"PAR1\x15")
    checked = without_extras("check", str(config), f"data.path={table}")
    assert checked.returncode == 2
    assert f"{table}: reading Parquet needs pyarrow: pip install 'distillkit[data]'" in checked.stderr
    assert "Traceback" not in checked.stderr
