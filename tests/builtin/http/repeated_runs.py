"""Runs of scorer `http` and sampler `vllm`, on servers that start and stop around each, and what each leaves behind.

`repeated_runs.py FOLDER MODEL TEACHER` prints JSON. In a process of its own: threads of other tests come and go. A
first run makes what a process keeps, such as the thread pools of libraries.
"""

import gc
import json
import re
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import distillkit
from distillkit import RunConfig
from distillkit.errors import RunFailedError
from distillkit_loopback.openai.network_model import NetworkModel
from distillkit_loopback.openai.server import LoopbackServer
from distillkit_loopback.transport.faults import Delay, Status

SETTLED_S = 20.0
"""A thread that was told to end may need a moment."""
RUNS = ("goes well", "is hedged", "fails")


def held() -> Counter[str]:
    """The threads, open files and sockets of this process, by name."""
    gc.collect()
    found = Counter(f"thread {re.sub('[-_]?[0-9]+', '', thread.name)}" for thread in threading.enumerate())
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:  # that of the folder, which is being read
            continue
        found[target.partition(":")[0] if ":[" in target else f"file {target}"] += 1
    return found


def left_over(before: Counter[str]) -> dict[str, int]:
    """What is held more than before, once it has settled."""
    until = time.monotonic() + SETTLED_S
    while (more := held() - before) and time.monotonic() < until:
        time.sleep(0.05)
    return dict(more)


def run(name: str, folder: Path, model: str, teacher: str) -> None:
    """One run of two steps, in its folder."""
    in_float32 = {"dtype": "float32", "device": "cpu"}
    with (
        LoopbackServer(NetworkModel.load(model)) as sampling,
        LoopbackServer(NetworkModel.load(teacher)) as scoring,
        LoopbackServer(NetworkModel.load(teacher)) as other,
    ):
        timeouts: dict[str, Any] = {"retry": 0.5}
        if name == "is hedged":
            timeouts = {"hedge_after": 0.05}
            scoring.faults.add(Delay(0.5), times=None, where="/v1/completions$")
        if name == "fails":
            for server in (scoring, other):
                server.faults.add(Status(503), times=None, after=1, where="/v1/completions$")
        config = RunConfig(
            name=name.replace(" ", "-"),
            log_path=str(folder / "{name}"),
            data={"path": str(folder / "rows.jsonl")},
            student={
                "name": "local",
                "model": model,
                "lora_rank": 4,
                **in_float32,
                "sampler": {"name": "vllm", "base_url": sampling.url},
            },
            teachers=[
                {
                    "model": "loopback",
                    "tokenizer_model": model,
                    "scorer": {
                        "name": "http",
                        "base_url": [scoring.url, other.url],
                        "timeouts": timeouts,
                        "cache": str(folder / f"{name}.sqlite"),
                    },
                }
            ],
            sampling={"completions_per_prompt": 2, "max_completion_tokens": 4},
            train={"prompt_groups_per_step": 2},
            sinks=[],
        )
        try:
            distillkit.run(config, overwrite=True)
        except RunFailedError:
            if name != "fails":
                raise
        else:
            assert name != "fails", "the run was to fail"


def main(folder: Path, model: str, teacher: str) -> dict[str, dict[str, int]]:
    """What each kind of run leaves behind."""
    rows = [{"messages": [{"role": "user", "content": f"number {i}"}]} for i in range(4)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = {}
    for name in ("goes well", *RUNS):
        before = held()
        run(name, folder, model, teacher)
        found[name] = left_over(before)
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), *sys.argv[2:])))
