"""A teacher that says something else when asked once more, and the replica that differs, are found and named."""

import pytest

from distillkit import Registry
from engine.probe.faulty import (
    LIKES,
    CompanyScorer,
    FaultyScorer,
    JitteringScorer,
    KeepingScorer,
    Make,
    OrderedScorer,
    config_of,
    levels,
    report_of,
)


@pytest.mark.parametrize(
    ("scorer", "size", "expected"),
    [
        (JitteringScorer, 20.0, {"again": "refuse"}),
        (JitteringScorer, 2.0, {"again": "warn"}),
        (JitteringScorer, 1e-4, {}),
        (OrderedScorer, 6.0, {"reversed": "refuse"}),
        (OrderedScorer, 2.0, {"reversed": "warn"}),
        (OrderedScorer, 1e-4, {}),
        (CompanyScorer, 20.0, {"alone": "refuse"}),
        (CompanyScorer, 2.0, {"alone": "warn"}),
        (CompanyScorer, 1e-4, {}),
    ],
)
async def test_a_teacher_that_says_something_else_when_asked_once_more_is_found_and_named(
    fake_config: Make, registry: Registry, scorer: type[FaultyScorer], size: float, expected: dict[str, str]
) -> None:
    """The gap is about 4 nats; noise above it is refused, above its tenth told, and that of rounding neither."""
    report = await report_of(config_of(fake_config, scorer(likes=LIKES, size=size)), registry)
    assert {name: level for name, level in levels(report).items() if name not in ("far", "nothing")} == expected


async def test_a_replica_that_differs_is_found_behind_a_cache(fake_config: Make, registry: Registry) -> None:
    report = await report_of(config_of(fake_config, KeepingScorer(likes=LIKES, size=3.0)), registry)
    (found,) = (verdict for verdict in report.verdicts if verdict.what == "replica")
    assert "three" in found.message
    assert "two" not in found.message
    apart = report.figures.teachers[0].asked_again
    assert (apart["replica two"].largest, apart["replica three"].mean) == (0.0, pytest.approx(3.0, abs=1e-5))
    assert "than at the 2 addresses that agree" in found.message


@pytest.mark.parametrize("names", [("one", "three"), ("three", "one")])
async def test_of_two_replicas_that_differ_nobody_knows_which_is_right(
    fake_config: Make, registry: Registry, names: tuple[str, ...]
) -> None:
    report = await report_of(config_of(fake_config, KeepingScorer(likes=LIKES, size=3.0, names=names)), registry)
    (found,) = (verdict for verdict in report.verdicts if verdict.what == "replica")
    assert f"at {names[1]} than at {names[0]}: 3 nats" in found.message
    assert "which of them is right is not known" in found.message


@pytest.mark.parametrize("names", [("three", "one", "two"), ("one", "three", "two"), ("one", "two", "three", "four")])
async def test_the_replica_that_differs_from_most_is_named_wherever_it_stands(
    fake_config: Make, registry: Registry, names: tuple[str, ...]
) -> None:
    report = await report_of(config_of(fake_config, KeepingScorer(likes=LIKES, size=3.0, names=names)), registry)
    (found,) = (verdict for verdict in report.verdicts if verdict.what == "replica")
    assert f"at three than at the {len(names) - 1} addresses that agree" in found.message
    (teacher,) = report.figures.teachers
    assert {f"replica {name}" for name in names} - set(teacher.asked_again) == {f"replica {teacher.compared_with}"}
    assert teacher.compared_with != "three"


async def test_a_cache_does_not_hide_that_a_teacher_jitters(fake_config: Make, registry: Registry) -> None:
    scorer = KeepingScorer(likes=LIKES, size=3.0, jitters=True)
    report = await report_of(config_of(fake_config, scorer), registry)
    assert levels(report)["again"] == "warn"
    assert "replica" not in levels(report)  # they differ by no more than each from itself
    assert not scorer._kept
