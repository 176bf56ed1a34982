"""Every metric is drawn, no chart is empty, and a thinned curve keeps what stands out."""

import re
from pathlib import Path

from helpers.written_runs import step, write_run

from distillkit.report.chart_groups import GROUPS
from distillkit.report.chart_specs import HELD_OUT, NOT_DRAWN, OTHER, specs_of
from distillkit.report.charts import MOST_POINTS, charts_data, charts_of, thinned
from distillkit.report.read_run import read_run

DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"


def documented() -> list[str]:
    """Metrics of the table of docs/metrics.md, with names in the place of what stands in angle brackets."""
    found = []
    for line in DOCS.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            stem = ""
            for name in re.findall(r"`([^`]+)`", line.split("|")[1]):
                stem = stem if name.startswith("/") else name.rpartition("/")[0]
                found.append(re.sub(r"<\w+>", "x", stem + name if name.startswith("/") else name))
    return found


def test_every_documented_metric_has_a_chart_that_is_explained() -> None:
    own = [spec for specs in GROUPS.values() for spec in specs]
    names = [name for name in documented() if not name.startswith(("eval", "time/unix"))]
    assert len(names) > 40
    lacking = [name for name in names if not any(spec.curve_of(name) for spec in own)]
    # These have charts of their own, by the names that a server gives them ("tinker/x").
    assert set(lacking) == {"train/active_tokens", "completions/trained", "train/refused_completions", "tinker/x"}


def test_no_metric_is_left_out_and_none_is_drawn_twice() -> None:
    names = ["step", "time/unix", *documented(), "eval/mine", "eval_route/math/mine", "my_plugin/thing", "x"]
    groups = specs_of(names)
    for name in names:
        drawn = [spec.id for specs in groups.values() for spec in specs if spec.curve_of(name) is not None]
        assert len(drawn) == (0 if name in NOT_DRAWN else 1), name
    assert [spec.title for spec in groups[HELD_OUT]][-1] == "Mine"
    assert {"x", "my_plugin/thing"} <= {spec.title.lower() for spec in groups[OTHER]}


def test_names_that_differ_by_a_sign_alone_have_charts_of_their_own() -> None:
    names = ["a/b", "a-b", "a b", "ä", "eval/a b", "eval/a-b", "eval_route/r/a b", *documented()]
    specs = [spec for found in specs_of(names).values() for spec in found]
    assert len(specs) == len({spec.id for spec in specs})
    assert all(sum(spec.curve_of(name) is not None for spec in specs) == 1 for name in names if name not in NOT_DRAWN)


def test_curves_by_route_are_labelled_as_the_routes_are(tmp_path: Path) -> None:
    groups = charts_of([read_run(write_run(tmp_path / "run"))])
    gap = groups["Learning"][0]
    assert [curve.label for curve in gap.curves] == ["all", "math", "code"]
    assert gap.curves[0].points[0] == (1, 0.45)
    assert all(curve.points for charts in groups.values() for chart in charts for curve in chart.curves)
    assert "failed" not in {chart.spec.id for chart in groups["Completions"]}  # nothing failed
    assert gap.words(["run"])[0] == ("all: 0.450 at step 1, 0.061 at step 20; lowest 0.061 at 20, highest 0.450 at 1")


def test_a_route_is_called_as_people_call_its_teacher(tmp_path: Path) -> None:
    slug, held_out = "teacher_route/Maths-und-Physik/reverse_kl", "eval_route/Maths-und-Physik/reverse_kl"
    teachers = [{"model": "org/a", "route_value": "Maths und Physik"}, {"model": "org/b", "route_value": "code"}]
    steps = [step(number, **{slug: 0.5, held_out: 0.5}) for number in (1, 2)]
    groups = charts_of([read_run(write_run(tmp_path / "run", steps, config={"teachers": teachers}))])
    labels = [[curve.label for curve in chart.curves] for chart in groups["Learning"][:2]]
    assert labels == [["all", "math", "code", "Maths und Physik"], ["Maths und Physik"]]


def test_throughput_is_tokens_by_seconds(tmp_path: Path) -> None:
    groups = charts_of([read_run(write_run(tmp_path / "run", [step(1)]))])
    (curve,) = next(chart for chart in groups["Speed"] if chart.spec.id == "throughput").curves
    assert curve.points == ((1, 50.0),)


def test_a_thinned_curve_keeps_its_ends_and_its_spikes() -> None:
    points = [(number, float(number % 7)) for number in range(10_000)]
    points[4321] = (4321, 99.0)
    points[8765] = (8765, -99.0)
    kept = thinned(points)
    assert len(kept) <= MOST_POINTS
    assert {points[0], points[-1], points[4321], points[8765]} <= set(kept)
    assert kept == sorted(kept)
    assert set(kept) <= set(points)
    assert thinned(points[:5]) == points[:5]
    assert thinned([(number, 1.0) for number in range(5000)], 100)[-1] == (4999, 1.0)


def test_runs_are_drawn_over_each_other_and_share_their_steps(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / name, name=name)) for name in ("a", "b")]
    data = charts_data(charts_of(runs), ["a", "b"])
    assert data["runs"] == ["a", "b"]
    assert data["steps"] == [list(range(1, 21))]
    (gap,) = (chart for chart in data["charts"] if chart["id"] == "gap")  # type: ignore[union-attr, index, call-overload]
    assert [(curve["run"], curve["label"]) for curve in gap["curves"]] == [  # type: ignore[index, call-overload, union-attr]
        (run, label) for run in (0, 1) for label in ("all", "math", "code")
    ]


def test_small_numbers_keep_their_figures(tmp_path: Path) -> None:
    steps = [step(1, **{"train/learning_rate": 1.25e-4})]
    groups = charts_of([read_run(write_run(tmp_path / "run", steps))])
    (rate,) = (chart for chart in groups["Learning"] if chart.spec.id == "learning-rate")
    assert rate.words(["run"]) == ["all: 0.000125 at step 1"]
