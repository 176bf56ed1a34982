"""Whether prompts of several responses are scored once, by what that saves on a device."""

import numpy as np
import pytest
import torch

from distillkit_builtin.local.batches.shared_prompts import DistinctPrompts
from distillkit_builtin.local.fast.prefill_scoring import saves_enough
from distillkit_builtin.local.model.causal_lm import PromptAndResponse


@pytest.mark.parametrize(
    ("prompt", "response", "each", "on_cpu", "on_cuda"),
    [
        (128, 256, 1, False, False),
        (40, 360, 2, False, False),  # 5% are saved
        (128, 256, 4, True, False),  # a quarter
        (128, 256, 8, True, False),
        (384, 128, 8, True, True),  # two thirds
    ],
)
@pytest.mark.parametrize("shared", [0, 20])
def test_a_gpu_reads_prompts_once_where_that_saves_a_third(
    prompt: int, response: int, each: int, on_cpu: bool, on_cuda: bool, shared: int
) -> None:
    length = prompt + shared
    items = [PromptAndResponse(np.full(length, i // each), np.arange(response)) for i in range(4 * each)]
    distinct = DistinctPrompts.of(item.prompt_ids for item in items).prompts
    assert len(distinct) == 4
    assert saves_enough(items, distinct, shared, torch.device("cpu")) is on_cpu
    assert saves_enough(items, distinct, shared, torch.device("cuda")) is on_cuda
