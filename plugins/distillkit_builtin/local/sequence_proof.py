"""Whether a sequence's hidden states are its own: computed on the device and compared, before a model is used.

The reference is transformers' eager forward of one sequence, without padding, cache and mask. All that computes here
must give the same: the attention that was chosen, sequences beside others that are longer, padded on the right as in
scoring and training, and padded on the left as in sampling, then token by token. A model that is not causal, whose
experts have a capacity, whose attention ignores a value of its config, or that is random is found by that.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from distillkit.errors import InputError
from distillkit_builtin.local.causal_lm import CausalLM

LENGTHS, DECODED = (3, 8, 13), 2
"""Tokens of the sequences that are computed together, and how many of each are computed one by one."""
TOLERANCE, ROUGH = 1e-3, 0.5
"""How far apart hidden states may be, as a share of their norm: in float32, and in what rounds more.

In bfloat16 a token may go to other experts, which moves it far; what this looks for moves most tokens as far as that.
"""


def proved(causal_lm: CausalLM) -> CausalLM:
    """The model itself, once it was proved. Raises InputError, saying how it was computed, if other numbers came."""
    try:
        distances = dict(_distances(causal_lm))
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:  # whatever its code runs into
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{type(causal_lm.model).__name__} cannot be computed by the local backend: {type(error).__name__}: "
            f"{reason}; {_ELSEWHERE}"
        ) from error
    exact = all(parameter.dtype == torch.float32 for parameter in causal_lm.model.parameters())
    for how, distance in distances.items():
        if not distance <= (TOLERANCE if exact else ROUGH):
            raise InputError(
                f"{type(causal_lm.model).__name__}: hidden states of a sequence {how} are {distance:.2g} of their norm "
                f"away from those of the sequence alone, so logprobs would not be the model's own; {_ELSEWHERE}"
            )
    return causal_lm


_ELSEWHERE = "serve it over HTTP, and please report the architecture"


@torch.inference_mode()
def _distances(causal_lm: CausalLM) -> Iterator[tuple[str, float]]:
    """Each way to compute, in words, and how far it is from the reference."""
    device = causal_lm.device.device
    count = len(causal_lm.model.get_input_embeddings().get_parameter("weight"))
    numbers = np.random.default_rng(0)
    rows = [torch.from_numpy(numbers.integers(1, min(count, 5000), length)).to(device) for length in LENGTHS]
    with _eager(causal_lm):
        alone = [causal_lm.hidden_states(row[None])[0].float() for row in rows]
    yield "beside longer ones", _apart(_right_padded(causal_lm, rows), alone)
    last = [hidden[-DECODED - 1 :] for hidden in alone]
    yield "behind padding, token by token,", _apart(_left_padded(causal_lm, rows), last)


@contextmanager
def _eager(causal_lm: CausalLM) -> Iterator[None]:
    config = causal_lm.model.config.get_text_config()
    before, config._attn_implementation = config._attn_implementation, "eager"
    try:
        yield
    finally:
        config._attn_implementation = before


def _apart(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    difference = torch.cat([mine.float() - theirs for mine, theirs in zip(found, expected, strict=True)])
    return float(difference.norm() / torch.cat(list(expected)).norm())


def _right_padded(causal_lm: CausalLM, rows: Sequence[Tensor]) -> list[Tensor]:
    """The hidden states of each row, all computed together, without a mask."""
    hidden = causal_lm.hidden_states(pad_sequence(list(rows), batch_first=True))
    return [hidden[i, : len(row)] for i, row in enumerate(rows)]


def _left_padded(causal_lm: CausalLM, rows: Sequence[Tensor]) -> list[Tensor]:
    """The hidden states of each row's last tokens, the first of them computed with all before it."""
    begun = [row[:-DECODED] for row in rows]
    ids = pad_sequence(begun, batch_first=True, padding_side="left")
    lengths = torch.tensor([len(row) for row in begun], device=ids.device)
    mask = (torch.arange(ids.shape[1], device=ids.device) >= ids.shape[1] - lengths[:, None]).long()
    cache = causal_lm.new_cache()
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    hidden = [causal_lm.hidden_states(ids, cache, attention_mask=mask, position_ids=positions)[:, -1]]
    for step in range(DECODED):
        token = torch.stack([row[len(row) - DECODED + step] for row in rows])[:, None]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        position = mask.sum(1, keepdim=True) - 1
        hidden.append(causal_lm.hidden_states(token, cache, attention_mask=mask, position_ids=position)[:, -1])
    return list(torch.stack(hidden, dim=1))
