"""Top-K and entropy out of CUDA graphs, whose buffers stay where they are from call to call. Needs a GPU."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.model_families import random_model
from helpers.next_tokens import ROWS, V, distributions
from helpers.tiny_models import write_tokenizer

from distillkit.records import Rollout
from distillkit.types import SampleRequest
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.device import Device
from distillkit_builtin.local.fast.self_check import verified_backbone
from distillkit_builtin.local.fast.slot_generator import SlotGenerator
from distillkit_builtin.local.model.causal_lm import CausalLM

if not torch.cuda.is_available():
    pytest.skip("CUDA graphs need a GPU", allow_module_level=True)

WANTED = {"topk": 7, "entropy": 1}


def generate(generator: SlotGenerator, requests: Sequence[SampleRequest], **wanted: int) -> list[Rollout]:
    rollouts: list[Rollout] = []
    generator.generate([replace(request, wanted=wanted) for request in requests], 4, 0, rollouts.append)
    return sorted(rollouts, key=lambda rollout: rollout.key)


@pytest.mark.parametrize("params", [{}, {"temperature": 0.0}, {"temperature": 0.8, "top_p": 0.9}])
def test_graphs_keep_what_each_call_wants(
    tmp_path: Path, ask: Callable[..., list[SampleRequest]], params: dict[str, float]
) -> None:
    random_model("llama", vocab_size=ROWS, tie_word_embeddings=False).save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    causal_lm = CausalLM.load(str(tmp_path), Device(torch.device("cuda")), torch.float32, torch.float32)
    generator = SlotGenerator(verified_backbone(causal_lm), HFTokenizer.load(str(tmp_path)), frozenset(range(0, V, 9)))
    requests = ask(24, **params)
    bare = generate(generator, requests)
    for wanted in (WANTED, {"topk": 3}, {}, WANTED):  # the last by graphs of the first
        for rollout, other in zip(generate(generator, requests, **wanted), bare, strict=True):
            assert rollout.token_ids.tobytes() == other.token_ids.tobytes()
            np.testing.assert_allclose(rollout.logprobs, other.logprobs, atol=1e-4)
            expected = distributions(causal_lm, rollout.request.prompt_ids, rollout.token_ids)[:, :V]
            if "topk" in wanted:
                values = expected.topk(wanted["topk"]).values.numpy()
                np.testing.assert_allclose(rollout.arrays["topk_logprobs"], values, atol=1e-3)
                found = expected.gather(1, torch.tensor(rollout.arrays["topk_ids"])).numpy()
                np.testing.assert_allclose(found, values, atol=1e-3)
            if "entropy" in wanted:
                exact = torch.special.entr(expected.double().exp()).sum(1).numpy()
                np.testing.assert_allclose(rollout.arrays["entropy"], exact, atol=1e-3)
