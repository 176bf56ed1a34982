"""The recipe's own metric names, in files of their own and at Weights & Biases, besides the engine's.

`train/opd_*` and `train/sdft_*` are the engine's numbers under the recipe's names. One differs in meaning:
`teacher_route/<slug>/scored` counts a step's completions, not all so far. `forward_backward` and `optim_step` are sent
at once, so `perf/fwd_bwd_time` runs until the gradients are there, `perf/optim_step_time` from then until the step is
done.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from pydantic import JsonValue, PrivateAttr

from distillkit import Sink
from distillkit.context import RunContext
from distillkit.events import Event, RunFinished, RunStarted, StepFinished
from distillkit.metrics import finite
from distillkit.run_directory.run_files import end_of_step
from distillkit_builtin.fireworks.recipe.config import Config
from distillkit_builtin.fireworks.recipe.distill_mode import is_topk
from distillkit_builtin.fireworks.recipe.runner_files import RunnerFiles
from distillkit_builtin.fireworks.requirements import resolve_base_url
from distillkit_builtin.fireworks.service import FireworksService, shared_service
from distillkit_builtin.sinks.wandb import WandbSink

FILE = "recipe_metrics.jsonl"
OPD: Mapping[str, str] = {
    "train/opd_active_tokens": "train/active_tokens",
    "train/opd_sampled_reverse_kl": "train/reverse_kl",
    "train/opd_advantage": "train/advantage",
    "train/opd_abs_advantage": "train/abs_advantage",
    "train/opd_student_logprob_minus_teacher_logprob": "train/reverse_kl",
    "train/opd_teacher_nll": "train/teacher_nll",
    "train/opd_sampling_nll": "train/sampling_nll",
    "train/loss:sum": "train/loss",
    "perf/weight_sync_time": "time/sync",
    "perf/fwd_bwd_time": "time/forward_backward",
    "perf/optim_step_time": "time/optim_step",
}
"""The recipe's name to the engine's, where only the name differs."""
AS_THEY_ARE = ("teacher_route/", "completions/")
RENAMED: Mapping[str, str] = {"concurrency/student/": "concurrency/", "fireworks/": "train/"}


@dataclass(frozen=True, slots=True)
class Names:
    """What a step's metrics are called by, and what they are divided by, in the chosen mode."""

    scale: float = 1.0
    """`opd_loss_scale`, which advantages are multiplied by and gaps are not."""
    topk: int = 0
    """`sdft_top_k` where the mode is topk_forward_kl, which has no `train/opd_*`; 0: the other one."""

    @classmethod
    def of(cls, cfg: Config) -> "Names":
        """Those of a run of `cfg`."""
        return cls(topk=cfg.sdft_top_k) if is_topk(cfg) else cls(cfg.opd_loss_scale)


def recipe_metrics(step: int, metrics: Mapping[str, float], names: Names) -> dict[str, float]:
    """A step's metrics, which are the engine's, by the recipe's names; steps are counted from 1."""
    ours = _common(step, metrics)
    if names.topk:
        positions = metrics.get("train/active_tokens", 0.0)
        sdft = {"train/sdft_top_k": float(names.topk), "train/sdft_active_positions": positions}
        return {name: value for name, value in ours.items() if not name.startswith("train/opd_")} | sdft
    if "train/abs_advantage" in metrics:
        ours["train/opd_abs_logprob_gap"] = metrics["train/abs_advantage"] / names.scale
    return ours


def _common(step: int, metrics: Mapping[str, float]) -> dict[str, float]:
    ours: dict[str, float] = {"train/step": float(step)}
    ours |= {name: metrics[engine] for name, engine in OPD.items() if engine in metrics}
    if "train/reverse_kl" in metrics:
        ours["train/opd_teacher_logprob_minus_student_logprob"] = -metrics["train/reverse_kl"]
    ours |= {name: value for name, value in metrics.items() if name.startswith(AS_THEY_ARE)}
    for old, new in RENAMED.items():
        ours |= {new + name.removeprefix(old): value for name, value in metrics.items() if name.startswith(old)}
    return ours


class RecipeLog(Sink):
    """The recipe's metric names in `recipe_metrics.jsonl`, and the files of `RunnerConfig`."""

    name: ClassVar[str] = "recipe"
    writes: ClassVar[frozenset[str]] = frozenset({FILE})

    _names: Names = PrivateAttr(default_factory=Names)
    _output_model: str | None = PrivateAttr(None)
    _runner: RunnerFiles = PrivateAttr(default_factory=RunnerFiles)
    _service: FireworksService | None = PrivateAttr(None)
    _max_seq_len: int | None = PrivateAttr(None)
    _path: Path | None = PrivateAttr(None)
    _steps: int = PrivateAttr(0)

    @classmethod
    def of(cls, cfg: Config) -> "RecipeLog":
        """The log of one run of `cfg`."""
        log = cls()
        log._names, log._output_model = Names.of(cfg), cfg.output_model_id
        log._runner = RunnerFiles.of(cfg.runner)
        return log

    @property
    def service(self) -> FireworksService | None:
        """The run's connection, also after its end; None: it was never opened."""
        return self._service

    @property
    def max_seq_len(self) -> int | None:
        """Tokens that the student takes, prompt and completion together."""
        return self._max_seq_len

    async def open(self, run: RunContext) -> None:
        """Say that provisioning begins."""
        self._service = shared_service(run, resolve_base_url(None))
        self._max_seq_len = self._service.context_length
        self._path = None if run.run_dir is None else run.run_dir / FILE
        self._steps = 0 if run.plan is None else run.plan.steps
        self._runner.status("provisioning")

    def emit(self, event: Event) -> None:
        """Write what the recipe would."""
        match event:
            case RunStarted():
                self._start(event)
            case StepFinished():
                self._step(event)
            case RunFinished():
                self._finish(event)

    def evaluated(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take what a callback gave, by its own names."""
        self._write(step, metrics)

    def _start(self, event: RunStarted) -> None:
        if self._path is not None and self._path.is_file():  # a resumed run writes its steps again
            with self._path.open("r+b") as file:
                file.truncate(end_of_step(self._path, event.first_step - 1))
        connection = None if self._service is None else self._service.connection
        if connection is not None:
            self._runner.begin(*connection.accelerator)
        self._runner.status("training", step=event.first_step - 1, of=self._steps)

    def _step(self, event: StepFinished) -> None:
        self._write(event.step, recipe_metrics(event.step, event.metrics, self._names))
        self._runner.status("training", step=event.step, of=self._steps)
        self._runner.metadata(int(event.metrics.get("train/active_tokens", 0)))

    def _finish(self, event: RunFinished) -> None:
        steps = event.summary.get("steps")
        step = steps if isinstance(steps, int) else 0
        self._runner.metadata(0)
        if event.error is not None:
            cancelled = event.summary.get("status") == "interrupted"
            self._runner.failed(event.error, step=step, of=self._steps, cancelled=cancelled)
            return
        self._runner.status("done", step=step, of=self._steps)
        connection = None if self._service is None else self._service.connection
        if self._output_model is not None and connection is not None:
            self._runner.output_model(self._output_model, f"step-{step}", connection.trainer_job)

    def _write(self, step: int, metrics: Mapping[str, float]) -> None:
        row: dict[str, JsonValue] = {"step": step, **{name: finite(value) for name, value in metrics.items()}}
        line = json.dumps(row, allow_nan=False) + "\n"
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)
        self._runner.metrics(line)


class RecipeWandb(WandbSink):
    """Sink `wandb`, with the recipe's metric names besides the engine's."""

    _names: Names = PrivateAttr(default_factory=Names)

    def emit(self, event: Event) -> None:
        """Pass on what is to be kept."""
        if isinstance(event, StepFinished):
            event = replace(event, metrics={**event.metrics, **recipe_metrics(event.step, event.metrics, self._names)})
        super().emit(event)


def recipe_wandb(cfg: Config) -> list[RecipeWandb]:
    """The sink of `Config.wandb`, where it names an entity."""
    if not cfg.wandb.entity:
        return []
    project = {} if cfg.wandb.project is None else {"project": cfg.wandb.project}
    sink = RecipeWandb(entity=cfg.wandb.entity, run_name=cfg.wandb.run_name, **project)
    sink._names = Names.of(cfg)
    return [sink]
