"""The recipe's evaluation callbacks, as an evaluator.

A callback is synchronous and may call `asyncio.run`, so it runs in a thread that has no event loop. The samplers of its
context are made for that thread: the engine's own belong to the engine's loop, and to the adaptive windows of training.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any, ClassVar

from pydantic import PrivateAttr

from distillkit import EvalContext, Evaluator
from distillkit.context import RunContext
from distillkit.errors import InputError
from distillkit.events import EvalResult
from distillkit_builtin.fireworks.completions import Endpoint
from distillkit_builtin.fireworks.control_plane import api_key
from distillkit_builtin.fireworks.recipe.config import Config, EvalCallback
from distillkit_builtin.fireworks.recipe.metrics import RecipeLog
from distillkit_builtin.fireworks.recipe.teachers import deployment_id_of, teacher_specs
from distillkit_builtin.fireworks.requirements import resolve_base_url
from distillkit_builtin.fireworks.service import shared_service
from distillkit_builtin.hf_tokenizer import shared_tokenizer
from distillkit_builtin.remote.blocking_calls import start_in_thread

Named = tuple[str, EvalCallback]


class RecipeCallbacks(Evaluator):
    """`step_eval` before and during training, `post_training_eval` after it."""

    name: ClassVar[str] = "recipe"

    _cfg: Config | None = PrivateAttr(None)
    _log: RecipeLog | None = PrivateAttr(None)
    _run: RunContext | None = PrivateAttr(None)
    _latest: Mapping[str, Any] = PrivateAttr(default_factory=dict)

    @classmethod
    def of(cls, cfg: Config, log: RecipeLog) -> "RecipeCallbacks":
        """The callbacks of one run's `cfg`; their metrics go to `log` by their own names."""
        callbacks = cls()
        callbacks._cfg, callbacks._log = cfg, log
        return callbacks

    @property
    def has_any(self) -> bool:
        """Whether the user gave a callback."""
        return self.cfg.step_eval is not None or self.cfg.post_training_eval is not None

    @property
    def cfg(self) -> Config:
        """The recipe's config. Raises RuntimeError unless `of` made this object."""
        if self._cfg is None:
            raise RuntimeError("RecipeCallbacks has no Config; make it by RecipeCallbacks.of")
        return self._cfg

    @property
    def latest(self) -> Mapping[str, Any]:
        """The result of the last callback, with values of any type."""
        return self._latest

    async def open(self, run: RunContext) -> None:
        """Keep the run, from whose shared objects the context is made."""
        self._run = run

    async def evaluate(self, context: EvalContext) -> EvalResult:
        """Call what is due; of what it gives, numbers are metrics."""
        metrics: dict[str, float] = {}
        for name, callback in self._due(context):
            result = await self._call(name, callback, context)
            self._latest = result
            numbers = {key: float(value) for key, value in result.items() if isinstance(value, int | float)}
            if self._log is not None and numbers:
                self._log.evaluated(context.step, numbers)
            metrics |= {key.removeprefix("eval/"): value for key, value in numbers.items()}
        return EvalResult(metrics)

    def _due(self, context: EvalContext) -> Iterator[Named]:
        cfg = self.cfg
        every = cfg.step_eval_interval * cfg.weight_sync_interval
        by_step = every > 0 and context.step > 0 and context.step % every == 0
        if cfg.step_eval is not None and (cfg.eval_before_training if context.stage == "before" else by_step):
            yield "step_eval", cfg.step_eval
        if cfg.post_training_eval is not None and context.stage == "after":
            yield "post_training_eval", cfg.post_training_eval

    async def _call(self, name: str, callback: EvalCallback, context: EvalContext) -> Mapping[str, Any]:
        student, teachers = await self._endpoints()
        values = self._values(context)

        def work() -> Mapping[str, Any]:
            with ExitStack() as stack:
                result = callback(values | self._samplers(student, teachers, stack))
            if result is None:
                return {}
            if not isinstance(result, Mapping):
                raise InputError(f"{name}: gives {type(result).__name__}, not a dict of metrics")
            return result

        return await start_in_thread(work, f"fireworks: {name}")

    async def _endpoints(self) -> tuple[Endpoint, dict[str, Endpoint]]:
        provisioning = shared_service(self._require_run(), resolve_base_url(None)).provisioning
        if provisioning is None:
            raise RuntimeError("RecipeCallbacks is used before the student is open")
        teachers = {
            spec.routing_value: await provisioning.teacher((spec.model, deployment_id_of(self.cfg, spec)))
            for spec in teacher_specs(self.cfg)
        }
        return provisioning.endpoints["student"], teachers

    def _values(self, context: EvalContext) -> dict[str, Any]:
        """The context's keys that are no live objects of a thread."""
        cfg, specs = self.cfg, teacher_specs(self.cfg)
        tokenizer_model = str(cfg.deployment.tokenizer_model)
        return {
            "config": cfg,
            "dataset": [dict(row.fields) for row in context.rows],
            "teacher_messages_keys": {spec.routing_value: spec.teacher_messages_key for spec in specs},
            "teacher_route_key": cfg.multi_teacher.route_key if cfg.multi_teacher is not None else "teacher",
            "is_multi_teacher": len(specs) > 1,
            "tokenizer": shared_tokenizer(self._require_run(), tokenizer_model).inner,
            "global_step": context.step,
            "max_seq_len": None if self._log is None else self._log.max_seq_len,
        }

    def _samplers(self, student: Endpoint, teachers: Mapping[str, Endpoint], stack: ExitStack) -> dict[str, Any]:
        """Samplers of the same deployments, closed with `stack`; called in the callback's thread."""
        from fireworks.training.sdk import DeploymentSampler

        tokenizer = shared_tokenizer(self._require_run(), str(self.cfg.deployment.tokenizer_model)).inner

        def made(endpoint: Endpoint) -> Any:  # noqa: ANN401 - the SDK's DeploymentSampler
            theirs = endpoint.sampler
            sampler = DeploymentSampler(
                inference_url=theirs.base_url, model=theirs.model, api_key=api_key(), tokenizer=tokenizer
            )
            stack.callback(sampler.close)
            return sampler

        samplers = {name: made(endpoint) for name, endpoint in teachers.items()}
        first = next(iter(samplers.values()))
        mine = made(student)
        return {
            "student_sampler": mine,
            "student_model": mine.model,
            "teacher_sampler": first,
            "teacher_model": first.model,
            "teacher_samplers": samplers,
            "teacher_models": {name: sampler.model for name, sampler in samplers.items()},
        }

    def _require_run(self) -> RunContext:
        if self._run is None:
            raise RuntimeError("RecipeCallbacks is used before open()")
        return self._run
