"""A disk without room: a real write fails, the user is told, and a resume loses nothing."""

import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from conftest import read_jsonl

from distillkit.errors import RunFailedError
from distillkit.files.jsonl import JsonLines
from distillkit.run_directory.checkpoint import checkpoints


def limited(size: int) -> Callable[[], None]:
    """Before a process starts: no file of its may be longer than this, and writing on fails as on a full disk."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def test_a_full_disk_ends_the_run_with_a_word_and_a_resume_goes_on(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limited(12_000), timeout=120)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    message = "runs/full/samples.jsonl cannot be written: File too large. Free some space there, and go on by --resume"
    assert f"failed: {message}" in done.stderr
    (*_, last) = checkpoints(Path("runs/full"))
    assert last.name == f"step-{read_jsonl(Path('runs/full/metrics.jsonl'))[-1]['step']}"  # no step is lost
    again = subprocess.run([*command, "--resume"], capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert [row["step"] for row in read_jsonl(Path("runs/full/metrics.jsonl"))] == list(range(1, 21))
    rows = [entry["row_id"] for entry in read_jsonl(Path("runs/full/ledger.jsonl"))]
    assert len(rows) == len(set(rows)) == 20
    assert [sample["step"] for sample in read_jsonl(Path("runs/full/samples.jsonl"))] == list(range(1, 21))


def test_a_checkpoint_that_does_not_fit_is_no_checkpoint(command: list[str]) -> None:
    quiet = [*command, "train.sample_every=0"]
    done = subprocess.run(quiet, capture_output=True, text=True, preexec_fn=limited(2500), timeout=120)
    assert done.returncode == 1
    (failed,) = [line for line in done.stderr.splitlines() if line.startswith("failed: ")]
    assert "/checkpoints/step-2 cannot be written: File too large" in failed
    assert "is not saved: it could not be written" in Path("runs/full/run.log").read_text()
    assert not checkpoints(Path("runs/full"))


def test_a_log_that_does_not_fit_does_not_hide_why_the_run_ends(tmp_path: Path) -> None:
    script = (
        "import logging, sys\nfrom pathlib import Path\nfrom distillkit.run_directory.run_files import RunFiles\n"
        "with RunFiles.open(Path(sys.argv[1])):\n"
        "    logging.getLogger('distillkit').error('x' * 5000)\n    raise ValueError('why it ends')\n"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], stderr=subprocess.PIPE, preexec_fn=limited(1000))
    assert done.stderr.decode().rstrip().endswith("ValueError: why it ends")


def test_a_write_that_fails_half_way_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom distillkit.files.jsonl import JsonLines\n"
        "file = JsonLines(Path(sys.argv[1]))\nfile.append([{'a': 1}])\nfile.append([{'b': 'x' * 5000}])\n"
    )
    path = tmp_path / "lines.jsonl"
    done = subprocess.run([sys.executable, "-c", script, path], stderr=subprocess.PIPE, preexec_fn=limited(1000))
    assert RunFailedError.__name__.encode() in done.stderr
    assert path.read_text() == '{"a": 1}\n'


def test_what_many_readers_take_for_the_end_of_a_line_is_written_escaped(tmp_path: Path) -> None:
    text = "one\u2028two\u2029three\u0085four \\u2028 \u00e9"
    with JsonLines(tmp_path / "lines.jsonl") as file:
        file.append([{"text": text}, {"text": "next"}], ascii_only=False)
    assert read_jsonl(tmp_path / "lines.jsonl") == [{"text": text}, {"text": "next"}]  # by `str.splitlines`
    assert "\u00e9" in (tmp_path / "lines.jsonl").read_text(encoding="utf-8")


def test_a_lone_surrogate_can_be_written_and_read(tmp_path: Path) -> None:
    with JsonLines(tmp_path / "lines.jsonl") as file:
        file.append([{"text": "a\ud800b"}], ascii_only=False)
    assert read_jsonl(tmp_path / "lines.jsonl") == [{"text": "a\ud800b"}]
