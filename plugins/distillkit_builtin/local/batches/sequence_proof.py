"""How a model may be batched: computed on the device and compared, before the model is used.

The reference is transformers' eager forward of one sequence, without padding, cache and mask. Rows of one length must
give the same: computed together, and token by token from a cache, with the attention that was chosen. A model that is
random, whose experts have a capacity, or whose attention ignores a value of its config is found by that, and refused.
Three faster ways are taken where they give the same too, each as it is used (`Batching`): sequences of several lengths
padded on the right, as in training; prompts padded on the left and decoded with rows that leave, as in sampling; and
several tokens behind a beginning that was computed once, as in scoring. Recurrent layers fail in some, by architecture.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import DynamicSlidingWindowLayer

from distillkit.errors import InputError
from distillkit_builtin.local.batches.cached_rows import CachedRows
from distillkit_builtin.local.batches.padded_positions import PADDING, padding_claimed
from distillkit_builtin.local.model.attention_choice import attending_by
from distillkit_builtin.local.model.batching import Batching
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.model.model_cache import has_states, select_rows
from distillkit_builtin.local.model_files.model_class import MODEL_ERRORS, computable

LENGTHS, LENGTHS_OF_STATES = (3, 13, 8, 13), (3, 70, 20, 70)
"""Tokens of the sequences that are compared. Two have one length, and two begin alike.

States are computed in chunks, of 64 tokens or so: where there are any, sequences are longer than a chunk.
"""
LONGEST_WINDOW = 128
"""Tokens of the longest window that sequences go beyond, by `BEYOND`."""
BEYOND = 5
SHARED = 5
"""Tokens that the second and the third begin with."""
TOLERANCE, TOLERANCE_OF_KERNELS, ROUGH = 1e-4, 1e-3, 0.5
"""How far apart hidden states may be, as a share of their norm: in float32, and in what rounds more.

In float32 rounding comes to some 1e-6, and faults of a layer that hardly counts to 5e-4; kernels of recurrent layers on
a GPU multiply in TF32. In bfloat16 a token may go to other experts, which moves it far; what this looks for moves most
tokens as far as that.
"""
NOISE, MAX_NOISE = 4.0, 0.1
"""How many times as far as rows of one length a faster way may be, and how far at most: where faults are small.

Those of recurrent layers move the hidden states by as little as a tenth.
"""
_ELSEWHERE = "serve it over HTTP, and please report the architecture"


def proved(causal_lm: CausalLM) -> CausalLM:
    """The model itself, which knows now how it may be batched (`CausalLM.batching`).

    Raises:
        InputError: saying how it was computed, if not even rows of one length give the numbers of each alone.
    """
    causal_lm.batching = _proved_batching(causal_lm)
    return causal_lm


def _proved_batching(causal_lm: CausalLM) -> Batching:
    name = type(causal_lm.model).__name__
    exact = all(parameter.dtype == torch.float32 for parameter in causal_lm.model.parameters())
    with computable(causal_lm.model):
        samples = _Samples.of(causal_lm)
        plain = {
            "beside another": samples.distance_beside_another(),
            "token by token": samples.distance_sampled(left_padding=False),
        }
    close = samples.tolerance if exact else ROUGH
    for how, distance in plain.items():
        if not distance <= close:
            _require_one_attention(samples, close)
            raise InputError(
                f"{name}: hidden states of a sequence {how} are {distance:.2g} of their norm away from those of the "
                f"sequence alone, so logprobs would not be the model's own; {_ELSEWHERE}"
            )
    if not exact and samples.states:
        close = min(max(TOLERANCE_OF_KERNELS, NOISE * max(plain.values())), MAX_NOISE)
    return _batching(samples, close)


def _require_one_attention(samples: "_Samples", close: float) -> None:
    """Raise InputError if it is the attention alone that differs: then it is not known which one is the model's own."""
    chosen = samples.causal_lm.model.config.get_text_config()._attn_implementation
    by_chosen = samples.distance_alone()
    with attending_by(samples.causal_lm.model, "eager"):
        by_eager = samples.distance_alone()
    if by_eager <= close < by_chosen:
        raise InputError(
            f"{type(samples.causal_lm.model).__name__}: transformers computes other hidden states by its attention "
            f"{chosen!r} than by 'eager' ({by_chosen:.2g} of their norm away, of a sequence alone), so it is not known "
            f"which logprobs are the model's own; {_ELSEWHERE}"
        )


def _batching(samples: "_Samples", close: float) -> Batching:
    def holds(distance: Callable[[], float]) -> bool:
        try:
            return distance() <= close
        except (InputError, torch.OutOfMemoryError):
            raise
        except MODEL_ERRORS:
            return False

    right = holds(samples.distance_beside_longer)
    return Batching(
        left_padding=holds(lambda: samples.distance_sampled(left_padding=True)) and holds(samples.distance_by_padding),
        right_padding=right,
        shared_prefix=right and holds(samples.distance_behind_shared),
    )


@dataclass(frozen=True, slots=True)
class _Samples:
    """Sequences of random tokens, and what they must give."""

    causal_lm: CausalLM
    rows: list[Tensor]
    """[length] each."""
    alone: list[Tensor]
    """[length, hidden] each, float32: the reference."""
    states: bool
    """Whether layers keep more than keys and values."""

    @classmethod
    @torch.inference_mode()
    def of(cls, causal_lm: CausalLM) -> "_Samples":
        device = causal_lm.device.device
        count = len(causal_lm.model.get_input_embeddings().get_parameter("weight"))
        numbers = np.random.default_rng(0)
        states = has_states(causal_lm.new_cache())
        short, long, middle, _ = LENGTHS_OF_STATES if states else LENGTHS
        long = max([long, *(window + BEYOND for window in windows(causal_lm) if window <= LONGEST_WINDOW)])
        lengths = (short, long, middle, long)
        rows = [torch.from_numpy(numbers.integers(1, min(count, 5000), length)).to(device) for length in lengths]
        rows[2][:SHARED] = rows[1][:SHARED]
        with attending_by(causal_lm.model, "eager"):
            return cls(causal_lm, rows, [causal_lm.hidden_states(row[None])[0].float() for row in rows], states)

    @property
    def tolerance(self) -> float:
        """How far hidden states in float32 may be apart."""
        kernels = self.states and self.causal_lm.device.device.type != "cpu"
        return TOLERANCE_OF_KERNELS if kernels else TOLERANCE

    @torch.inference_mode()
    def distance_alone(self) -> float:
        """Of one row, computed as the reference is, by the attention that is chosen now."""
        return _apart([self.causal_lm.hidden_states(self.rows[1][None])[0]], [self.alone[1]])

    @torch.inference_mode()
    def distance_beside_another(self) -> float:
        """Of rows of one length, computed together."""
        hidden = self.causal_lm.hidden_states(torch.stack([self.rows[1], self.rows[3]]))
        return _apart(list(hidden), [self.alone[1], self.alone[3]])

    @torch.inference_mode()
    def distance_beside_longer(self) -> float:
        """Of all rows, padded on the right, without a mask."""
        hidden = self.causal_lm.hidden_states(pad_sequence(self.rows, batch_first=True))
        return _apart([hidden[i, : len(row)] for i, row in enumerate(self.rows)], self.alone)

    @torch.inference_mode()
    def distance_behind_shared(self) -> float:
        """Of what stands behind a beginning that is computed once, in rows of different lengths."""
        cache, rows = self.causal_lm.new_cache(), [self.rows[1], self.rows[2]]
        self.causal_lm.hidden_states(rows[0][None, :SHARED], cache)
        select_rows(cache, torch.zeros(len(rows), dtype=torch.long, device=rows[0].device))
        rest = pad_sequence([row[SHARED:] for row in rows], batch_first=True)
        places = torch.arange(SHARED, SHARED + rest.shape[1], device=rest.device).expand_as(rest)
        hidden = self.causal_lm.hidden_states(rest, cache, position_ids=places)
        found = [hidden[i, : len(row) - SHARED] for i, row in enumerate(rows)]
        return _apart(found, [self.alone[1][SHARED:], self.alone[2][SHARED:]])

    @torch.inference_mode()
    def distance_sampled(self, *, left_padding: bool) -> float:
        """Of what is sampled from: behind prompts, then token by token, while rows change places, double and leave."""
        used = [0, 1, 2] if left_padding else [1, 3]
        prompts = [self.rows[i][:-2].cpu().numpy() for i in used]
        cached, hidden = CachedRows.prefill(self.causal_lm, prompts, left_padding=left_padding)
        pairs = [(hidden[at], self.alone[i][-3]) for at, i in enumerate(used)]
        for places, behind in (([*reversed(range(len(used))), 0], -2), ([1, 2], -1)):
            cached.select(torch.tensor(places, device=hidden.device))
            used = [used[at] for at in places]
            hidden = cached.decode(torch.stack([self.rows[i][behind] for i in used]))
            pairs += [(hidden[at], self.alone[i][behind]) for at, i in enumerate(used)]
        return _apart([found[None] for found, _ in pairs], [expected[None] for _, expected in pairs])

    @torch.inference_mode()
    def distance_by_padding(self) -> float:
        """How far a token is moved by more padding before its prompt, by what layers ask the cache: 0, or too far."""
        claimed, asked = self._decoded_behind_padding(claim=True)
        moved = asked > 0 and not torch.equal(claimed, self._decoded_behind_padding(claim=False)[0])
        return math.inf if moved else 0.0

    def _decoded_behind_padding(self, *, claim: bool) -> tuple[Tensor, int]:
        """Hidden states [2, hidden] of a token behind each of two prompts, and how often layers asked for a length."""
        rows = self.rows[:2]
        cached, _ = CachedRows.prefill(self.causal_lm, [row[:-1].cpu().numpy() for row in rows], left_padding=True)
        with padding_claimed(self.causal_lm.backbone, cached.cache, PADDING if claim else 0) as questions:
            return cached.decode(torch.stack([row[-1] for row in rows])), questions.count


def windows(causal_lm: CausalLM) -> list[int]:
    """How many tokens each layer that forgets some keeps."""
    layers = causal_lm.new_cache().layers
    return [layer.sliding_window for layer in layers if isinstance(layer, DynamicSlidingWindowLayer)]


def _apart(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The distance of hidden states [length, hidden] each, as a share of the norm of what is expected.

    That of all in float32; of what rounds more the token in the middle, since one that goes to other experts is far.
    """
    whole = torch.cat(list(expected))
    difference = torch.cat([mine.float() - theirs for mine, theirs in zip(found, expected, strict=True)])
    if found[0].dtype == torch.float32:
        return float(difference.norm() / whole.norm())
    return float((difference.norm(dim=-1) / whole.norm(dim=-1)).median())
