"""Tables by route: of a run that came to its end, of one that goes on, and of several beside each other."""

from pathlib import Path
from typing import Any

from helpers.html_outline import outline
from helpers.written_runs import step, write_run

from distillkit.events import Measure
from distillkit.report.cost import trained_completions
from distillkit.report.read_run import read_run
from distillkit.report.report_page import report_html
from distillkit.report.route_results import route_results
from distillkit.report.training_routes import trained_routes
from distillkit.run_directory.codec import to_json
from distillkit.verdict.paired_change import change_of
from distillkit.verdict.run_verdict import RouteVerdict
from distillkit.verdict.verdict_sentences import Verdict

RATE = Measure("right answers", "higher", "share")


def verdict(after: float = 0.75) -> dict[str, Any]:
    change = change_of("pattern_rate", RATE, 0.25, after, 0.1, 12)
    routes = (RouteVerdict("math", "math", 12, (change,)), RouteVerdict("code", "code", 12, (change,)))
    return {**to_json(Verdict(None, 20, RouteVerdict("", "", 24, (change,)), routes, (), ()))}


def test_a_route_stands_beside_its_teacher_and_the_control(tmp_path: Path) -> None:
    of_math = {"pattern_rate": 0.75, "teacher_rate": 0.9, "control_rate": 0.2}
    run = read_run(write_run(tmp_path / "run", verdict=verdict(), eval={"after": {"routes": {"math": of_math}}}))
    math, code, overall = route_results(run)
    (row,) = math.results
    assert (row.before, row.after, row.change, row.outcome) == ("25%", "75%", "+50% ± 10%", "better")
    assert (row.teacher, row.control) == ("90%", "20%")
    assert (code.results[0].teacher, overall.shown, overall.rows) == ("", "", 24)
    text = outline(report_html([run])).all("section")[1].text
    assert "right answers25%75%+50% ± 10%better90%20%" in text


def test_a_run_that_goes_on_shows_its_evaluations_so_far(tmp_path: Path) -> None:
    steps = [{"step": 0, "eval/reverse_kl": 0.5, "eval_route/math/reverse_kl": 0.6}, step(1)]
    steps.append(step(2, **{"eval/reverse_kl": 0.3}))
    math, overall = route_results(read_run(write_run(tmp_path / "run", steps)))
    assert [(row.before, row.after) for row in (*math.results, *overall.results)] == [("0.600", ""), ("0.500", "0.300")]


def test_training_by_route_adds_up(tmp_path: Path) -> None:
    math, code = trained_routes(read_run(write_run(tmp_path / "run")))
    assert (math.slug, math.steps, math.completions, math.tokens, math.weight) == ("math", 20, 160, 2000, 0.5)
    assert math.first_gap is not None
    assert math.newest_gap is not None
    assert math.first_gap > 4 * math.newest_gap
    assert code.headroom == code.newest_gap / code.first_gap


def test_a_share_of_a_gap_that_was_next_to_nothing_is_not_said(tmp_path: Path) -> None:
    steps = [step(number, **{"teacher_route/math/reverse_kl": 0.001 * number}) for number in range(1, 21)]
    math, _ = trained_routes(read_run(write_run(tmp_path / "run", steps)))
    assert (math.first_gap, math.headroom) == (0.003, None)


def test_weights_of_routes_that_take_turns_make_one(tmp_path: Path) -> None:
    mine = [
        step(1),
        {name: value for name, value in step(2, **{"teacher_route/code/weight": 1.0}).items() if "math" not in name},
    ]
    math, code = trained_routes(read_run(write_run(tmp_path / "run", mine)))
    assert (math.weight, code.weight) == (0.25, 0.75)


def test_a_route_is_called_as_people_call_its_teacher(tmp_path: Path) -> None:
    teacher = {"model": "runs/models/student"}
    slug = "student-f2ca6f39f7"  # metric names say "student" of the student
    steps = [{name.replace("math", slug): value for name, value in step(1).items() if "code" not in name}]
    (route,) = trained_routes(read_run(write_run(tmp_path / "run", steps, config={"teachers": [teacher]})))
    assert (route.slug, route.shown) == (slug, "student")


def test_several_runs_stand_side_by_side(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, name=name, verdict=verdict(after)) for name, after in (("a", 0.75), ("b", 0.5))]
    text = outline(report_html([read_run(run) for run in runs])).all("section")[2].text
    assert "mathright answers25% → 75%25% → 50%" in text
    assert "Reverse KL, nats a tokenmath0.0760.076" in text


def test_of_several_runs_what_is_read_first_stands_above_and_the_rest_is_folded(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / name, name=name)) for name in "ab"]
    page = outline(report_html(runs))
    (folded,) = (e for e in page.all("details") if "more metrics of training" in e.text)
    whole = next(e for e in page.all("section") if e.attributes["id"] == "results").text
    assert "Reverse KL, nats a tokenall0.076" in whole
    assert "Reverse KL, nats a tokenall" not in folded.text
    assert "Reverse KL, nats a tokenmath0.0760.076" in folded.text
    assert not [e for e in outline(report_html(runs[:1])).all("details") if "more metrics of training" in e.text]


def test_options_of_another_loss_are_folded(tmp_path: Path) -> None:
    loss = {"name": "divergence", **{f"option_{number}": number for number in range(6)}}
    configs = ({"seed": 1}, {"seed": 2, "loss": loss})
    runs = [read_run(write_run(tmp_path / str(at), config=config)) for at, config in enumerate(configs)]
    page = outline(report_html(runs))
    (folded,) = (e for e in page.all("details") if "only some of the runs have" in e.text)
    assert "loss.option_5null5" in folded.text
    assert "seed" not in folded.text


def test_the_settings_that_differ_come_before_the_results(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, name=name, config={"seed": seed}) for seed, name in enumerate("ab")]
    several = [section.attributes["id"] for section in outline(report_html([*map(read_run, runs)])).all("section")]
    alone = [section.attributes["id"] for section in outline(report_html([read_run(runs[0])])).all("section")]
    assert several.index("settings") < several.index("results")
    assert alone.index("settings") > alone.index("results")


def test_a_killed_run_counts_the_completions_that_its_ledger_has(tmp_path: Path) -> None:
    trained = {"row_id": "1", "route": "math", "outcome": "trained", "completions": [{"outcome": "trained"}] * 2}
    run = read_run(write_run(tmp_path / "run", ledger=[trained], status="running", trained_completions=0))
    assert trained_completions(run) == 2
    assert trained_completions(read_run(write_run(tmp_path / "none"))) is None
