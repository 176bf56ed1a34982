"""Ways to batch that a recurrent model computes wrongly are found, and not taken."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.model_families import random_causal_lm
from helpers.own_forward import reference
from torch import Tensor

from builtin.local.model.recurrent_items import family, items, sampled
from distillkit.errors import InputError
from distillkit_builtin.local.batches.sequence_proof import proved
from distillkit_builtin.local.model.batching import Batching
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse
from distillkit_builtin.local.training.policy import Policy


def changed(change: Callable[[Any, Tensor], Tensor]) -> CausalLM:
    """A llama whose hidden states are changed; `change` gets the call's arguments too."""
    causal_lm = random_causal_lm("llama")
    forward = causal_lm.backbone.forward

    def other(*args: Any, **kwargs: Any) -> Any:
        out = forward(*args, **kwargs)
        out.last_hidden_state = change(kwargs, out.last_hidden_state)
        return out

    causal_lm.backbone.forward = other
    return proved(causal_lm)


def test_where_left_padding_is_broken_prompts_of_one_length_are_sampled_together(tmp_path: Path) -> None:
    widths: list[tuple[int, ...]] = []

    def broken(given: Any, hidden: Tensor) -> Tensor:
        widths.append(tuple(given["input_ids"].shape))
        return hidden * (1 + 0.1 * (given.get("attention_mask") is not None))

    causal_lm = changed(broken)
    assert causal_lm.batching == Batching(left_padding=False, right_padding=True, shared_prefix=True)
    widths.clear()
    for rollout in sampled(causal_lm, tmp_path):
        expected = reference(causal_lm, PromptAndResponse(rollout.request.prompt_ids, rollout.token_ids))
        torch.testing.assert_close(torch.tensor(rollout.logprobs), expected, atol=1e-4, rtol=1e-4)
    assert {shape for shape in widths if shape[1] in (21, 24, 29)} >= {(1, 21), (2, 24), (1, 29)}
    (note,) = causal_lm.batching.sampling_notes("Broken")
    assert note.startswith("Broken: prompts of different lengths are sampled in batches of one length: ")


def test_where_right_padding_is_broken_sequences_of_one_length_are_trained_and_scored_together() -> None:
    def broken(given: Any, hidden: Tensor) -> Tensor:
        return hidden * (1 + 0.1 * (given["input_ids"][:, -1:, None] == 0))

    causal_lm = changed(broken)
    assert causal_lm.batching == Batching(left_padding=True, right_padding=False, shared_prefix=False)
    policy = Policy.full(causal_lm)
    some = [*items(), *items()]
    groups = policy.micro_batches(some, 10_000)
    assert sorted(map(len, groups)) == [2, 2, 2, 2]
    with policy.training():
        for group in groups:
            expected = torch.cat([reference(causal_lm, some[i]) for i in group])
            found = policy.logprobs([some[i] for i in group]).detach()
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert "sequences are trained in batches of one length" in next(causal_lm.batching.training_notes("Broken"))
    assert sum("scored in batches of one length" in note for note in causal_lm.batching.scoring_notes("Broken")) == 1


def test_a_way_that_raises_is_not_taken() -> None:
    def raises(given: Any, hidden: Tensor) -> Tensor:
        if "attention_mask" in given:
            raise ValueError("no masks here")
        return hidden

    assert not changed(raises).batching.left_padding


def test_what_fails_in_rows_of_one_length_too_is_refused() -> None:
    for share in (0.1, 5e-4):  # as little as a state space layer that forgets a limit of its steps moves
        with pytest.raises(InputError, match=r"hidden states of a sequence token by token are .* serve it over HTTP"):
            changed(lambda given, hidden, share=share: hidden * (1 + share * (hidden.shape[1] == 1)))


@pytest.mark.parametrize(("name", "way"), [("mamba", "left_padding"), ("jamba", "shared_prefix")])
def test_a_fault_of_recurrent_layers_is_found_in_bfloat16_too(name: str, way: str) -> None:
    causal_lm = family(name)
    causal_lm.model.to(torch.bfloat16)
    assert not getattr(proved(causal_lm).batching, way)
