"""The loop. A step is: route and render rows, sample, score, train, publish; the rest is when to look and to save."""

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from pydantic import JsonValue

from distillkit.events import EvalResult, EvalStage, Evaluated, StepFinished
from distillkit.loop.batches import Feed, Upcoming
from distillkit.loop.evaluation import Evaluation, eval_summary
from distillkit.loop.guards import ROLLED_BACK, Guards, Undone, stopped
from distillkit.loop.ledger import Ledger, Totals, failed_by_teacher
from distillkit.loop.mismatch import MismatchWatch
from distillkit.loop.rollback import described, learning_plugins, steps_back, way_back
from distillkit.loop.sink_dispatcher import Announcer
from distillkit.loop.training import Learning
from distillkit.loop.window import KeptWindow, Outcomes, Schedule, Window
from distillkit.metrics import eval_metrics, finite, route_metrics, step_metrics
from distillkit.preflight.prepared_run import Preflight
from distillkit.records import ScoredRollout
from distillkit.roles.attribution import attribute_to, one_line_error
from distillkit.roles.sampler import Sampler
from distillkit.roles.scorer import Scorer
from distillkit.run_directory import checkpoint
from distillkit.run_directory.files import RunFiles, read_metrics
from distillkit.run_directory.rollout_codec import InFlight, take_window
from distillkit.tokenizer import vocabulary_size
from distillkit.types import Prompts

FINISHING = "the final weights and their evaluation: all steps are trained, and with these the run is complete"


@dataclass(slots=True)
class Engine:
    """One run, from the first evaluation to the last. The plugins are open when it starts."""

    flight: Preflight
    files: RunFiles
    ledger: Ledger
    announcer: Announcer
    identity: Mapping[str, JsonValue]
    """What the run is, for its checkpoints."""
    schedule: Schedule = field(init=False)
    learning: Learning = field(init=False)
    guards: Guards = field(init=False)
    step: int = field(default=0, init=False)
    """Steps trained so far."""
    published: int = field(default=0, init=False)
    """The version of the policy that samples: the steps that its weights had been trained."""
    train_seconds: float = field(default=0.0, init=False)
    evals: dict[EvalStage, Mapping[str, JsonValue]] = field(default_factory=dict, init=False)
    exported: Path | None = field(default=None, init=False)
    stop_requested: bool = field(default=False, init=False)
    """Whether the run is to end after the step in hand, with a checkpoint."""
    training: bool = field(default=False, init=False)
    """Whether there is, or comes at once, a step in hand."""
    collapse: str | None = field(default=None, init=False)
    """Why a guard ends the run, once the step in hand is saved."""
    kept: list[InFlight] = field(default_factory=list, init=False)
    """Windows that the checkpoint held, in order: they came to their end before the run was resumed."""
    held: Sequence[Window | KeptWindow] = field(default=(), init=False)
    """Windows that the newest checkpoint of this process holds."""

    def __post_init__(self) -> None:
        """Connect sampler and scorers."""
        config, warn = self.flight.config, self.announcer.warn
        mismatch = MismatchWatch(config.train.warn_logprob_mismatch, warn)
        self.guards = Guards(config.guards, warn)
        train = config.train
        self.learning = Learning(config.student, config.loss, train.num_substeps, train.max_bad_steps, mismatch, warn)
        cast, ids = self.flight.cast, vocabulary_size(self.flight.renderer.student.tokenizer)
        self.schedule = Schedule(cast.sampler, cast.scorers, self.announcer.emit, ids)

    async def run(self) -> None:
        """Train until the plan is fulfilled, and finish. Whatever a plugin raises ends the run."""
        await self.sync((), resumed=self.step > 0)
        if self.step == 0 and self.flight.config.evaluators:  # later there is no policy from before training any more
            self.files.write_metrics(self.step, await self.evaluate("before"))
        feed = Feed(self.flight)
        upcoming = Upcoming(feed, feed.groups(self.step + 1, self.ledger.totals.rows_settled))
        # With k steps off policy, the windows of k steps to come are in flight while a step trains.
        ahead = 1 + self.flight.config.train.max_steps_off_policy
        windows: deque[Window | KeptWindow] = deque()
        try:
            self.training = True
            while True:
                started = time.perf_counter()
                while len(windows) < ahead and (prompts := await upcoming.take()) is not None:
                    windows.append(self.begin(feed, prompts))
                if not windows:
                    break
                upcoming.prepare()
                metrics = await self.train(windows)
                seconds = time.perf_counter() - started
                self.train_seconds += seconds
                await self.look_and_save(metrics | {"time/step": seconds}, windows)
                if self.stop_requested and self.step < self.flight.plan.steps:
                    raise asyncio.CancelledError(f"stopped after step {self.step}, as asked")
            self.training = False
            self.ledger.require_balance()
            if self.exported is None:  # all steps were trained before this process began
                metrics = self.files.take_back_metrics(self.step)
                self.files.write_metrics(self.step, metrics | await self.finish())
        except BaseException as error:
            await self.abandon(windows, one_line_error(error) if isinstance(error, Exception) else "interrupted")
            raise
        finally:
            await upcoming.close()

    def request_stop(self) -> str | None:
        """End after the step in hand. What is waited for; None if none is in hand: then nothing is lost by ending."""
        self.stop_requested = self.training
        if not self.training:
            return None
        return FINISHING if self.step == self.flight.plan.steps else "the step in hand, with a checkpoint"

    def begin(self, feed: Feed, prompts: Sequence[Prompts]) -> Window | KeptWindow:
        """Start to sample and score a step's rows, unless the checkpoint holds what came of that."""
        kept = take_window(self.kept, partial(feed.work, prompts), self.announcer.warn)
        window = kept or self.schedule.start(feed.work(prompts, self.published))
        self.ledger.admit(window.work)
        return window

    async def abandon(self, windows: Sequence[Window | KeptWindow], reason: str) -> None:
        """Stop what is in flight, and enter its rows: none disappears."""
        for ahead, window in enumerate(windows, start=1):
            await window.cancel()
            if isinstance(window, KeptWindow) or window in self.held:
                self.ledger.keep(self.step + ahead, window.work)
            else:
                self.ledger.abandon(self.step + ahead, window.work, f"the run ended: {reason}")

    async def train(self, windows: deque[Window | KeptWindow]) -> dict[str, float]:
        """Train on the first window's completions, publish the new weights; return the step's metrics."""
        outcomes = await self.retried(windows[0])
        scored_at = time.perf_counter()
        trained = await self.learning.train(outcomes)
        trained_at = time.perf_counter()
        outcomes = trained.outcomes
        self.step += 1
        self.ledger.settle(self.step, windows.popleft().work, outcomes)
        self.keep_samples(outcomes)
        measured = step_metrics(outcomes.scored, trained.batches)
        back = await self.guard(measured, windows)
        interval = self.flight.config.train.weight_sync_interval
        if not back and (self.step % interval == 0 or self.step == self.flight.plan.steps):
            await self.sync(windows)
        times = {"time/train": trained_at - scored_at, "time/sync": time.perf_counter() - trained_at}
        return {**trained.metrics, **times, **self.measure(outcomes), **measured, **back}

    async def guard(self, metrics: Mapping[str, float], windows: deque[Window | KeptWindow]) -> dict[str, float]:
        """Judge a step. After a collapse the weights go back, where that is wanted and possible, or the run is to end.

        This is before the weights of the step are published, so a policy version is what it was when it was published.
        """
        alarm = self.guards.look(metrics)
        back = steps_back(self.flight.config)
        way = None if alarm is None else await way_back(self.files.run_dir, self.guards, self.step, back, alarm)
        if not isinstance(way, Path):
            self.collapse = way
            return {}
        for window in windows:
            await window.cancel()
        plugins = learning_plugins(self.flight.cast.plugins)
        await checkpoint.load(way, self.flight.config.student, plugins, back=True)
        self.guards.go_back(Undone(checkpoint.step_of(way), self.step), read_metrics(self.files.run_dir))
        self.announcer.warn(f"{alarm}; {described(self.guards, way)}")
        await self.sync(())
        works = [replace(window.work, policy_version=self.published) for window in windows]
        windows.clear()  # the collapsed policy drew them ahead
        windows.extend(self.schedule.start(work) for work in works)
        return {ROLLED_BACK: float(checkpoint.step_of(way))}

    async def retried(self, window: Window | KeptWindow) -> Outcomes:
        """What became of a window; one of which nothing at all is left, and might be, is tried once more."""
        outcomes = await window.finished()
        hopeless = outcomes.scored or not any(one.retryable for one in outcomes.lost)
        if hopeless or window.work.policy_version not in (None, self.published):
            return outcomes
        reason = next(one.reason for one in outcomes.lost if one.retryable)
        self.announcer.warn(f"step {self.step + 1}: all {len(outcomes.lost)} completions failed, once more: {reason}")
        return await self.schedule.start(window.work).finished()

    async def sync(self, in_flight: Sequence[Window | KeptWindow], *, resumed: bool = False) -> None:
        """Publish the policy of this step, once nothing samples from the one before."""
        for window in in_flight:
            await window.until_sampled()
        with attribute_to(self.flight.config.student):
            weights = await self.flight.config.student.publish(self.step)
        await self.flight.cast.sampler.sync(weights)
        self.published = self.step
        for scorer in self.flight.cast.scorers.values() if not resumed else ():
            await scorer.on_sync(self.step)

    def measure(self, outcomes: Outcomes) -> dict[str, float]:
        """The engine's own metrics of a step beside `step_metrics`, the same on every backend."""
        teachers, peaks = self.flight.intake.teachers, self.schedule.gauges.read_peaks()
        inflight = {f"teacher_route/{teacher.slug}/inflight": peaks[teacher.name] for teacher in teachers}
        return {
            **self.plugins_metrics(),
            **route_metrics(outcomes.scored, failed_by_teacher(outcomes.lost), teachers),
            **{name: float(value) for name, value in inflight.items()},
            "completions/failed": float(len(outcomes.lost)),
            "time/sample": outcomes.sample_seconds,
            "time/score": outcomes.score_seconds,
        }

    def plugins_metrics(self) -> dict[str, float]:
        """What sampler and scorers measured of themselves since the last step."""
        measured: dict[str, float] = {}
        sources: list[Sampler | Scorer] = [self.flight.cast.sampler, *self.flight.cast.scorers.values()]
        for source in sources:
            with attribute_to(source):
                measured |= source.metrics()
        return measured

    def keep_samples(self, outcomes: Outcomes) -> None:
        """Write some completions of each route, every `sample_every` steps."""
        train = self.flight.config.train
        if not train.sample_every or self.step % train.sample_every:
            return
        kept: dict[str, list[ScoredRollout]] = {}
        for one in outcomes.scored:
            kept.setdefault(one.prompts.route.label, []).append(one)
        for scored in kept.values():
            tokenizer = self.flight.renderer.student.tokenizer
            self.files.write_samples(self.step, "train", scored[: train.samples_per_route], tokenizer)

    async def look_and_save(self, metrics: dict[str, float], windows: Sequence[Window | KeptWindow]) -> None:
        """Evaluate and save when it is time; what a checkpoint follows is in it, so that a resume repeats nothing."""
        train, last = self.flight.config.train, self.step == self.flight.plan.steps
        due = train.save_every and self.step % train.save_every == 0
        self.announcer.emit(StepFinished(self.step, metrics))
        try:
            self.ledger.require_few_failures()
            if train.eval_every and self.step % train.eval_every == 0 and not last:
                metrics |= await self.evaluate("during")
            if last or self.collapse or ROLLED_BACK in metrics or self.stop_requested or due:
                await self.save(metrics, windows)
            if self.collapse:
                raise stopped(self.collapse)
            if last:
                metrics |= await self.finish()
        finally:
            self.files.write_metrics(self.step, metrics)

    async def finish(self) -> dict[str, float]:
        """Write the final weights for others to use, and judge them."""
        if self.stop_requested:
            self.announcer.notice(f"stopping after {FINISHING}")
        self.exported = await self.flight.config.student.export(self.files.run_dir)
        return await self.evaluate("after")

    async def evaluate(self, stage: EvalStage) -> dict[str, float]:
        """Let every evaluator judge the published policy."""
        config, teachers = self.flight.config, self.flight.intake.teachers
        if not config.evaluators:
            return {}
        started = time.perf_counter()
        prompts = [self.flight.render(row) for row in self.flight.eval_rows]
        evaluation = Evaluation(
            prompts, teachers, self.schedule, config.sampling.params, config.seed, stage, self.step, self.published
        )
        results: dict[str, EvalResult] = {}
        for evaluator in config.evaluators:
            with attribute_to(evaluator):
                results[evaluator.name] = await evaluator.evaluate(evaluation)
        self.evals[stage] = eval_summary(results)
        examples = evaluation.examples(config.train.samples_per_route)
        if config.train.sample_every:
            self.files.write_samples(self.step, "heldout", examples, self.flight.renderer.student.tokenizer)
        self.announcer.emit(Evaluated(stage, self.step, results, examples))
        return eval_metrics(results, teachers) | {"time/eval": time.perf_counter() - started}

    async def save(self, metrics: Mapping[str, float], windows: Sequence[Window | KeptWindow]) -> None:
        """Write a checkpoint of this step. What samples is its policy then, and what is in flight is drawn."""
        if self.published != self.step:
            await self.sync(windows)
        state = checkpoint.EngineState(
            step=self.step,
            totals=self.ledger.totals.state(),
            train_seconds=self.train_seconds,
            before=self.evals.get("before"),
            bad_in_a_row=self.learning.bad_in_a_row,
            metrics={name: finite(value) for name, value in metrics.items()},
            files=self.files.lengths() | self.ledger.lengths(),
            in_flight=[InFlight.of(window.work, await window.finished()) for window in windows],
            identity=self.identity,
        )
        config, plugins = self.flight.config, self.flight.cast.plugins
        reach = steps_back(config) if config.guards.action == "rollback" else 0
        await checkpoint.save(self.files.run_dir, state, config.student, plugins, config.train.keep_last, reach)
        self.held = tuple(windows)

    async def resume(self, path: Path, state: checkpoint.EngineState) -> None:
        """Go back to where a checkpoint stands. What was saved after it is of no use any more."""
        checkpoint.forget_after(self.files.run_dir, state.step)
        await checkpoint.load(path, self.flight.config.student, self.flight.cast.plugins)
        self.files.rewind(state.files)
        self.ledger.rewind(state.files)
        self.step, self.train_seconds, self.kept = state.step, state.train_seconds, list(state.in_flight)
        self.ledger.totals = Totals.restored(state.totals)
        self.learning.bad_in_a_row = state.bad_in_a_row
        self.flight = self.flight.continued(self.step, self.ledger.totals.rows_settled)
        self.files.write_metrics(self.step, state.metrics)
        self.guards.remember(read_metrics(self.files.run_dir))
        if state.before is not None:
            self.evals["before"] = dict(state.before)
        self.announcer.notice(f"resumed after step {self.step} from {path}")
