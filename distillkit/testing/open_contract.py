"""What scorers, samplers, weightings, evaluators and sinks owe the engine while they are open."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

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
from distillkit.roles.plugin import CheckReport, Plugin
from distillkit.roles.returned import stream
from distillkit.roles.sampler import Sampler
from distillkit.roles.scorer import Scorer
from distillkit.roles.sink import Sink
from distillkit.roles.student import Student
from distillkit.roles.weighting import Weighting
from distillkit.testing.array_contract import check_rollout_arrays, check_score_arrays, sampling_wants, scoring_wants
from distillkit.testing.builders import TEST_PLAN, make_context, make_rollout, make_row, make_teacher, require
from distillkit.testing.byte_tokenizer import ByteTokenizer
from distillkit.testing.evaluator_contract import check_evaluating
from distillkit.testing.held_to import awaited, given, held_to
from distillkit.testing.said_contract import check_capabilities, check_kept, check_length
from distillkit.testing.student_contract import check_student
from distillkit.testing.synthetic_batches import make_scored_rollouts
from distillkit.testing.weighting_contract import check_weighting
from distillkit.tokenizer import Tokenizer
from distillkit.training_data import Batch
from distillkit.types import SampleKey, SampleRequest, SamplingParams

T = TypeVar("T")
REPEAT_TOLERANCE = 0.05
"""Nats by which two answers to one question may differ: bfloat16, and other companions in a batch."""


async def check_open(plugin: Plugin, batch: Batch | None = None, scored: Sequence[ScoredRollout] = ()) -> None:
    """Check `plugin`, open it, use it as the engine would, close it.

    A student trains on `batch`, and a weighting weighs `scored`, where given.

    Raises PluginError naming the class and what it did.
    """
    context = make_context(f"check_plugin.{plugin.role}", teachers=[make_teacher("teacher")])
    with held_to(plugin, "declare"):
        plugin.declare(context)
    with held_to(plugin, "check"):
        given(plugin, "check", plugin.check(context) or CheckReport(), CheckReport)
    await awaited(plugin, "open", plugin.open(context))
    try:
        check_kept(plugin)
        if isinstance(plugin, Student):
            await check_student(plugin, await _rollouts_of(plugin, context), batch)
        elif isinstance(plugin, Scorer):
            await _check_scorer(plugin, context)
        elif isinstance(plugin, Weighting):
            check_weighting(plugin, scored)
        elif isinstance(plugin, Evaluator):
            await check_evaluating(plugin)
        elif isinstance(plugin, Sampler):
            await _check_samplers_shape(plugin)
        elif isinstance(plugin, Sink):
            for event in _events():
                with held_to(plugin, "emit"):
                    plugin.emit(event)
    finally:
        await awaited(plugin, "close", plugin.close())
        await context.shared.release(context.user)


async def _rollouts_of(student: Student, context: RunContext) -> list[Rollout]:
    """Completions that it sampled itself, as policy 0; made-up ones where it does not sample."""
    weights = given(student, "publish", await awaited(student, "publish", student.publish(0)), Weights)
    with held_to(student, "tokenizer"):
        tokenizer = student.tokenizer(context)
        made_up = _make_rollouts(tokenizer)
    check_length(student, context)
    if not isinstance(student, Sampler):
        return made_up
    await awaited(student, "sync", student.sync(weights))
    return await _check_sampler(student, tokenizer)


def _make_rollouts(tokenizer: Tokenizer) -> list[Rollout]:
    """Short completions in the ids of `tokenizer`, each token with logprob -1."""
    texts = ("a", "Because of scattering.", "one\ntwo")
    return [make_rollout(tokenizer.encode(text), sample=index) for index, text in enumerate(texts)]


async def _check_sampler(sampler: Sampler, tokenizer: Tokenizer) -> list[Rollout]:
    """It answers each request once, within its length; a Rollout itself refuses what are no logprobs."""
    prompt = token_ids(tokenizer.render(make_row("Why?").messages, {}))
    requests = [SampleRequest(SampleKey("1-test", 0, i), prompt, 7 + i, SamplingParams(5)) for i in range(3)]
    outcomes = await _outcomes(sampler, "sample", requests, Rollout)
    _require_one_each(sampler, [outcome.request.key for outcome in outcomes], [request.key for request in requests])
    rollouts = [outcome for outcome in outcomes if isinstance(outcome, Rollout)]
    for rollout in rollouts:
        require(len(rollout.token_ids) <= 5, sampler, "gave more tokens than `params.max_tokens`")
    await _check_stop_ids(sampler, tokenizer, rollouts)
    await _check_sampling_capabilities(sampler, requests)
    return rollouts


async def _check_samplers_shape(sampler: Sampler) -> None:
    """Of one that samples from a student's weights, which nobody can make up: asked for nothing, it yields nothing."""
    outcomes = await _outcomes(sampler, "sample", (), Rollout)
    require(not outcomes, sampler, f"gave {len(outcomes)} outcomes for no request")


async def _outcomes(
    plugin: Sampler | Scorer, method: Literal["sample", "score"], requests: Sequence[Any], wanted: type[T]
) -> list[T | Failure]:
    """What it yields for `requests`, each a value or a Failure."""
    outcomes: list[T | Failure] = []
    with held_to(plugin, method):
        async for outcome in stream(plugin, method, getattr(plugin, method)(requests)):
            kind = f"yields {type(outcome).__name__}, not {wanted.__name__} or Failure"
            require(isinstance(outcome, (wanted, Failure)), plugin, f"`{method}` {kind}")
            outcomes.append(outcome)
    return outcomes


async def _check_sampling_capabilities(sampler: Sampler, requests: Sequence[SampleRequest]) -> None:
    """Asked for what it claims to give besides, it samples the same, and its numbers fit each other."""
    wanted = sampling_wants(sampler.sampling_capabilities())
    asked = [replace(request, wanted=wanted) for request in requests]
    for outcome in await _outcomes(sampler, "sample", asked if wanted else (), Rollout):
        if isinstance(outcome, Rollout):
            check_rollout_arrays(sampler, outcome)


async def _check_stop_ids(sampler: Sampler, tokenizer: Tokenizer, rollouts: Sequence[Rollout]) -> None:
    """Asked again with ids of its own completions as `stop_ids`, it goes on behind none of them."""
    special = frozenset(tokenizer.special_tokens().values())
    sampled = {int(index) for rollout in rollouts for index in rollout.token_ids}
    ends = tuple(sorted(sampled if sampler.stops_at_any_id else sampled & special))
    requests = [replace(rollout.request, params=replace(rollout.request.params, stop_ids=ends)) for rollout in rollouts]
    for outcome in await _outcomes(sampler, "sample", requests if ends else (), Rollout):
        if isinstance(outcome, Rollout):
            on = np.isin(outcome.token_ids[:-1], ends).any()
            require(not on, sampler, "goes on behind a token of `params.stop_ids`, which ends a completion")


async def _check_scorer(scorer: Scorer, context: RunContext) -> None:
    """It answers each request once, the same each time; a Score itself refuses what are no logprobs."""
    check_length(scorer, context)
    check_capabilities(scorer)
    with held_to(scorer, "tokenizer"):
        tokenizer = scorer.tokenizer(context) or ByteTokenizer()
        prompt = token_ids(tokenizer.render(make_row("Why?").messages, {}))
    requests = [ScoreRequest(rollout, scorer.teacher.name, prompt) for rollout in _make_rollouts(tokenizer)]
    first, second = await _scores(scorer, requests), await _scores(scorer, requests[::-1])
    for key in first.keys() & second.keys():
        apart = float(np.abs(first[key].logprobs - second[key].logprobs).max())
        require(apart <= REPEAT_TOLERANCE, scorer, f"answered the same question with logprobs {apart:.3f} nats apart")
    await _check_read_ids(scorer, requests[-1])
    wanted = [scoring_wants(scorer.capabilities(), request) for request in requests]
    if any(request.topk or request.at_ids is not None for request in wanted):
        for score in (await _scores(scorer, wanted)).values():
            check_score_arrays(scorer, score)
    if scorer.moves():
        await awaited(scorer, "on_sync", scorer.on_sync(Weights(1, "live")))


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
    outcomes = await _outcomes(scorer, "score", requests, Score)
    _require_one_each(scorer, [outcome.request.key for outcome in outcomes], [request.key for request in requests])
    failed = [outcome.reason for outcome in outcomes if isinstance(outcome, Failure)]
    require(len(failed) < len(requests), scorer, f"failed every request: {failed[:1]}")
    return {outcome.request.key: outcome for outcome in outcomes if isinstance(outcome, Score)}


def _require_one_each(plugin: Plugin, outcomes: Sequence[SampleKey], requests: Sequence[SampleKey]) -> None:
    missing = set(requests) - set(outcomes)
    extra = len(outcomes) - len(set(outcomes) & set(requests))
    require(not missing, plugin, f"gave no outcome for {len(missing)} of {len(requests)} requests")
    require(not extra, plugin, f"gave {extra} outcomes too many; one a request")


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
