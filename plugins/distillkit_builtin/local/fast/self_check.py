"""Whether the fast backbone computes what the model does: both are computed on the device and compared, before use.

Each layer is compared by itself, on what the model's own forward gives it to read, so that rounding does not add up. A
router that finds two experts about equal may choose either after rounding: in bfloat16 the median token counts.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from distillkit.errors import InputError
from distillkit_builtin.file_errors import first_line
from distillkit_builtin.local.fast.attention import CausalAttention, DecodeAttention
from distillkit_builtin.local.fast.backbone import Attention, FastBackbone
from distillkit_builtin.local.fast.behind_attention import BehindAttention
from distillkit_builtin.local.fast.kv_slots import KVSlots
from distillkit_builtin.local.fast.rotary import RotaryAngles
from distillkit_builtin.local.fast.supported_models import UnsupportedModelError
from distillkit_builtin.local.fixed.step_graph import CudaCapture
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.model_files.model_class import MODEL_ERRORS

log = logging.getLogger("distillkit")
PREFILLED, DECODED = 24, 4
"""Tokens that are computed at once, and one by one behind them."""
WINDOW = 8
"""What windows are while the two are compared, so that most tokens stand beyond them."""
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1}
"""How far apart the two may be, as a share of what a layer adds; another architecture is far beyond it."""
ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 2**-8}
"""How exactly the dtype holds a sum: what a layer adds to much larger numbers is known no better."""


def verified_backbone(causal_lm: CausalLM) -> FastBackbone:
    """A fast backbone that was compared with the model's own. Raises UnsupportedModelError, saying why, without one."""
    kind = causal_lm.device.device.type
    if kind not in ("cuda", "cpu"):
        raise UnsupportedModelError(f"it was never tried on {kind}")
    if causal_lm.dtype not in TOLERANCE:
        raise UnsupportedModelError(f"it was never tried in {causal_lm.dtype}")
    with _saying_why(), torch.no_grad():
        backbone = FastBackbone(causal_lm)
    at_once, backbone.behind = backbone.behind, [None] * len(backbone.layers)
    _require_equal(backbone)  # in several kernels a layer, as more rows are computed than one kernel takes
    if any(at_once):
        _keep_if_equal(backbone, at_once)
    return backbone


def _keep_if_equal(backbone: FastBackbone, at_once: list[BehindAttention | None]) -> None:
    """Have few rows computed by one kernel a layer behind attention, if that is right too."""
    backbone.behind = at_once
    try:
        _require_equal(backbone)
    except UnsupportedModelError as error:
        log.warning("what follows attention takes several kernels, not one, and somewhat longer: by one, %s", error)
        backbone.behind = [None] * len(backbone.layers)


def _require_equal(backbone: FastBackbone) -> None:
    """Raise UnsupportedModelError if it cannot run, or computes something else than the model's own forward."""
    dtype = backbone.causal_lm.dtype
    with _saying_why():
        apart, where = largest_difference(backbone)
    if not apart <= TOLERANCE[dtype]:
        raise UnsupportedModelError(f"{where} differ from transformers' by {apart:.2g} of their norm")


@contextmanager
def _saying_why() -> Iterator[None]:
    """A context whose errors of models are UnsupportedModelErrors."""
    try:
        yield
    except InputError:
        raise
    except AttributeError as error:  # modules are found by their names
        raise UnsupportedModelError(f"it is made of other parts than its config says: {error}") from error
    except MODEL_ERRORS as error:  # Triton's and torch.compile's too, without a compiler for one
        raise UnsupportedModelError(f"it cannot be run here: {first_line(error)}") from error


@dataclass(frozen=True, slots=True)
class _Compared:
    """What both compute of some tokens."""

    what: str
    ours: Tensor
    """[n, hidden], as `theirs`."""
    theirs: Tensor
    before: Tensor | float
    """What it is added to."""

    def apart(self, tolerance: float, rounding: float) -> float:
        """The distance as a share of what is added.

        The farthest token counts in float32; else the median of those that were computed at once, and of the others.
        """
        ours, theirs = self.ours.float(), self.theirs.float()
        added = (theirs - self.before).norm(dim=1) + rounding / tolerance * theirs.norm(dim=1)
        shares = (ours - theirs).norm(dim=1) / added
        if self.theirs.dtype == torch.float32:
            return float(shares.max())
        return max(float(part.median()) for part in (shares[:PREFILLED], shares[PREFILLED:]) if len(part))


class _Found(NamedTuple):
    """What a backbone computes of some tokens."""

    residuals: list[Tensor]
    """By layer: [n, hidden] behind it."""
    hidden: list[Tensor]
    """The last hidden states [n, hidden] alone."""
    begun: list[Tensor]
    """By layer but the first: [n, q + k + v] that the layer before gave it to attend with."""
    again: list[Tensor]
    """The same, computed from `residuals`."""


@torch.inference_mode()
def largest_difference(backbone: FastBackbone) -> tuple[float, str]:
    """The largest of all distances from transformers' forward, as a share of what is added, and of what it is."""
    causal_lm = backbone.causal_lm
    numbers = np.random.default_rng(0).integers(0, backbone.vocabulary_size, PREFILLED + DECODED)
    ids = torch.from_numpy(numbers).to(causal_lm.device.device)
    with _short_windows(backbone):
        found = list(_compare(backbone, ids))
    apart = [each.apart(TOLERANCE[causal_lm.dtype], ROUNDING[causal_lm.dtype]) for each in found]
    return max(
        (float("inf") if np.isnan(share) else share, each.what) for share, each in zip(apart, found, strict=True)
    )


def _compare(backbone: FastBackbone, ids: Tensor) -> Iterator[_Compared]:
    read, last = _plain_states(backbone, ids)
    yield _Compared("its embeddings", backbone.embed(ids), read[0], 0.0)
    slots, angles = _empty_slots(backbone, len(ids)), backbone.rotary(len(ids))
    found = _prefilled_and_decoded(backbone, read[:-1], slots, angles)
    for index, (ours, before, theirs) in enumerate(zip(found.residuals, read[:-1], read[1:], strict=True)):
        yield _Compared(f"hidden states behind its layer {index}", ours, theirs, before)
    yield _Compared("its hidden states", found.hidden[0], last, 0.0)
    for index, (ours, theirs) in enumerate(zip(found.begun, found.again, strict=True), 1):
        yield _Compared(f"queries, keys and values of its layer {index}", ours, theirs, 0.0)
    if ids.is_cuda:
        yield _captured(backbone, ids, slots, angles)


def _plain_states(backbone: FastBackbone, ids: Tensor) -> tuple[list[Tensor], Tensor]:
    """What each layer of transformers' own reads, and the last norm; and the last hidden states; all [n, hidden]."""
    read: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        read.append(args[0][0] if args else kwargs["hidden_states"][0])

    decoder = backbone.decoder
    modules = [*decoder.get_submodule("layers").children(), decoder.get_submodule("norm")]
    hooks = [module.register_forward_pre_hook(keep, with_kwargs=True) for module in modules]
    try:
        with backbone.causal_lm.without_adapter():
            last = backbone.causal_lm.hidden_states(ids[None])[0]
    finally:
        for hook in hooks:
            hook.remove()
    return read, last


def _empty_slots(backbone: FastBackbone, length: int) -> KVSlots:
    # Two equal slots: for a single one, torch.compile would make code that fits nothing else.
    shape = (2, backbone.kv_heads, length, backbone.head_dim)
    return KVSlots.empty(len(backbone.layers), shape, backbone.layers[0].qkv.weight)


def _prefilled_and_decoded(
    backbone: FastBackbone, read: Sequence[Tensor], slots: KVSlots, angles: RotaryAngles
) -> _Found:
    """As `_layers`, of the first tokens at once and of the others one by one."""
    device = read[0].device
    zeros = torch.zeros(2, dtype=torch.long, device=device)
    at_once = angles.at(torch.arange(PREFILLED, device=device))
    prefill = CausalAttention(PREFILLED, partial(slots.fill, torch.arange(2, device=device), zeros))
    parts = [_layers(backbone, [x[:PREFILLED] for x in read], at_once, prefill)]
    for position in range(PREFILLED, PREFILLED + DECODED):
        positions = zeros + position
        decode = DecodeAttention(slots, positions, position + 1)
        of_both = _layers(backbone, [x[positions] for x in read], angles.at(positions), decode)
        parts.append(_Found(*([x[:1] for x in states] for states in of_both)))
    return _Found(*([torch.cat(rows) for rows in zip(*states, strict=True)] for states in zip(*parts, strict=True)))


def _layers(backbone: FastBackbone, read: Sequence[Tensor], angles: RotaryAngles, attention: Attention) -> _Found:
    """What each layer gives of what it is to read."""
    given = [backbone.layer(i, x, backbone.first_read(i, x), angles, attention) for i, x in enumerate(read)]
    residuals, following = [residual for residual, _ in given], [each for _, each in given]
    again = [backbone.first_read(i, residual) for i, residual in enumerate(residuals[:-1], 1)]
    return _Found(residuals, following[-1:], following[:-1], again)


def _captured(backbone: FastBackbone, ids: Tensor, slots: KVSlots, angles: RotaryAngles) -> _Compared:
    """The last token decoded as a graph, and as it is. Raises RuntimeError if a step cannot be captured."""
    positions = torch.full((2,), len(ids) - 1, device=ids.device)

    given: list[Tensor] = []

    def step() -> None:
        given.append(backbone(ids[positions], angles.at(positions), DecodeAttention(slots, positions, len(ids))))

    step()
    graph = CudaCapture()(step)
    graph.replay()
    expected, captured = given
    return _Compared("hidden states of a captured step", captured.clone(), expected, 0.0)


@contextmanager
def _short_windows(backbone: FastBackbone) -> Iterator[None]:
    """A context in which windows of both are short, which transformers' masks read from the config."""
    before, config = backbone.windows, backbone.config
    if not any(before):
        yield
        return
    window = config.sliding_window
    backbone.windows = tuple(None if window is None else min(WINDOW, window) for window in before)
    config.sliding_window = min(WINDOW, window)
    try:
        yield
    finally:
        backbone.windows, config.sliding_window = before, window
