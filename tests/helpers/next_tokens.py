"""Next-token distributions by transformers' own forward, and models whose head is larger than their tokenizer."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from distillkit_builtin.local.model.causal_lm import CausalLM
from helpers import tiny_models
from helpers.model_families import random_model

V = tiny_models.VOCABULARY
ROWS = V + 21
EXACT: dict[str, Any] = {"atol": 5e-5, "rtol": 1e-5}


@torch.no_grad()
def distributions(causal_lm: CausalLM, prompt: np.ndarray, response: np.ndarray) -> torch.Tensor:
    """[R, rows] float32 log-softmax of the model's own forward of this sequence alone."""
    ids = torch.tensor([*prompt.tolist(), *response.tolist()], device=causal_lm.device.device)
    logits = causal_lm.model(input_ids=ids[None]).logits[0].float().cpu()
    return torch.log_softmax(logits, dim=-1)[len(prompt) - 1 : -1]


def require_top(ids: np.ndarray, logprobs: np.ndarray, expected: torch.Tensor) -> None:
    """That these are the most probable of `expected` [R, V], in order."""
    values = torch.sort(expected, dim=1, descending=True).values[:, : ids.shape[1]]
    torch.testing.assert_close(torch.tensor(logprobs), values, **EXACT)
    assert (np.diff(logprobs, axis=1) <= 0).all()
    torch.testing.assert_close(expected.gather(1, torch.tensor(ids)), torch.tensor(logprobs), **EXACT)
    assert all(len(set(row)) == len(row) for row in ids.tolist())
    assert logprobs.dtype == np.float32


def padded_model(folder: Path, scale: float = 4.0) -> str:
    """More rows than its tokenizer has tokens, and most of the probability there."""
    model = random_model("llama", vocab_size=ROWS, tie_word_embeddings=False)
    with torch.no_grad():
        model.lm_head.weight[V:] *= scale
    model.save_pretrained(folder)
    tiny_models.write_tokenizer(folder)
    return str(folder)
