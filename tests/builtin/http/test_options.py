"""The options of scorer `http`, and where those of former versions are now."""

import pytest

from distillkit import Registry
from distillkit.config.option_problems import PluginOptionsError
from distillkit_builtin.http.options import HttpScorerOptions
from distillkit_builtin.http.scorer import HttpScorer


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


def test_the_plugin_has_the_options_of_the_mixin_and_no_others() -> None:
    assert HttpScorer.model_fields.keys() == HttpScorerOptions.model_fields.keys()
    assert len(HttpScorer.model_fields) <= 10
