"""Each fault is put into a fake, and found by its name; the healthy fakes have none."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from conftest import question

from distillkit import Registry, RunFailedError
from distillkit.probe.measure import NEXT_TOKENS, TIMES, Probe
from distillkit.probe.open_run import opened
from distillkit.probe.rows import spread_rows
from distillkit.records import Failure
from distillkit.testing import ByteTokenizer
from distillkit.testing.fakes import log_softmax
from engine.probe.faulty import (
    LIKES,
    LONG,
    EndlessStudent,
    FakeScorer,
    GraduallyOrderedScorer,
    JitteringScorer,
    Make,
    NotingStudent,
    TouchedStudent,
    UnendingScorer,
    config_of,
    levels,
    prepared,
    report_of,
)


async def test_nothing_is_wrong_with_the_fakes_and_their_figures_are_what_they_must_be(
    fake_config: Make, registry: Registry
) -> None:
    report = await report_of(config_of(fake_config, probe={"rows": 8}), registry)
    assert levels(report) == {"nothing": "ok"}
    figures = report.figures
    (teacher,) = figures.teachers
    assert (figures.rows, figures.completions, figures.failed) == (8, 8, 0)
    logits = np.zeros(ByteTokenizer.size, np.float32)
    logits[list(LIKES.encode())] = 3.0
    at_end = float(log_softmax(logits)[ByteTokenizer.turn_end] + np.log(ByteTokenizer.size))
    assert teacher.end.mean == pytest.approx(at_end, abs=1e-5)
    assert teacher.end_tokens == (ByteTokenizer().show([ByteTokenizer.turn_end]),)
    assert teacher.end.tokens == teacher.ended == figures.ended > 0
    assert teacher.first.tokens + teacher.between.tokens + teacher.end.tokens == teacher.gap.tokens
    assert teacher.first.tokens == 4 * 8
    assert {how: apart.largest for how, apart in teacher.asked_again.items()} == dict.fromkeys(
        ("again", "reversed", "alone"), 0.0
    )
    assert figures.sampled_tokens == teacher.gap.tokens + NEXT_TOKENS * TIMES


@pytest.mark.parametrize("keep", [1, 20])
async def test_a_sampler_that_touches_the_distribution_is_refused(
    fake_config: Make, registry: Registry, keep: int
) -> None:
    report = await report_of(config_of(fake_config, student=TouchedStudent(keep=keep)), registry)
    assert levels(report)["sampling"] == "refuse"
    assert "generation_config" in report.refused[0].message


async def test_the_whole_distribution_is_tested_where_the_run_samples_from_a_part(
    fake_config: Make, registry: Registry
) -> None:
    student = NotingStudent()
    own = {**LONG, "temperature": 0.5, "top_k": 3, "top_p": 0.9}
    report = await report_of(config_of(fake_config, student=student, sampling=own, probe={"rows": 8}), registry)
    assert levels(report) == {"nothing": "ok"}
    assert report.figures.run_samples_otherwise
    asked = Counter((each.params.max_tokens, each.params.is_untouched) for each in student._asked)
    assert asked == {(400, False): 8, (1, True): NEXT_TOKENS * TIMES}
    assert len({each.seed for each in student._asked}) == 8 + NEXT_TOKENS * TIMES


async def test_what_a_stop_string_ends_has_no_token_that_ends_a_turn(fake_config: Make, registry: Registry) -> None:
    sampling = {**LONG, "stop": ["e"]}
    report = await report_of(config_of(fake_config, student=NotingStudent(), sampling=sampling), registry)
    (teacher,) = report.figures.teachers
    assert teacher.ended > teacher.end.tokens
    assert set(teacher.end_tokens) <= {"<|im_end|>"}


async def test_only_backwards_does_a_teacher_that_remembers_what_it_was_asked_last_say_something_else(
    fake_config: Make, registry: Registry
) -> None:
    report = await report_of(config_of(fake_config, GraduallyOrderedScorer(likes=LIKES)), registry)
    apart = report.figures.teachers[0].asked_again
    assert apart["again"].largest == 0.0
    assert apart["reversed"].largest > 0.1


async def test_a_student_that_never_ends_is_refused_where_that_is_no_chance(
    fake_config: Make, registry: Registry
) -> None:
    report = await report_of(config_of(fake_config, student=EndlessStudent(), probe={"rows": 8}), registry)
    assert levels(report) == {"endings": "refuse"}
    for word in ("sampling.max_completion_tokens", "sampling.stop_ids", "400 tokens", "none of 8"):
        assert word in report.refused[0].message
    report = await report_of(config_of(fake_config, student=EndlessStudent(), probe={"rows": 7}), registry)
    assert levels(report) == {"endings": "warn"}


@pytest.mark.parametrize(
    ("own", "turn_end", "known"),
    [
        (ByteTokenizer.turn_end, "same", True),
        (ByteTokenizer.turn_end, "map", True),  # there is nothing to map
        (ByteTokenizer.turn_start, "map", True),
        (None, "same", False),
    ],
)
async def test_a_teacher_that_would_not_end_there_is_told_what_can_be_done_where_something_can(
    fake_config: Make, registry: Registry, own: int | None, turn_end: str, known: bool
) -> None:
    scorer = UnendingScorer(likes=LIKES, own=own)
    teachers = [{"model": "t", "scorer": scorer, "turn_end": turn_end}]
    report = await report_of(config_of(fake_config, teachers=teachers), registry)
    (verdict,) = report.verdicts
    assert (verdict.level, verdict.what) == ("warn", "turn-end")
    assert "<|im_end|>" in verdict.message
    assert report.figures.teachers[0].ends_as_teacher == known
    assert ("turn_end: map" in verdict.message, "sampling.stop_ids" in verdict.message) == (not known,) * 2
    assert ("no option is to be changed" in verdict.message) == known


async def test_a_teacher_equal_to_the_student_alarms_nobody(fake_config: Make, registry: Registry) -> None:
    report = await report_of(config_of(fake_config, FakeScorer()), registry)
    assert levels(report) == {"nothing": "ok"}
    assert report.figures.teachers[0].gap.mean_abs == 0.0


async def test_every_teacher_is_measured_on_rows_of_its_own(
    fake_config: Make, registry: Registry, jsonl: Callable[..., str]
) -> None:
    rows = [question(f"number {i}", teacher=route) for i, route in enumerate("aaaaaaab")]
    teachers = [
        {"model": "a", "route_value": "a", "scorer": FakeScorer(likes=LIKES)},
        {"model": "b", "route_value": "b", "scorer": JitteringScorer(likes=LIKES, size=20.0)},
    ]
    config = config_of(fake_config, data={"path": jsonl(rows)}, teachers=teachers, router="field", probe={"rows": 4})
    report = await report_of(config, registry)
    assert {each.teacher: each.completions for each in report.figures.teachers} == {"a": 3, "b": 1}
    assert set(report.figures.teachers[1].asked_again) == {"again"}  # one alone is in no order and beside nobody
    assert [verdict.message.partition(" gives")[0] for verdict in report.refused] == ["teacher 'b'"]


class SilentScorer(FakeScorer):
    """Fails at the first `fails` completions that it is asked of, each time."""

    name = "silent"
    fails: int = 1

    async def score(self, requests):  # type: ignore[no-untyped-def]
        for request in requests[: self.fails]:
            yield Failure(request, "the server is away")
        async for score in super().score(requests[self.fails :]):
            yield score


async def test_what_fails_is_counted_and_nothing_is_said_of_a_teacher_that_said_nothing(
    fake_config: Make, registry: Registry
) -> None:
    report = await report_of(config_of(fake_config, SilentScorer(likes=LIKES)), registry)
    assert levels(report) == {"failures": "warn"}
    assert "the server is away" in report.verdicts[0].message
    with pytest.raises(RunFailedError, match=r"teacher 't' could score no completion.*the server is away"):
        await report_of(config_of(fake_config, SilentScorer(fails=100)), registry)


async def test_the_tokens_that_it_takes_are_known_before(fake_config: Make, registry: Registry) -> None:
    run = prepared(config_of(fake_config), registry)
    figures = (await report_of(config_of(fake_config), registry)).figures
    planned = Probe(run, spread_rows(run, 16)).tokens
    assert figures.sampled_tokens + figures.scored_tokens < planned


async def test_whether_prompts_end_alike_is_seen_on_the_prompts(
    fake_config: Make, registry: Registry, jsonl: Callable[..., str]
) -> None:
    own = [{"role": "system", "content": "Answer in one sentence."}, {"role": "user", "content": "Why?"}]
    alike = config_of(fake_config, data={"path": jsonl([question("Why?", teacher_messages=own)])})
    assert (await report_of(alike, registry)).figures.teachers[0].prompts_end_alike
    run = prepared(alike, registry)
    prompts = [replace(each, teachers={"t": each.teachers["t"][:-3]}) for each in spread_rows(run, 1)]
    async with opened(run, print):
        assert not (await Probe(run, prompts).measured()).teachers[0].prompts_end_alike
