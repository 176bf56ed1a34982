"""Kill a run with SIGKILL at random moments, resume it each time, and compare it with one that was never killed.

    python tests/scripts/torture.py 50      # or: make torture

The parent has everything imported and forks: a process costs milliseconds, and nearly all moments are in the run.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import peft  # noqa: F401 - what a run imports, before the forks
import torch
import transformers  # noqa: F401

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers import tiny_models

import distillkit
from distillkit import RunConfig, Sink
from distillkit.events import Event, PhaseProgress, StepFinished
from distillkit.run_directory.checkpoint import checkpoints
from distillkit.run_directory.directory import is_complete
from distillkit_builtin.local import live_student as pupil  # noqa: F401
from distillkit_builtin.local import live_teacher as teacher  # noqa: F401

STEPS = 8
KINDS: tuple[Mapping[str, Any], ...] = (
    {"save_every": 1},
    {"save_every": 2, "eval_every": 3, "weight_sync_interval": 3},
    {"save_every": 1, "max_steps_off_policy": 1},
    {"save_every": 2, "max_steps_off_policy": 2, "eval_every": 3},
)


class Marker(Sink):
    """Writes down what the run is doing, for the tally of what was hit."""

    name: ClassVar[str] = "marker"

    def emit(self, event: Event) -> None:
        if isinstance(event, PhaseProgress):
            mark(event.phase if event.done < event.total or event.phase == "sample" else "train")
        elif isinstance(event, StepFinished):
            mark("evaluate or save")


PHASE_FILE = Path(tempfile.gettempdir()) / f"distillkit-torture-{os.getpid()}"


def mark(phase: str) -> None:
    PHASE_FILE.write_text(phase)


def config_of(folder: Path, name: str, train: Mapping[str, Any]) -> RunConfig:
    """A run of a tiny transformer in float32 on the CPU."""
    model = {"dtype": "float32", "device": "cpu"}
    return RunConfig(
        name=name,
        log_path=str(folder / "runs" / "{name}"),
        data={"path": str(folder / "train.jsonl"), "eval_path": str(folder / "heldout.jsonl"), "epochs": 2},
        student={"name": "local", "model": str(folder / "student"), "lora_rank": 4, "learning_rate": 0.01, **model},
        teachers=[{"model": str(folder / "teacher"), "scorer": {"name": "local", **model}}],
        sampling={"completions_per_prompt": 2, "max_completion_tokens": 16},
        train={"prompt_groups_per_step": 4, "max_steps": STEPS, **train},
        evaluators=["reverse_kl"],
        sinks=[Marker()],
    )


def prepare(folder: Path) -> None:
    """Two models and some rows."""
    tiny_models.write_model(folder / "student", seed=0)
    tiny_models.write_model(folder / "teacher", seed=1)
    for name, count in (("train", 20), ("heldout", 3)):
        rows = [{"messages": [{"role": "user", "content": f"{name} {i}"}]} for i in range(count)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def forked(config: RunConfig, *, resume: bool) -> int:
    """Run in a process of its own; its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - until the process ends
        distillkit.run(config, resume=resume)
        status = 0
    except BaseException:
        (Path(config.log_path.replace("{name}", config.name)) / "error.txt").write_text(traceback.format_exc())
        raise
    finally:
        os._exit(status)


def ended(child: int, seconds: float) -> int | None:
    """The exit status of a process, or None if it still runs after so long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    return None


def content(run_dir: Path) -> dict[str, Any]:
    """All that a run leaves, but for times and how much was under way at once."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    kept = [{k: v for k, v in row.items() if not k.startswith("time/") and not k.endswith("/inflight")} for row in rows]
    return {
        "metrics": kept,
        "ledger": (run_dir / "ledger.jsonl").read_text(),
        "samples": (run_dir / "samples.jsonl").read_text(),
        "adapter": (run_dir / "adapter/adapter_model.safetensors").read_bytes(),
    }


def killed_and_resumed(config: RunConfig, run_dir: Path, chance: random.Random, most: int, span: float) -> Counter[str]:
    """Kill and resume one run until it is done, at most `most` times; what it was doing when it was hit."""
    hits: Counter[str] = Counter()
    while True:
        if is_complete(run_dir):  # killed after its last line and before its end
            return hits
        resume = bool(checkpoints(run_dir))
        if not resume and run_dir.exists():  # killed before the first checkpoint: there is nothing to go on with
            for path in sorted(run_dir.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
        mark("start")
        child = forked(config, resume=resume)
        status = ended(child, chance.uniform(0.0, span)) if hits.total() < most else ended(child, 600.0)
        if status is None:
            saving = any((run_dir / "checkpoints").glob(".step-*"))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            hits["save" if saving else PHASE_FILE.read_text() or "start"] += 1
        elif status == 0:
            return hits
        else:
            raise SystemExit(f"the run failed by itself: {(run_dir / 'error.txt').read_text()}")


def torture(kills: int, seed: int, folder: Path) -> Counter[str]:
    """Runs of every kind in turn, until there were so many kills. Raises SystemExit if one is not what it should be."""
    chance, hits, turn = random.Random(seed), Counter[str](), 0
    wholes: dict[int, tuple[dict[str, Any], float]] = {}
    while hits.total() < kills:
        kind = turn % len(KINDS)
        if kind not in wholes:
            started = time.monotonic()
            status = ended(forked(config_of(folder, f"whole-{kind}", KINDS[kind]), resume=False), 600.0)
            if status != 0:
                raise SystemExit(f"the run that was not killed ended with {status}")
            wholes[kind] = content(folder / f"runs/whole-{kind}"), time.monotonic() - started
        whole, seconds = wholes[kind]
        run_dir = folder / f"runs/turn-{turn}"
        config = config_of(folder, f"turn-{turn}", KINDS[kind])
        found = killed_and_resumed(config, run_dir, chance, kills - hits.total(), seconds)
        parts = content(run_dir)
        different = [name for name in whole if parts[name] != whole[name]]
        if different:
            raise SystemExit(f"turn {turn} ({dict(KINDS[kind])}), killed {found.total()} times: {different} differ")
        hits += found
        turn += 1
        print(f"{hits.total()}/{kills} kills; turn {turn} {dict(KINDS[kind])}: equal after {found.total()}", flush=True)
    return hits


def main() -> None:
    """Report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kills", type=int, nargs="?", default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            prepare(Path(folder))
            hits = torture(options.kills, options.seed, Path(folder))
    finally:
        PHASE_FILE.unlink(missing_ok=True)
    print(f"{hits.total()} kills, all runs equal to the last bit; hit while: {dict(hits.most_common())}")


if __name__ == "__main__":
    main()
