"""What `summary.json` says of models in this process: where and how they are computed, and how large they are."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from distillkit import RunConfig, run


@pytest.mark.parametrize("rank", [4, 0])
def test_device_dtype_and_sizes_are_those_that_auto_came_to(
    local_config: Callable[..., RunConfig], tiny_model: str, rank: int
) -> None:
    config = local_config(student={"lora_rank": rank}, train={"max_steps": 1, "prompt_groups_per_step": 1})
    scorer = config.teachers[0].scorer.model_copy(update={"dtype": "auto", "device": "auto"})
    config = config.model_copy(update={"teachers": (config.teachers[0].model_copy(update={"scorer": scorer}),)})
    provenance: Any = run(config).summary["provenance"]
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    size = sum(parameter.numel() for parameter in model.parameters())
    linear = [layer for layer in model.base_model.modules() if isinstance(layer, torch.nn.Linear)]
    adapted = sum(rank * (layer.in_features + layer.out_features) for layer in linear)
    student, teacher = (
        provenance["plugins"]["student"],
        provenance["plugins"][f"teachers.{config.teachers[0].model}.scorer"],
    )
    trained = student["trained_parameters"]
    assert (student["device"], student["dtype"], student["trained_dtype"]) == ("cpu", "float32", "float32")
    assert student["threads"] == teacher["threads"] == torch.get_num_threads()
    assert student["model"] == tiny_model
    assert student["parameters"] == (size + trained if rank else size)
    assert trained == (adapted if rank else size)
    assert teacher["parameters"] == size
    assert (teacher["device"], teacher["dtype"]) == ("cpu", str(_auto()).removeprefix("torch."))
    # PyPI's wheels for CUDA say 2.11.0 in their metadata and 2.11.0+cu130 in the module.
    assert provenance["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert {"transformers", "peft", "safetensors"} <= provenance["versions"].keys()


def _auto() -> torch.dtype:
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32
