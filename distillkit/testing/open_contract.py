"""What scorers, samplers, weightings, evaluators and sinks owe the engine while they are open."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from distillkit.arrays import token_ids
from distillkit.context import RunContext
from distillkit.events import (
    Evaluated,
    Event,
    Notice,
    PhaseProgress,
    PhaseStarted,
    RunFinished,
    RunStarted,
    StepFinished,
)
from distillkit.records import Failure, Rollout, Score, ScoredRollout, ScoreRequest, Weights
from distillkit.roles.evaluator import Evaluator
from distillkit.roles.plugin import Plugin
from distillkit.roles.sampler import Sampler
from distillkit.roles.scorer import Scorer
from distillkit.roles.sink import Sink
from distillkit.roles.student import Student
from distillkit.roles.weighting import Weighting
from distillkit.testing.builders import TEST_PLAN, make_context, make_rollout, make_row, make_teacher, require
from distillkit.testing.byte_tokenizer import ByteTokenizer
from distillkit.testing.eval_context import FakeEvalContext
from distillkit.testing.student_contract import check_student
from distillkit.testing.synthetic_batches import make_scored_rollouts
from distillkit.testing.weighting_contract import check_weighting
from distillkit.tokenizer import Tokenizer
from distillkit.training_data import Batch
from distillkit.types import SampleKey, SampleRequest, SamplingParams

REPEAT_TOLERANCE = 0.05
"""Nats by which two answers to one question may differ: bfloat16, and other companions in a batch."""


async def check_open(plugin: Plugin, batch: Batch | None = None, scored: Sequence[ScoredRollout] = ()) -> None:
    """Check `plugin`, open it, use it as the engine would, close it.

    A student trains on `batch`, and a weighting weighs `scored`, where given.

    Raises PluginError naming the class and what it did.
    """
    context = make_context(f"check_plugin.{plugin.role}", teachers=[make_teacher("teacher")])
    plugin.declare(context)
    plugin.check(context)
    await plugin.open(context)
    try:
        json.dumps(plugin.state())
        known = plugin.fingerprint()
        texts = all(isinstance(text, str) for pair in known.items() for text in pair)
        require(texts and known == plugin.fingerprint(), plugin, "has a fingerprint that is not of texts, or changes")
        if isinstance(plugin, Student):
            await check_student(plugin, await _rollouts_of(plugin, context), batch)
        elif isinstance(plugin, Scorer):
            await _check_scorer(plugin, plugin.tokenizer(context) or ByteTokenizer())
        elif isinstance(plugin, Weighting):
            check_weighting(plugin, scored)
        elif isinstance(plugin, Evaluator):
            await _check_evaluator(plugin)
        elif isinstance(plugin, Sink):
            for event in _events():
                plugin.emit(event)
    finally:
        await plugin.close()
        await context.shared.release(context.user)


async def _rollouts_of(student: Student, context: RunContext) -> list[Rollout]:
    """Completions that it sampled itself, as policy 0; made-up ones where it does not sample."""
    weights, tokenizer = await student.publish(0), student.tokenizer(context)
    if not isinstance(student, Sampler):
        return _make_rollouts(tokenizer)
    await student.sync(weights)
    return await _check_sampler(student, tokenizer)


def _make_rollouts(tokenizer: Tokenizer) -> list[Rollout]:
    """Short completions in the ids of `tokenizer`, each token with logprob -1."""
    texts = ("a", "Because of scattering.", "one\ntwo")
    return [make_rollout(tokenizer.encode(text), sample=index) for index, text in enumerate(texts)]


async def _check_sampler(sampler: Sampler, tokenizer: Tokenizer) -> list[Rollout]:
    """It answers each request once, within its length; a Rollout itself refuses what are no logprobs."""
    prompt = token_ids(tokenizer.render(make_row("Why?").messages, {}))
    requests = [SampleRequest(SampleKey("1-test", 0, i), prompt, 7 + i, SamplingParams(5)) for i in range(3)]
    outcomes = [outcome async for outcome in sampler.sample(requests)]
    _require_one_each(sampler, [outcome.request.key for outcome in outcomes], [request.key for request in requests])
    rollouts = [outcome for outcome in outcomes if isinstance(outcome, Rollout)]
    for rollout in rollouts:
        require(len(rollout.token_ids) <= 5, sampler, "gave more tokens than `params.max_tokens`")
    await _check_stop_ids(sampler, tokenizer, rollouts)
    return rollouts


async def _check_stop_ids(sampler: Sampler, tokenizer: Tokenizer, rollouts: Sequence[Rollout]) -> None:
    """Asked again with ids of its own completions as `stop_ids`, it goes on behind none of them."""
    special = frozenset(tokenizer.special_tokens().values())
    sampled = {int(index) for rollout in rollouts for index in rollout.token_ids}
    ends = tuple(sorted(sampled if sampler.stops_at_any_id else sampled & special))
    requests = [replace(rollout.request, params=replace(rollout.request.params, stop_ids=ends)) for rollout in rollouts]
    async for outcome in sampler.sample(requests if ends else ()):
        if isinstance(outcome, Rollout):
            on = np.isin(outcome.token_ids[:-1], ends).any()
            require(not on, sampler, "goes on behind a token of `params.stop_ids`, which ends a completion")


async def _check_scorer(scorer: Scorer, tokenizer: Tokenizer) -> None:
    """It answers each request once, the same each time; a Score itself refuses what are no logprobs."""
    prompt = token_ids(tokenizer.render(make_row("Why?").messages, {}))
    requests = [ScoreRequest(rollout, scorer.teacher.name, prompt) for rollout in _make_rollouts(tokenizer)]
    first, second = await _scores(scorer, requests), await _scores(scorer, requests[::-1])
    for key in first.keys() & second.keys():
        apart = float(np.abs(first[key].logprobs - second[key].logprobs).max())
        require(apart <= REPEAT_TOLERANCE, scorer, f"answered the same question with logprobs {apart:.3f} nats apart")
    await _check_read_ids(scorer, requests[-1])
    if scorer.moves():
        await scorer.on_sync(Weights(1, "live"))


async def _check_read_ids(scorer: Scorer, request: ScoreRequest) -> None:
    """It scores the request's `token_ids`, which are not the rollout's where a teacher's turns end otherwise."""
    read = replace(request, read_ids=np.roll(request.token_ids, 1))
    other = make_rollout(read.token_ids.tolist(), sample=request.key.sample)
    expected = (await _scores(scorer, [replace(request, rollout=other)]))[request.key].logprobs
    found = (await _scores(scorer, [read]))[request.key].logprobs
    apart = float(np.abs(found - expected).max())
    require(
        apart <= REPEAT_TOLERANCE, scorer, f"scored other ids than `ScoreRequest.token_ids` ({apart:.3f} nats apart)"
    )


async def _scores(scorer: Scorer, requests: Sequence[ScoreRequest]) -> dict[SampleKey, Score]:
    outcomes = [outcome async for outcome in scorer.score(requests)]
    _require_one_each(scorer, [outcome.request.key for outcome in outcomes], [request.key for request in requests])
    failed = [outcome.reason for outcome in outcomes if isinstance(outcome, Failure)]
    require(len(failed) < len(requests), scorer, f"failed every request: {failed[:1]}")
    return {outcome.request.key: outcome for outcome in outcomes if isinstance(outcome, Score)}


def _require_one_each(plugin: Plugin, outcomes: Sequence[SampleKey], requests: Sequence[SampleKey]) -> None:
    missing = set(requests) - set(outcomes)
    extra = len(outcomes) - len(set(outcomes) & set(requests))
    require(not missing, plugin, f"gave no outcome for {len(missing)} of {len(requests)} requests")
    require(not extra, plugin, f"gave {extra} outcomes too many; one a request")


async def _check_evaluator(evaluator: Evaluator) -> None:
    context = FakeEvalContext(make_scored_rollouts(), [make_teacher("teacher")], samples_and_scores=True)
    result = await evaluator.evaluate(context)
    labels = {scored.prompts.route.label for scored in context.completions}
    require(set(result.routes) <= labels, evaluator, f"names routes {set(result.routes)}; there are {labels}")
    for values in (result.metrics, *result.routes.values()):
        require(all(math.isfinite(value) for value in values.values()), evaluator, f"found {dict(values)}")
    rows = {row.row_id for row in context.rows}
    for name, by_row in result.by_row.items():
        require(by_row.keys() <= rows, evaluator, f"`by_row` of {name} names rows {set(by_row) - rows}")
        total, count = sum(row.total for row in by_row.values()), sum(row.count for row in by_row.values())
        known = result.metrics.get(name)
        fits = known is None or (count and math.isclose(total / count, known, rel_tol=1e-4, abs_tol=1e-6))
        require(fits, evaluator, f"`by_row` of {name} makes {total:g} / {count:g}, which is not the metric {known}")


def _events() -> list[Event]:
    scored = make_scored_rollouts()
    return [
        PhaseStarted("load", "student"),
        RunStarted("test", Path("runs/test"), TEST_PLAN, (make_teacher("teacher"),), 1, {}),
        Notice("something to know"),
        PhaseStarted("sample"),
        PhaseProgress("sample", 1, 2),
        StepFinished(1, {"train/reverse_kl": 0.5, "train/active_tokens": 6.0, "time/step": 0.1}),
        Evaluated("after", 1, {}, tuple(scored)),
        RunFinished({"steps": 1}),
    ]
