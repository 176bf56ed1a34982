"""The model that costs nothing."""

import numpy as np
import pytest

from distillkit.types import SamplingParams
from distillkit_loopback.openai.categorical import CategoricalModel


def test_each_distribution_sums_to_one_and_ranks_count_from_the_best() -> None:
    model = CategoricalModel(vocabulary=100)
    assert np.exp(model.distribution(7)).sum() == pytest.approx(1.0)
    best = int(model.distribution(7).argmax())
    scored = model.score([7, best, 3], 1, 3)
    assert scored.ranks[0] == 1
    assert scored.topk_ids[0, 0] == best
    assert scored.ranks[1] == (model.distribution(best) >= model.distribution(best)[3]).sum()
    assert list(scored.topk_logprobs[1]) == sorted(model.distribution(best), reverse=True)[:3]


def test_completions_are_sampled_from_the_distribution() -> None:
    model = CategoricalModel(vocabulary=8)
    first = [model.sample([3], seed, SamplingParams(1)).ids[0] for seed in range(4000)]
    found = np.bincount(first, minlength=8) / len(first)
    assert found == pytest.approx(np.exp(model.distribution(3)), abs=0.03)


def test_temperature_top_k_and_top_p_change_what_is_sampled() -> None:
    model = CategoricalModel(vocabulary=8)
    order = np.argsort(-model.distribution(3))
    firsts = {
        name: {model.sample([3], seed, SamplingParams(1, **options)).ids[0] for seed in range(300)}
        for name, options in {"cold": {"temperature": 0}, "k": {"top_k": 2}, "p": {"top_p": 1e-6}}.items()
    }
    assert firsts == {"cold": {order[0]}, "k": set(order[:2].tolist()), "p": {order[0]}}
