"""A run of thousands of steps that reads its own memory and open files: `long_run.py FOLDER`, in a process of its own.

Beside other tests it would count what their threads and caches hold.
"""

import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from distillkit import Registry, RunConfig, Sink, run
from distillkit.events import Event, StepFinished
from distillkit.records import Failure, Score, ScoreRequest
from distillkit.testing import FakeScorer, FakeStudent

EARLY, STEPS = 500, 2000


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Gauge(Sink):
    """Reads memory and open files at two steps."""

    name = "gauge"
    _seen: dict[int, tuple[int, int]] = {}  # noqa: RUF012 - a private attribute of pydantic's

    def emit(self, event: Event) -> None:
        if isinstance(event, StepFinished) and event.step in (EARLY, STEPS):
            self._seen[event.step] = (resident(), len(list(Path("/proc/self/fd").iterdir())))


class Forgetful(FakeScorer):
    """The kit's scorer remembers every request."""

    name = "forgetful"

    async def score(self, requests: Sequence[ScoreRequest]) -> AsyncIterator[Score | Failure]:
        async for outcome in super().score(requests):
            yield outcome
        self.seen.clear()


def main(folder: Path) -> dict[str, Any]:
    """How many steps were trained, and what was read at each of the two: `[bytes, open files]`."""
    rows = [{"messages": [{"role": "user", "content": f"row {i}"}]} for i in range(STEPS // 2)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    gauge, registry = Gauge(), Registry.discover()
    registry.add(FakeStudent)
    config = RunConfig(
        registry=registry,
        name="long",
        log_path=str(folder / "runs" / "{name}"),
        data={"path": str(folder / "rows.jsonl"), "epochs": 2},
        student={"name": "fake", "learning_rate": 0.01},
        teachers=[{"model": "t", "scorer": Forgetful(likes="abc")}],
        sampling={"completions_per_prompt": 2, "max_completion_tokens": 8},
        train={"prompt_groups_per_step": 1, "save_every": 500, "sample_every": 100, "max_steps_off_policy": 1},
        sinks=[gauge],
    )
    steps = run(config).steps
    return {"steps": steps, "early": gauge._seen[EARLY], "late": gauge._seen[STEPS]}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
