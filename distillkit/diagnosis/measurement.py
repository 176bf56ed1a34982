"""What a diagnosis is made of: completions of the student and of its teachers, and their scores; nothing is trained."""

import asyncio
from collections.abc import Callable, Sequence

from distillkit.diagnosis.figures_of import Measured, TokenNames
from distillkit.errors import RunFailedError
from distillkit.events import Notice, PhaseProgress
from distillkit.loop.evaluation import Evaluation
from distillkit.loop.unless_broken import unless_broken
from distillkit.loop.wanted import Wanted
from distillkit.preflight.prepared_run import PreparedRun
from distillkit.probe.open_run import OpenRun, opened
from distillkit.probe.rows import spread_rows
from distillkit.records import Rollout, Score, ScoredRollout
from distillkit.types import Prompts

TOPK = 20
"""Of how many of their most probable tokens both sides are asked, where they can say as many."""
PURPOSE = "diagnose"
"""Part of the seeds: no step, evaluation or probe samples the same completions."""


async def measured(
    prepared: PreparedRun,
    rows: int,
    tell: Callable[[Notice], None],
    progress: Callable[[PhaseProgress], None] = lambda event: None,
) -> Measured:
    """Open the plugins, sample and score one completion of each of `rows` rows, and close them.

    Besides, each teacher that can writes a completion of its own to each of its rows, and where it reads another prompt
    than the student it scores the student's completions under the student's prompt too.

    Raises:
        MissingExtraError: if something has to be installed first.
        RunFailedError: if no completion could be scored.
    """
    prompts = await asyncio.to_thread(spread_rows, prepared, rows)
    async with opened(prepared, tell, progress) as run:
        return await unless_broken(_measured(run, prompts), prepared.config.student)


async def _measured(run: OpenRun, prompts: list[Prompts]) -> Measured:
    prepared = run.prepared
    outcomes = await run.sampled_and_scored(prompts, PURPOSE, wanted=offered(prepared))
    if not outcomes.scored:
        raise RunFailedError(f"no completion could be scored; the first failure: {outcomes.lost[0].reason}")
    config, teachers = prepared.config, prepared.pipeline.routed_to
    rest = Evaluation(prompts, teachers, run.scheduler, prepared.sampling, config.seed, "before", 0, 0)
    own: dict[str, Sequence[Rollout]] = {}
    student_prompt: dict[str, Sequence[Score]] = {}
    for teacher in (teacher.name for teacher in teachers):
        written = await rest.sample_teacher(teacher)
        if written is not None:
            own[teacher] = written
        others = _read_another_prompt(prepared, outcomes.scored, teacher)
        scores = await rest.score(others, teacher=teacher, privileged=False) if others else None
        if scores is not None:
            student_prompt[teacher] = scores
    tokenizer = prepared.renderer.student.tokenizer
    names = TokenNames(lambda token: tokenizer.show([token]), frozenset(tokenizer.special_tokens().values()))
    untouched = prepared.sampling.is_untouched
    return Measured(outcomes.scored, untouched, names, len(outcomes.lost), own, student_prompt)


def offered(prepared: PreparedRun) -> Wanted:
    """What both sides can say of more tokens than the sampled ones: the policy's entropy, and the top-K of each.

    One K for all sides that give a top-K: the least of what they give, and at most `TOPK`. Teachers are asked where all
    of them can.
    """
    sampler, scorers = prepared.plugins.sampler.sampling_capabilities(), prepared.plugins.scorers.values()
    sides = [sampler, *(scorer.capabilities() for scorer in scorers)]
    limits = [side.get("topk", 0) for side in sides]
    topk = min([TOPK, *(limit for limit in limits if limit)])
    of_sampler = {"entropy": 1} if sampler.get("entropy", 0) != 0 else {}
    of_sampler |= {"topk": topk} if limits[0] != 0 else {}
    return Wanted(of_sampler, {"topk": topk} if 0 not in limits[1:] else {})


def _read_another_prompt(prepared: PreparedRun, scored: Sequence[ScoredRollout], teacher: str) -> list[Rollout]:
    """The completions that `teacher` scored behind another prompt than the student's, which it could read too."""
    longest = prepared.renderer.teachers[teacher].context_length
    mine = [each for each in scored if teacher in each.scores]
    return [
        each.rollout
        for each in mine
        if each.prompts.teachers[teacher].tolist() != each.prompts.student.tolist()
        and (longest is None or len(each.prompts.student) + len(each.rollout.token_ids) <= longest)
    ]
