"""What stands between the head and the logits is found by comparing, whatever an architecture calls it."""

from typing import Any

import pytest
import torch
from helpers.model_families import random_causal_lm, random_model
from helpers.recurrent_families import RECURRENT

from distillkit.errors import InputError
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.model.head_form import HeadForm

FORMS: dict[str, tuple[dict[str, Any], HeadForm]] = {
    "llama": ({}, HeadForm()),
    "cohere": ({"logit_scale": 0.25}, HeadForm(0.25)),
    "granite": ({"logits_scaling": 4.0}, HeadForm(0.25)),
    "hyperclovax": ({"logits_scaling": 4.0}, HeadForm(4.0)),
    "gemma2": ({"final_logit_softcapping": 1.5}, HeadForm(softcap=1.5)),
    "falcon_h1": (dict(RECURRENT["falcon_h1"]), HeadForm(0.3)),
    "inkling_text": ({**RECURRENT["inkling_text"], "unpadded_vocab_size": 200}, HeadForm(0.5, rows=200)),
}


@pytest.mark.parametrize("name", FORMS)
def test_the_head_gives_the_models_own_logits(name: str) -> None:
    values, form = FORMS[name]
    causal_lm = random_causal_lm(name, **values)
    assert causal_lm.head_form == form
    ids = torch.arange(40, 60)[None]
    with torch.no_grad():
        logits = causal_lm.model(input_ids=ids, use_cache=False).logits
        torch.testing.assert_close(causal_lm.head(causal_lm.hidden_states(ids)), logits)


def test_a_cap_is_seen_in_bfloat16_though_small_logits_hardly_change() -> None:
    model = random_model("gemma2", final_logit_softcapping=30.0).to(torch.bfloat16)
    causal_lm = CausalLM(model, Device(torch.device("cpu")), torch.bfloat16)
    causal_lm.require_known_head()
    assert causal_lm.head_form == HeadForm(softcap=30.0)


def test_a_form_that_no_value_of_the_config_explains_is_refused() -> None:
    model = random_model("llama")
    causal_lm = CausalLM(model, Device(torch.device("cpu")), torch.float32)
    forward = model.forward

    def other(*args: Any, **kwargs: Any) -> Any:
        out = forward(*args, **kwargs)
        out.logits = out.logits * 1.7
        return out

    model.forward = other
    with pytest.raises(InputError, match="makes its logits in a way that the local backend does not know"):
        causal_lm.require_known_head()


def test_a_copy_has_what_was_found_of_its_original() -> None:
    causal_lm = random_causal_lm("hyperclovax", logits_scaling=4.0)
    copied = causal_lm.of_copy(random_model("hyperclovax", logits_scaling=4.0))
    assert (copied.head_form, copied.batching) == (causal_lm.head_form, causal_lm.batching)
