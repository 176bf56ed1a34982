from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import tiny_models

from distillkit_builtin.local.causal_lm import Network
from distillkit_builtin.local.fast import attention
from distillkit_builtin.local.fast import self_check as proof
from distillkit_builtin.local.fast.attention import Causal
from distillkit_builtin.local.fast.backbone import KNOWN, FastTrunk, Unknown, side_by_side
from distillkit_builtin.local.fast.self_check import proven_trunk
from distillkit_builtin.local.policy import Policy

Load = Callable[..., Network]
IDS = torch.arange(3, 23)


def hidden_states(trunk: FastTrunk) -> torch.Tensor:
    cos, sin = trunk.rotary(len(IDS))
    return trunk(IDS, cos, sin, Causal(len(IDS), trunk.scale))


@pytest.mark.parametrize("family", sorted(KNOWN))
@torch.no_grad()
def test_hidden_states_are_the_models_own(tmp_path: Path, load: Load, family: str) -> None:
    network = load(tiny_models.write_model(tmp_path, family=family))
    expected = network.hidden_states(IDS[None])[0]
    torch.testing.assert_close(hidden_states(proven_trunk(network)), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_weights_that_change_in_place_change_the_trunk(network: Network) -> None:
    trunk = proven_trunk(network)
    for parameter in network.model.parameters():
        parameter.mul_(0.9)
    torch.testing.assert_close(hidden_states(trunk), network.hidden_states(IDS[None])[0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_trained_lora_reaches_the_trunk_of_the_sampling_copy_and_no_other(load: Load, tiny_model: str) -> None:
    network = load(tiny_model)
    frozen = proven_trunk(network)
    before = hidden_states(frozen)
    policy = Policy.lora(network, rank=4, alpha=8, dropout=0.0, seed=0)
    sampled = proven_trunk(policy.sampler)
    for parameter in policy.trained.values():
        parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    policy.refresh_sampler()
    torch.testing.assert_close(hidden_states(sampled), network.hidden_states(IDS[None])[0], atol=1e-4, rtol=1e-4)
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
    monkeypatch.setattr(proof, "OneToken", lambda *args: attention.OneToken(*args[:2], args[2] * 1.5, args[3]))
    network = load(tiny_model)
    with pytest.raises(Unknown, match=r"of their norm away from transformers'"):
        proven_trunk(network)
    with pytest.raises(Unknown):  # it is not tried again
        proven_trunk(network)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hidden_act": "gelu"}, "activation is 'gelu'"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "of type 'dynamic'"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "do not attend to everything"),
        ({"model_type": "other"}, "model type 'other' is none of llama, mistral"),
    ],
)
def test_what_differs_by_its_config_is_refused_with_the_reason(
    network: Network, change: dict[str, object], reason: str
) -> None:
    for name, value in change.items():
        object.__setattr__(network.model.config, name, value)
    with pytest.raises(Unknown, match=reason):
        proven_trunk(network)
