import pytest

from distillkit.data.teacher_names import LONGEST, shown_names, slugs


def of_models(*paths: str) -> tuple[str, ...]:
    return shown_names(paths, paths)


@pytest.mark.parametrize(
    ("paths", "shown"),
    [
        (["Qwen/Qwen3-1.7B"], ["Qwen3-1.7B"]),
        (["/models/Qwen3-1.7B/"], ["Qwen3-1.7B"]),
        (["C:\\models\\Qwen3-1.7B"], ["Qwen3-1.7B"]),
        (["plain"], ["plain"]),
        (["/"], ["/"]),
        (["/a/math/model", "/a/code/model", "/b/other"], ["math/model", "code/model", "other"]),
        (["model", "a/model", "b/a/model"], ["model", "a/model", "b/a/model"]),
        (["a/b", "a//b"], ["a/b", "a//b"]),
    ],
)
def test_a_model_is_called_by_as_many_last_parts_as_tell_it_from_the_others(paths: list[str], shown: list[str]) -> None:
    assert list(of_models(*paths)) == shown


def test_a_route_value_is_shown_as_it_is_and_models_make_way_for_it() -> None:
    assert shown_names(["org/math", "math", "a/b c"], ["org/math", "org/x", "org/y"]) == ("org/math", "math", "a/b c")


def test_a_slug_is_what_a_user_types_where_that_is_clear() -> None:
    shown = ["math", "Qwen3-1.7B", "my teacher", "a/b"]
    assert slugs(shown, shown) == ("math", "Qwen3-1.7B", "my-teacher", "a-b")


@pytest.mark.parametrize(
    "shown",
    [
        ["a/b", "a b"],  # both would be a-b
        ["数学"],
        ["maß"],
        ["!"],
        ["student"],  # concurrency/student/window is the student's
        ["x" * (LONGEST + 1)],
    ],
)
def test_a_slug_has_a_hash_where_it_would_not_tell_which_teacher_it_is(shown: list[str]) -> None:
    made = slugs(shown, [f"name of {text}" for text in shown])
    assert len(set(made)) == len(shown)
    for slug in made:
        start, _, digits = slug.rpartition("-")
        assert start
        assert len(digits) == 10
        int(digits, 16)
    assert made == slugs(shown, [f"name of {text}" for text in shown])
