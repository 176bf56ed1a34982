"""What sampling and scoring hold besides the weights: keys and values, what goes from layer to layer, logits."""

from transformers import PreTrainedConfig

from distillkit_builtin.local.fast.decoder import PREFILL_TOKENS
from distillkit_builtin.local.fast.self_check import TOLERANCE
from distillkit_builtin.local.fast.slot_generator import ROUND
from distillkit_builtin.local.fast.supported_models import UnsupportedModelError, require_supported
from distillkit_builtin.local.memory.work import Work
from distillkit_builtin.local.model.footprint import Footprint
from distillkit_builtin.local.model.token_logprobs import CHUNK_TOKENS, ON_CUDA
from distillkit_builtin.local.option_types import ForwardName

FLOAT32 = 4
SAMPLED_LOGITS = 4
"""Copies of a step's logits in float32 that sampling makes."""
GROWING = 2
"""How often keys and values are there while they grow: old and new ones side by side."""


def samples_fast(config: PreTrainedConfig, size: Footprint, forward: ForwardName) -> bool:
    """Whether the fast path will be taken, as far as the config shows."""
    kind = size.device.partition(":")[0]
    if forward == "plain" or kind not in ("cuda", "cpu") or size.dtype not in TOLERANCE or size.quantization:
        return False
    try:
        require_supported(config.get_text_config())
    except UnsupportedModelError:
        return False
    return True


def slot_bytes(size: Footprint, work: Work, slots: int) -> int:
    """Keys and values of the slots that completions are sampled in."""
    length = -(-work.length // ROUND) * ROUND
    state = slots * work.new * (8 + 2 * FLOAT32)  # ids, logprobs, random numbers
    return slots * length * size.structure.cached * size.dtype.itemsize + state


def keeps_slots(size: Footprint, *, fast: bool) -> bool:
    """Whether slots stay from one sampling to the next: also of the plain path's CUDA graphs.

    Where a model turns out to have no such graph, nothing stays, and what grows has that room too.
    """
    return fast or size.device.startswith("cuda")


def sampling_bytes(size: Footprint, work: Work, slots: int, routed: int, *, fast: bool) -> int:
    """Prompts while they are read, and the logits of a token; of the plain path keys and values that grow too.

    `routed` is what `routed_numbers` says of the model.
    """
    logits = slots * size.structure.vocabulary * (size.dtype.itemsize + SAMPLED_LOGITS * FLOAT32)
    cached = size.structure.cached * size.dtype.itemsize
    if fast:
        prompts = min(work.prompts, slots) if work.prompts else slots
        tokens = min(max(PREFILL_TOKENS, work.prompt), max(prompts, 1) * work.prompt)
        return tokens * flowing_bytes(size, routed) + logits
    states = slots * size.structure.state * FLOAT32
    growing = (GROWING - keeps_slots(size, fast=fast)) * slots * work.length * cached
    return slots * work.prompt * flowing_bytes(size, routed) + growing + states + logits


def scoring_bytes(size: Footprint, work: Work, max_tokens: int, routed: int) -> int:
    """A micro-batch on its way through the layers, prompts that several completions share, a chunk of logits.

    `routed` is what `routed_numbers` says of the model.
    """
    sequences = work.batch(max_tokens)
    flowing = sequences * work.length * flowing_bytes(size, routed)
    shared = 0
    if work.completions > work.prompts:
        shared = sequences * work.prompt * size.structure.cached * size.dtype.itemsize
        shared += sequences * size.structure.state * FLOAT32
    return flowing + shared + logits_bytes(size, sequences * work.new, copies=2)


def routed_numbers(config: PreTrainedConfig) -> int:
    """What a token's experts read and give in one layer; 0 of a model that has none.

    Where experts have several widths, as of pictures and of text in Ernie 4.5 VL, they are taken for the widest.
    """
    text = config.get_text_config()
    chosen = getattr(text, "num_experts_per_tok", None) or 0
    width = getattr(text, "moe_intermediate_size", None) or getattr(text, "intermediate_size", None) or 0
    widest = max(width) if isinstance(width, list | tuple) else width
    return int(chosen * (2 * text.hidden_size + 3 * widest)) if chosen else 0


def flowing_bytes(size: Footprint, routed: int) -> int:
    """Of one token in one layer, without gradient: what goes on, what attention reads, what the widest layers give."""
    structure = size.structure
    attention = (structure.attention_outputs * 2 + structure.cached) // max(1, structure.layers)
    return (3 * structure.hidden + attention + max(3 * structure.widest_output, routed)) * size.dtype.itemsize


def logits_bytes(size: Footprint, positions: int, *, copies: int) -> int:
    """A chunk of positions through the head, with so many copies in float32."""
    chunk = ON_CUDA if size.device.startswith("cuda") else CHUNK_TOKENS
    return min(chunk, positions) * size.structure.vocabulary * (size.dtype.itemsize + copies * FLOAT32)
