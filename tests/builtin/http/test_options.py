"""The options of scorer `http`, and where those of former versions are now."""

from typing import Any

import pytest

from distillkit import Registry, RunConfig
from distillkit.config.option_problems import PluginOptionsError
from distillkit.errors import InputError
from distillkit.preflight.compatibility import require_capabilities
from distillkit.testing import FakeStudent
from distillkit_builtin.http.options import HttpScorerOptions
from distillkit_builtin.http.scorer import HttpScorer
from distillkit_builtin.http.spoken import AT_IDS


@pytest.mark.parametrize(("old", "new"), HttpScorer.moved.items())
def test_an_option_that_moved_is_refused_by_its_new_place(old: str, new: str) -> None:
    choice = {"name": "http", "base_url": "http://a", old: 3}
    with pytest.raises(PluginOptionsError) as caught:
        Registry.discover().build("scorer", choice)
    assert str(caught.value) == f"{old}: is now {new}"
    group, option = new.split(".")
    built = Registry.discover().build(
        "scorer", {"name": "http", "base_url": ["http://a", "http://b"], group: {option: 3}}
    )
    assert isinstance(built, HttpScorer)
    assert getattr(getattr(built, group), option) == 3


def test_a_key_of_a_group_that_is_misspelt_is_refused_with_the_closest() -> None:
    with pytest.raises(PluginOptionsError, match=r"timeouts\.retri: unknown key; did you mean 'retry'"):
        Registry.discover().build("scorer", {"name": "http", "base_url": "http://a", "timeouts": {"retri": 3}})


def test_the_old_option_for_top_k_says_where_it_went() -> None:
    with pytest.raises(PluginOptionsError) as caught:
        Registry.discover().build("scorer", {"name": "http", "base_url": "http://a", "topk": 20})
    assert str(caught.value).startswith("topk: how many top-k tokens are asked for follows from the loss now")
    assert "--max-logprobs" in str(caught.value)


@pytest.mark.parametrize(
    ("loss", "scorer", "message"),
    [
        (
            {"support": "full"},
            {},
            "gives sampled, topk up to 20, at_ids; loss 'divergence' needs full: serve the teacher locally, or take "
            "support: teacher_topk and a k",
        ),
        (
            {"support": "teacher_topk", "k": 32},
            {},
            "gives sampled, topk up to 20, at_ids; loss 'divergence' needs topk of 32: start vLLM with --max-logprobs "
            "32 and set max_logprobs: 32, or lower k",
        ),
        (
            {"support": "student_topk", "k": 8},
            {"dialect": "sglang"},
            f"gives sampled, topk up to 20; loss 'divergence' needs at_ids of 8: {AT_IDS}, or take support: "
            "teacher_topk",
        ),
    ],
    ids=["full", "topk", "at_ids"],
)
def test_a_loss_that_needs_more_is_refused_with_what_would_fit(
    loss: dict[str, Any], scorer: dict[str, Any], message: str
) -> None:
    teacher = {"model": "t", "scorer": {"name": "http", "base_url": "http://a", **scorer}}
    student = {"name": "local", "model": "s"}
    config = RunConfig(data="rows.jsonl", student=student, teachers=[teacher], loss={"name": "divergence", **loss})  # type: ignore[arg-type]
    with pytest.raises(InputError) as caught:
        require_capabilities(config, FakeStudent())
    assert str(caught.value) == f"scorer 'http' of teacher 't' {message}"


def test_the_plugin_has_the_options_of_the_mixin_and_no_others() -> None:
    assert HttpScorer.model_fields.keys() == HttpScorerOptions.model_fields.keys()
    assert len(HttpScorer.model_fields) <= 10
