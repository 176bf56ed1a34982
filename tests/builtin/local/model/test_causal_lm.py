import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import tiny_models
from safetensors.torch import load_file, save_file

from builtin.local.conftest import plain_logprobs
from distillkit.arrays import token_ids
from distillkit.errors import InputError
from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse

ITEMS = [
    PromptAndResponse(token_ids(range(5, 5 + prompt)), token_ids(range(50, 50 + response)))
    for prompt, response in ((3, 9), (40, 1), (7, 5))
]


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
@torch.no_grad()
def test_response_logprobs_are_those_of_the_models_own_forward(
    tmp_path: Path, load: Callable[..., CausalLM], family: str
) -> None:
    causal_lm = load(tiny_models.write_model(tmp_path, family=family))
    expected = torch.cat([plain_logprobs(causal_lm.model, item) for item in ITEMS])
    states = causal_lm.response_states(ITEMS)
    torch.testing.assert_close(causal_lm.logprobs(states), expected, atol=2e-5, rtol=1e-5)
    assert states.ids.tolist() == [index for item in ITEMS for index in item.response_ids.tolist()]


@torch.no_grad()
def test_only_response_positions_go_through_the_head_and_few_at_a_time(
    causal_lm: CausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distillkit_builtin.local.model.token_logprobs.CHUNK_TOKENS", 4)
    whole = causal_lm.response_logprobs(ITEMS)
    seen: list[int] = []
    causal_lm.model.lm_head.register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    assert torch.equal(causal_lm.response_logprobs(ITEMS), whole)
    assert seen == [4, 4, 4, 3]


def test_an_unknown_way_to_make_logits_is_refused(causal_lm: CausalLM) -> None:
    causal_lm.require_known_head()
    causal_lm.model.register_forward_hook(lambda model, ids, out: type(out)(logits=out.logits.tanh()))
    with pytest.raises(InputError, match="LlamaForCausalLM makes its logits in a way that"):
        causal_lm.require_known_head()


def test_a_model_that_cannot_be_read_is_an_error_of_the_input(load: Callable[..., CausalLM], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the config of '.*' cannot be read: the directory is empty"):
        load(str(tmp_path))
    with pytest.raises(InputError, match=r"the config of '.*' cannot be read: .*Give a local directory, or `org/name`"):
        load(str(tmp_path / "nowhere"))


def test_weights_that_are_no_numbers_are_named_with_their_file(
    load: Callable[..., CausalLM], tiny_model: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    before = load_file(folder / "model.safetensors")
    for value, kind in ((float("nan"), "NaN"), (float("inf"), "infinite numbers")):
        weights = {name: tensor.clone() for name, tensor in before.items()}
        weights["model.embed_tokens.weight"][200, 3] = value  # of a token that no check of the start reads
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(
            InputError, match=rf"hold {kind}, in the tensor model.embed_tokens.weight of {folder}/model.s"
        ):
            load(str(folder))


def test_an_overflow_in_float16_is_called_that(load: Callable[..., CausalLM], tiny_model: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    weights = {n: w * (200 if w.dim() > 1 else 1) for n, w in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    load(str(folder))  # in float32 it is a model
    with pytest.raises(InputError, match=r"logits are not finite, .*In float16 large numbers overflow: take bfloat16"):
        load(str(folder), torch.float16)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"] * 1e6
    weights["model.embed_tokens.weight"] = weights["lm_head.weight"]
    save_file(
        {**weights, "lm_head.weight": weights["lm_head.weight"].clone()}, folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(InputError, match=r"hold infinite numbers, in the tensor .*; in float16 large ones are"):
        load(str(folder), torch.float16)


def test_a_model_that_reads_later_tokens_is_refused(
    load: Callable[..., CausalLM], tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured, whatever its config says."""
    seen = CausalLM.hidden_states

    def both_ways(self: CausalLM, ids: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
        return seen(self, ids, *rest, **options) + 0.3 * seen(self, ids.flip(1)).flip(1)

    causal_lm = load(tiny_model)
    monkeypatch.setattr(CausalLM, "hidden_states", both_ways)
    with pytest.raises(InputError, match="reads in both directions"):
        causal_lm.require_known_head()
