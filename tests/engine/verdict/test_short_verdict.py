"""Three sentences, by the rules of the long verdict."""

from distillkit.events import Measure
from distillkit.verdict.paired_change import change_of
from distillkit.verdict.run_verdict import DecayWarning, RouteVerdict
from distillkit.verdict.short_verdict import short_verdict
from distillkit.verdict.verdict_sentences import Verdict

GAP = change_of("reverse_kl", Measure("reverse KL, nats a token", "lower"), 0.5, 0.2, 0.05, 12)
WORSE = change_of("repetition", Measure("repeated 4-grams", "lower", "share"), 0.1, 0.4, 0.05, 12)


def verdict(*changes: object, warnings: tuple[DecayWarning, ...] = ()) -> Verdict:
    routes = tuple(RouteVerdict(name, name, 12, changes) for name in ("math", "code"))  # type: ignore[arg-type]
    return Verdict(None, 20, RouteVerdict("", "", 24, changes), routes, (), warnings)  # type: ignore[arg-type]


def test_it_says_what_changed_what_got_worse_and_what_warns() -> None:
    assert short_verdict(verdict(GAP)) == (
        "After 20 steps, on 24 held-out rows, reverse KL, nats a token: math 0.500 -> 0.200 (better), code 0.500 -> "
        "0.200 (better).",
        "Nothing got worse on the held-out rows by more than two standard errors.",
        "No warning from the held-out rows: no gap to a teacher rose, and completions neither ceased to end nor "
        "began to repeat themselves.",
    )
    warning = DecayWarning("repetition", "math", "math", WORSE)
    first, second, third = short_verdict(verdict(GAP, WORSE, warnings=(warning,)))
    assert first.startswith("After 20 steps")
    assert second == "What got worse on the held-out rows: repeated 4-grams (math, code, all)."
    assert third.startswith("Warning: completions repeat themselves more than they did.")


def test_without_a_comparison_it_says_why_and_what_training_saw() -> None:
    said = short_verdict(Verdict("held-out rows", 20, None, (), (GAP,), ()))
    assert said[0].startswith("Nothing tells whether it worked: there are no held-out rows.")
    assert said[1].endswith("reverse KL, nats a token 0.500 -> 0.200.")
    assert len(said) == 2


def test_where_nothing_was_measured_twice_it_says_so() -> None:
    said = short_verdict(verdict())[0]
    assert said == "After 20 steps, on 24 held-out rows, nothing was measured both before and after."
