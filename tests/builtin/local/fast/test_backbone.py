from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import tiny_models

from distillkit_builtin.local.fast import attention, self_check
from distillkit_builtin.local.fast.attention import CausalAttention
from distillkit_builtin.local.fast.backbone import FastBackbone
from distillkit_builtin.local.fast.projection import side_by_side
from distillkit_builtin.local.fast.self_check import verified_backbone
from distillkit_builtin.local.fast.supported_models import UnsupportedModelError
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.sampling.sampling_copy import SamplingCopy
from distillkit_builtin.local.training.policy import Policy

Load = Callable[..., CausalLM]
IDS = torch.arange(3, 23)


def hidden_states(backbone: FastBackbone) -> torch.Tensor:
    return backbone(IDS, backbone.rotary(len(IDS)), CausalAttention(len(IDS)))


@pytest.mark.parametrize("family", tiny_models.FAST)
@torch.no_grad()
def test_hidden_states_are_the_models_own(tmp_path: Path, load: Load, family: str) -> None:
    causal_lm = load(tiny_models.write_model(tmp_path, family=family))
    expected = causal_lm.hidden_states(IDS[None])[0]
    torch.testing.assert_close(hidden_states(verified_backbone(causal_lm)), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_weights_that_change_in_place_change_the_trunk(causal_lm: CausalLM) -> None:
    backbone = verified_backbone(causal_lm)
    for parameter in causal_lm.model.parameters():
        parameter.mul_(0.9)
    torch.testing.assert_close(hidden_states(backbone), causal_lm.hidden_states(IDS[None])[0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_trained_lora_reaches_the_trunk_of_the_sampling_copy_and_no_other(load: Load, tiny_model: str) -> None:
    causal_lm = load(tiny_model)
    frozen = verified_backbone(causal_lm)
    before = hidden_states(frozen)
    policy = Policy.lora(causal_lm, rank=4, alpha=8, dropout=0.0, seed=0)
    sampling_copy = SamplingCopy(causal_lm)
    sampled = verified_backbone(sampling_copy.causal_lm)
    for parameter in policy.trained.values():
        parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    sampling_copy.refresh()
    torch.testing.assert_close(hidden_states(sampled), causal_lm.hidden_states(IDS[None])[0], atol=1e-4, rtol=1e-4)
    assert torch.equal(hidden_states(frozen), before)
    assert not torch.allclose(hidden_states(sampled), before, atol=1e-2)


def test_weights_lie_side_by_side_once() -> None:
    parameters = [torch.nn.Parameter(torch.full((rows, 2), float(rows))) for rows in (1, 3)]
    whole = side_by_side(parameters)
    assert whole.tolist() == [[1.0, 1.0], *[[3.0, 3.0]] * 3]
    assert side_by_side(parameters).data_ptr() == whole.data_ptr()
    parameters[1].data.zero_()
    assert whole.sum() == 2.0


def test_a_model_that_is_computed_in_another_way_is_found_out(
    load: Load, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = lambda slots, positions, length: attention.DecodeAttention(slots, positions - 1, length)  # noqa: E731
    monkeypatch.setattr(self_check, "DecodeAttention", wrong)
    causal_lm = load(tiny_model)
    with pytest.raises(UnsupportedModelError, match=r"differ from transformers' by .* of their norm"):
        verified_backbone(causal_lm)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hidden_act": "gelu"}, "activation is 'gelu', none of"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "of type 'dynamic'"),
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
            "turns a part of each head alone",
        ),
        ({"layer_types": ["full_attention", "chunked_attention"]}, "neither to everything nor to a sliding window"),
        ({"model_type": "other"}, "model type 'other' is none of the"),
        ({"model_type": "granite", "use_bidirectional_attention": True}, "its use_bidirectional_attention is True"),
    ],
)
def test_what_differs_by_its_config_is_refused_with_the_reason(
    causal_lm: CausalLM, change: dict[str, object], reason: str
) -> None:
    for name, value in change.items():
        object.__setattr__(causal_lm.model.config, name, value)
    with pytest.raises(UnsupportedModelError, match=reason):
        verified_backbone(causal_lm)
