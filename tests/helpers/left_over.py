"""Runs of one backend, and what this process holds before and after each: `left_over.py BACKEND FOLDER MODEL TEACHER`.

In a process of its own, since other tests' threads come and go. The first run of a backend makes what a process keeps,
such as thread pools of libraries; what the three runs behind it add is left over. Prints JSON: by way to end, what.
"""

import asyncio
import gc
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import distillkit
from distillkit import Registry, RunConfig, Sink
from distillkit.context import RunContext
from distillkit.errors import RunFailedError
from distillkit.events import Event, StepFinished
from distillkit.records import ScoredRollout
from distillkit.testing import FakeScorer, FakeStudent
from distillkit.training_data import Batch
from distillkit_builtin.losses.importance_sampling import ImportanceSampling
from helpers.held_things import held, more_than

SETTLED_S = 60.0
"""Threads and connections of what was closed may need a moment to end; long on a machine that does other work."""
QUESTIONS = [{"messages": [{"role": "user", "content": f"number {i}"}]} for i in range(6)]


class Breaking(ImportanceSampling):
    """Fails in the second step."""

    _batches: int = 0

    def batch(self, scored: Sequence[ScoredRollout]) -> Batch:
        """The first, as ever."""
        self._batches += 1
        if self._batches > 1:
            raise RunFailedError("broken, as ordered")
        return super().batch(scored)


class Cancelling(Sink):
    """Cancels the task that runs, after the first step."""

    name: ClassVar[str] = "cancelling"
    _task: "asyncio.Task[Any] | None" = None

    def emit(self, event: Event) -> None:
        """At the end of a step."""
        if isinstance(event, StepFinished) and event.step == 1 and self._task is not None:
            self._task.get_loop().call_soon_threadsafe(self._task.cancel)


Make = Callable[..., RunConfig]


def goes_well(make: Make) -> None:
    """To its end."""
    assert distillkit.run(make(), overwrite=True).steps == 3


def fails(make: Make) -> None:
    """In the second step."""
    try:
        distillkit.run(make(loss=Breaking()), overwrite=True)
    except RunFailedError as error:
        if "broken, as ordered" not in str(error):
            raise
        return
    raise AssertionError("the run was to fail")


def is_cancelled(make: Make) -> None:
    """In the second step."""
    sink = Cancelling()

    async def main() -> None:
        sink._task = asyncio.ensure_future(distillkit.arun(make(sinks=[sink]), overwrite=True))
        try:
            await sink._task
        except asyncio.CancelledError:
            return
        raise AssertionError("the run was to be cancelled")

    asyncio.run(main())


WAYS = (goes_well, fails, is_cancelled)


def config_of(folder: Path, **sections: Any) -> RunConfig:
    """Three steps; `sinks` are added to those of the backend."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS), encoding="utf-8")
    registry = Registry.discover()
    for cls in (FakeStudent, FakeScorer):
        registry.add(cls)
    values: dict[str, Any] = {
        "name": "run",
        "log_path": str(folder / "runs" / "{name}"),
        "data": {"path": str(folder / "rows.jsonl")},
        "sampling": {"completions_per_prompt": 2, "max_completion_tokens": 6},
        "train": {"prompt_groups_per_step": 2, "save_every": 1},
        **sections,
    }
    return RunConfig(registry=registry, **values)


@contextmanager
def fakes(folder: Path, model: str, teacher: str) -> Iterator[Make]:
    """The kit's own plugins."""
    teachers = [{"model": "t", "scorer": FakeScorer(likes="abc")}]
    yield lambda **over: config_of(folder, student=FakeStudent(), teachers=teachers, **{"sinks": [], **over})


class Forgetful(FakeStudent):
    """Closes nothing that it opens."""

    name: ClassVar[str] = "forgetful"

    async def open(self, run: RunContext) -> None:
        """One of each kind."""
        kept.append((run.run_dir / "run.log").open(encoding="utf-8"))
        kept.append(socket.socket())
        threading.Thread(target=threading.Event().wait, name="forgotten-1", daemon=True).start()


kept: list[Any] = []


@contextmanager
def forgetful(folder: Path, model: str, teacher: str) -> Iterator[Make]:
    """A student with leaks, by which it is seen that they are found."""
    teachers = [{"model": "t", "scorer": FakeScorer(likes="abc")}]
    yield lambda **over: config_of(folder, student=Forgetful(), teachers=teachers, **{"sinks": [], **over})


@contextmanager
def wandb(folder: Path, model: str, teacher: str) -> Iterator[Make]:
    """Sink `wandb`, offline."""
    teachers = [{"model": "t", "scorer": FakeScorer(likes="abc")}]

    def make(sinks: Sequence[Any] = (), **over: Any) -> RunConfig:
        every = [{"name": "wandb", "mode": "offline"}, *sinks]
        return config_of(folder, student=FakeStudent(), teachers=teachers, sinks=every, **over)

    yield make


def of_local(folder: Path, model: str, scorer: dict[str, Any], **student: Any) -> Make:
    """Student `local` and one teacher."""
    here = {"dtype": "float32", "device": "cpu"}
    section = {"name": "local", "model": model, "lora_rank": 4, **here, **student}

    def make(**over: Any) -> RunConfig:
        return config_of(folder, student=section, teachers=[scorer], **{"sinks": [], **over})

    return make


@contextmanager
def local(folder: Path, model: str, teacher: str) -> Iterator[Make]:
    """Student and scorer `local`."""
    scorer = {"model": teacher, "scorer": {"name": "local", "dtype": "float32", "device": "cpu"}}
    yield of_local(folder, model, scorer)


@contextmanager
def http(folder: Path, model: str, teacher: str) -> Iterator[Make]:
    """Scorer `http` and sampler `vllm`, at two loopback servers."""
    from distillkit_loopback.openai.network_model import NetworkModel
    from distillkit_loopback.openai.server import LoopbackServer

    with LoopbackServer(NetworkModel.load(model)) as samples, LoopbackServer(NetworkModel.load(teacher)) as scores:
        scorer = {"model": "loopback", "tokenizer_model": model, "scorer": {"name": "http", "base_url": scores.url}}
        yield of_local(folder, model, scorer, sampler={"name": "vllm", "base_url": samples.url})


@contextmanager
def fireworks(folder: Path, model: str, teacher: str) -> Iterator[Make]:
    """Student and scorer `fireworks`, at the loopback service."""
    from distillkit_loopback.fireworks.service import LoopbackService

    names = {"student": "accounts/fireworks/models/student", "teacher": "accounts/fireworks/models/teacher"}
    with LoopbackService({names["student"]: model, names["teacher"]: teacher}) as service:
        student = {"name": "fireworks", "model": names["student"], "tokenizer_model": model, "lora_rank": 4}
        student |= {
            "trainer": {"training_shape_id": "accounts/fireworks/trainingShapes/tiny"},
            "base_url": service.base_url,
        }
        teachers = [{"model": names["teacher"], "scorer": {"name": "fireworks", "base_url": service.base_url}}]
        yield lambda **over: config_of(folder, student=student, teachers=teachers, **{"sinks": [], **over})


@contextmanager
def tinker(folder: Path, model: str, teacher: str) -> Iterator[Make]:
    """Student and scorer `tinker`, at the loopback service."""
    from distillkit_loopback.tinker.service import TinkerService

    with TinkerService({"org/student": model, "org/teacher": teacher}) as service:
        student = {"name": "tinker", "model": "org/student", "tokenizer_model": model, "lora_rank": 4}
        scorer = {"name": "tinker", "base_url": service.base_url}
        teachers = [{"model": "org/teacher", "tokenizer_model": model, "scorer": scorer}]
        student["base_url"] = service.base_url
        yield lambda **over: config_of(folder, student=student, teachers=teachers, **{"sinks": [], **over})


CLOSED_WHEN_COLLECTED = frozenset({"tinker"})
"""Whose HTTP library ends the connections of a closed client when that is collected, and it stands in a cycle."""
BACKENDS = {backend.__name__: backend for backend in (fakes, forgetful, wandb, local, http, fireworks, tinker)}


def main(backend: str, folder: Path, model: str, teacher: str) -> dict[str, dict[str, int]]:
    """What is left over, by how the run ended."""
    found: dict[str, dict[str, int]] = {}
    with BACKENDS[backend](folder, model, teacher) as make:
        goes_well(make)
        for way in WAYS:
            before = held()
            way(make)
            if backend in CLOSED_WHEN_COLLECTED:
                gc.collect()
            found[way.__name__] = more_than(before, 0.2 if backend == "forgetful" else SETTLED_S)
    return found


if __name__ == "__main__":
    backend, folder, model, teacher = sys.argv[1:]
    print(json.dumps(main(backend, Path(folder), model, teacher)))
