"""Steps of fixed shapes give a model's own numbers, also where they are recorded once and replayed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from families.catalogue import FAMILIES
from families.tiny import tiny_model
from helpers.model_families import random_causal_lm
from helpers.recorded_work import RecordedWork
from torch import Tensor

from distillkit_builtin.local.batches.sequence_proof import proved
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.fixed.fixed_rows import FixedDecoder
from distillkit_builtin.local.fixed.host_reads import nothing_waits
from distillkit_builtin.local.fixed.step_graph import Capture
from distillkit_builtin.local.fixed.step_proof import proved_decoder
from distillkit_builtin.local.fixed.unsupported_step import UnsupportedStepError
from distillkit_builtin.local.lora.lora import lora_layers
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.training.policy import Policy

RECORDED = (
    "llama", "gemma2", "gemma3_text", "gemma3n_text", "gemma4_text", "qwen3", "mistral", "olmo2", "olmo3", "cohere2",
    "phi3", "granite", "bloom", "gpt2", "gpt_neox", "opt", "falcon", "exaone4", "codegen",
    "qwen3_moe", "mixtral", "gpt_oss", "deepseek_v3", "granitemoe", "llama4_text",
    "mamba2", "falcon_h1", "lfm2", "qwen3_next", "nemotron_h", "gemma3", "qwen3_5_moe",
)  # fmt: skip
"""Dense ones, windows, mixtures, states, prompts that may not be padded: one of each kind that is built otherwise."""
REFUSED = {
    "mpt": "a step of it reads numbers of the device",  # how many tokens there are, in Python
    "dbrx": "a step of it reads numbers of the device",  # which experts tokens come to
    "deepseek_v32": "a layer keeps what it has read in a DynamicIndexedLayer",
    "gpt_neo": "logits of steps of fixed shapes are .* of their norm away",  # a mask by the length of the keys
}
"""Families without such steps, and the reason."""


def family(name: str) -> CausalLM:
    model = tiny_model(FAMILIES[name]).requires_grad_(False)
    model.set_attn_implementation("sdpa" if model._supports_sdpa else "eager")
    causal_lm = CausalLM(model, Device(torch.device("cpu")), torch.float32)
    with torch.inference_mode():
        causal_lm.require_known_head()
    return proved(causal_lm)


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_steps_give_the_models_own_numbers(name: str) -> None:
    captured: list[RecordedWork] = []

    def capture(work: Callable[[], None]) -> RecordedWork:
        captured.append(RecordedWork(work))
        return captured[-1]

    assert isinstance(proved_decoder(family(name), capture), FixedDecoder)
    assert len(captured) == 3, "a step of the first length, one of the next, and one of fewer rows"


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_graph_can_hold_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(UnsupportedStepError, match=REFUSED[name]):
        proved_decoder(family(name), RecordedWork)


def changed(change: Callable[[Any, Tensor], Tensor]) -> CausalLM:
    """A llama whose hidden states are changed where it reads one token from a cache; `change` gets the cache too."""
    causal_lm = random_causal_lm("llama")
    forward = causal_lm.backbone.forward

    def with_change(*args: Any, **kwargs: Any) -> Any:
        out = forward(*args, **kwargs)
        if kwargs["input_ids"].shape[1] == 1:
            out.last_hidden_state = change(kwargs[causal_lm.cache_kind.argument], out.last_hidden_state)
        return out

    causal_lm.backbone.forward = with_change
    return causal_lm


def counting() -> Callable[[Any, Tensor], Tensor]:
    """Right in steps of fixed shapes as they come: it counts in Python, which a replay does not."""
    calls = [0]

    def count(cache: Any, hidden: Tensor) -> Tensor:
        calls[0] += 1
        length = cache.get_seq_length()
        return hidden * (1.0 + calls[0] % 2 * 0.5) if isinstance(length, Tensor) else hidden

    return count


@pytest.mark.parametrize("capture", [None, RecordedWork])
def test_steps_that_give_other_numbers_are_refused(capture: Capture | None) -> None:
    proved_decoder(changed(lambda cache, hidden: hidden), capture)
    with pytest.raises(UnsupportedStepError, match=r"logits of steps of fixed shapes are .* of their norm away"):
        proved_decoder(changed(lambda cache, hidden: hidden * cache.layers[0].keys.shape[2]), capture)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda cache, hidden: hidden * float(hidden.sum()), r"reads numbers of the device \(_local_scalar_dense\)"),
        (
            lambda cache, hidden: hidden[hidden == hidden].reshape(hidden.shape),
            r"reads numbers of the device \(index\)",
        ),
        (lambda cache, hidden: hidden + torch.tensor(0.5, device="meta"), r"between host and device \(tensor\)"),
        (lambda cache, hidden: hidden + hidden.new_tensor([1], device="meta"), r"host and device \(new_tensor\)"),
        (lambda cache, hidden: hidden + hidden.to("meta")[[0, 0]], r"host and device \((_to_copy|a list as index)\)"),
        (lambda cache, hidden: hidden + hidden[:, :2, :3], "a step of fixed shape fails: RuntimeError"),
    ],
)
def test_what_a_graph_cannot_hold_is_named(change: Callable[[Any, Tensor], Tensor], reason: str) -> None:
    causal_lm = changed(lambda cache, hidden: change(cache, hidden) if _is_fixed(cache) else hidden)
    with pytest.raises(UnsupportedStepError, match=reason):
        proved_decoder(causal_lm, RecordedWork)


def _is_fixed(cache: Any) -> bool:
    return isinstance(cache.get_seq_length(), Tensor)


def test_a_list_as_an_index_of_the_device_is_a_copy_to_it() -> None:
    whole = torch.empty(3, 2, device="meta")
    for index in ([0, 1], (slice(None), [0, 1])):
        with pytest.raises(UnsupportedStepError, match="a list as index"), nothing_waits():
            whole[index]
    with nothing_waits():
        assert whole[0, 1:].shape == (1,)
        torch.tensor([1, 2])[[0]]  # of the host, as all of it


def test_a_students_adapter_is_off_while_its_base_is_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    causal_lm = random_causal_lm("llama")
    Policy.lora(causal_lm, rank=4, alpha=8, dropout=0.0, seed=0)
    found: list[bool] = []
    hidden_states = CausalLM.hidden_states

    def look(proved: CausalLM, *args: Any, **kwargs: Any) -> Tensor:
        found.extend(layer.disable_adapters for _, layer in lora_layers(proved.model))
        return hidden_states(proved, *args, **kwargs)

    monkeypatch.setattr(CausalLM, "hidden_states", look)
    proved_decoder(causal_lm, None)
    assert found
    assert all(found)


def test_what_is_counted_in_python_is_found_by_replaying() -> None:
    def drift(cache: Any, hidden: Tensor) -> Tensor:
        return hidden * (1.0 + 0.1 * next(numbers)) if _is_fixed(cache) else hidden

    numbers = iter([0.0] * 3 + [1.0] * 20)  # the first step, which is run three times, and the others
    with pytest.raises(UnsupportedStepError, match="of their norm away"):
        proved_decoder(changed(drift), RecordedWork)
