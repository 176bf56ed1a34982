"""A sequence's logprobs by transformers' own eager forward of it alone: what every path must give."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from distillkit_builtin.local.model.causal_lm import CausalLM, PromptAndResponse


@contextmanager
def eager(causal_lm: CausalLM) -> Iterator[None]:
    config = causal_lm.model.config
    before, config._attn_implementation = config._attn_implementation, "eager"
    yield
    config._attn_implementation = before


def reference(causal_lm: CausalLM, item: PromptAndResponse) -> Tensor:
    """[R] by transformers' eager forward of this sequence alone, without cache, and a softmax over everything."""
    ids = torch.tensor([*item.prompt_ids.tolist(), *item.response_ids.tolist()])
    with torch.no_grad(), eager(causal_lm):
        logits = causal_lm.model(input_ids=ids[None], use_cache=False).logits[0].float()
    start = len(item.prompt_ids)
    return torch.log_softmax(logits, -1)[start - 1 : -1].gather(1, ids[start:, None])[:, 0]
