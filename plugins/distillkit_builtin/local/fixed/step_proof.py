"""Whether steps of fixed shapes give a model's own numbers, found on the device before they are used.

The same tokens are read in them and token by token behind a growing cache, whose numbers were proved before: behind
prompts of several lengths where those may be padded, beyond windows, over the lengths at which another step begins,
while rows leave. Recorded steps are replayed, so that whatever a layer counts in Python is found as well. Where norms
are to be fused, steps are proved so, and as they come where that fails.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distillkit.errors import InputError
from distillkit_builtin.file_errors import one_line
from distillkit_builtin.local.batches.cached_rows import CachedRows
from distillkit_builtin.local.batches.sequence_proof import (
    BEYOND,
    LONGEST_WINDOW,
    MAX_NOISE,
    NOISE,
    TOLERANCE,
    TOLERANCE_OF_KERNELS,
    windows,
)  # fmt: skip
from distillkit_builtin.local.fixed.fixed_rows import FixedDecoder, FixedRows
from distillkit_builtin.local.fixed.fused_norms import FusedNorms
from distillkit_builtin.local.fixed.host_reads import nothing_waits
from distillkit_builtin.local.fixed.step_graph import Capture
from distillkit_builtin.local.fixed.unsupported_step import UnsupportedStepError
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.model_files.model_class import MODEL_ERRORS

LONG, SHORT, MIDDLE = 13, 3, 8
"""Tokens of the prompts; the first is longer where windows are."""
STEPS = 11
"""Tokens that are read behind each."""
LEAVING = {2: (0, 2, 3), 7: (0, 2)}
"""Before which step which of four rows stay; then which of those. At the second time half have ended."""
ANOTHER_STEP = 4
"""Tokens after which the length of the first step is full."""

log = logging.getLogger("distillkit")


def proved_decoder(causal_lm: CausalLM, capture: Capture | None, norms: FusedNorms | None = None) -> FixedDecoder:
    """A decoder of the model with steps of fixed shapes, recorded by `capture` if that is given.

    It has `norms`, if they are given and steps with them are proved too.

    Raises:
        UnsupportedStepError: with the reason, if there are no such steps, or if they give other numbers.
    """
    with _reasons(), causal_lm.without_adapter(), torch.inference_mode():  # as it will be sampled from
        text = _Text.of(causal_lm)
        text.require_no_waiting()
        expected = _Expected.of(text)
        if norms is not None:
            try:
                with _reasons():
                    expected.require_near(text.read_fixed(capture, norms))
                return FixedDecoder(causal_lm, capture, norms)
            except UnsupportedStepError as reason:
                log.debug("norms of %s are not fused: %s", type(causal_lm.model).__name__, reason)
        expected.require_near(text.read_fixed(capture, None))
    return FixedDecoder(causal_lm, capture)


@contextmanager
def _reasons() -> Iterator[None]:
    """What a model's own code raises is the reason."""
    try:
        yield
    except (InputError, torch.OutOfMemoryError):
        raise
    except MODEL_ERRORS as error:
        raise UnsupportedStepError(f"a step of fixed shape fails: {one_line(error)}") from error


@dataclass(frozen=True, slots=True)
class _Text:
    """Random tokens that are read in several ways, each giving logits [rows, vocabulary] a step."""

    causal_lm: CausalLM
    prompts: list[np.ndarray]
    rows: Tensor
    """[4]: the prompt of each row."""
    tokens: Tensor
    """[4, STEPS]: what is read behind."""

    @classmethod
    def of(cls, causal_lm: CausalLM) -> "_Text":
        numbers, device = np.random.default_rng(0), causal_lm.device.device
        highest = min(len(causal_lm.model.get_input_embeddings().get_parameter("weight")), 5000)
        beyond = [window + BEYOND - ANOTHER_STEP for window in windows(causal_lm) if window <= LONGEST_WINDOW]
        long = max([LONG, *beyond])
        lengths = (long, SHORT, MIDDLE) if causal_lm.batching.left_padding else (long,) * 3
        prompts = [numbers.integers(1, highest, length) for length in lengths]
        tokens = torch.from_numpy(numbers.integers(1, highest, (4, STEPS))).to(device)
        return cls(causal_lm, prompts, torch.tensor([2, 0, 1, 0], device=device), tokens)

    def _prefilled(self) -> tuple[CachedRows, Tensor]:
        padding = self.causal_lm.batching.left_padding
        return CachedRows.prefill(self.causal_lm, self.prompts, left_padding=padding)

    def read_growing(self) -> list[Tensor]:
        """Behind a cache that grows."""
        rows, _ = self._prefilled()
        rows.select(self.rows)
        return [rows.next_logits(tokens) for tokens in self._steps(rows)]

    def read_fixed(self, capture: Capture | None, norms: FusedNorms | None) -> list[Tensor]:
        """In steps of fixed shapes."""
        rows = self._fixed(capture, norms)
        return [rows.next_logits(tokens).clone() for tokens in self._steps(rows)]

    def require_no_waiting(self) -> None:
        """Raise UnsupportedStepError if host and device wait for each other in a step whose norms are not fused."""
        rows = self._fixed(None, None)
        with nothing_waits():
            rows.next_logits(self.tokens[:, 0])

    def _fixed(self, capture: Capture | None, norms: FusedNorms | None) -> FixedRows:
        prompts, hidden = self._prefilled()
        decoder = FixedDecoder(self.causal_lm, capture, norms, shortest=prompts.columns + ANOTHER_STEP)
        return decoder.start(prompts, self.rows, STEPS, self.causal_lm.head(hidden).shape[1])

    def read_alone(self) -> list[Tensor]:
        """Each row by itself, without a cache."""
        whole = []
        for row, prompt in enumerate(self.rows.tolist()):
            start = torch.from_numpy(self.prompts[prompt]).to(self.tokens.device)
            hidden = self.causal_lm.hidden_states(torch.cat([start, self.tokens[row]])[None])
            whole.append(self.causal_lm.head(hidden[0, -STEPS:]).float())
        logits, staying = torch.stack(whole), list(range(4))
        found = []
        for step in range(STEPS):
            staying = [staying[row] for row in LEAVING.get(step, range(len(staying)))]
            found.append(logits[staying, step])
        return found

    def _steps(self, rows: CachedRows | FixedRows) -> Iterator[Tensor]:
        """The tokens of each step, before which rows leave."""
        tokens = self.tokens
        for step in range(STEPS):
            if step in LEAVING:
                staying = torch.tensor(LEAVING[step], device=tokens.device)
                rows.select(staying)
                tokens = tokens[staying]
            yield tokens[:, step]


@dataclass(frozen=True, slots=True)
class _Expected:
    """What steps must give."""

    logits: list[Tensor]
    """[rows, vocabulary] a step."""
    close: float
    """How far from them logits may be, as a share of their norm."""
    exact: bool
    """As `_apart` takes it."""

    @classmethod
    def of(cls, text: _Text) -> "_Expected":
        causal_lm, grown = text.causal_lm, text.read_growing()
        if all(parameter.dtype == torch.float32 for parameter in causal_lm.model.parameters()):
            kernels = causal_lm.device.device.type != "cpu"
            return cls(grown, TOLERANCE_OF_KERNELS if kernels else TOLERANCE, exact=True)
        alone = text.read_alone()
        close = min(max(TOLERANCE_OF_KERNELS, NOISE * _apart(grown, alone, exact=False)), MAX_NOISE)
        return cls(alone, close, exact=False)

    def require_near(self, found: Sequence[Tensor]) -> None:
        """Raise UnsupportedStepError if logits [rows, vocabulary] a step are further away."""
        apart = _apart(found, self.logits, exact=self.exact)
        if not apart <= self.close:
            raise UnsupportedStepError(f"logits of steps of fixed shapes are {apart:.2g} of their norm away")


def _apart(found: Sequence[Tensor], expected: Sequence[Tensor], *, exact: bool) -> float:
    """The distance of logits as a share of their norm, of the row that is furthest.

    Of a row all tokens count in float32; of what rounds more the one in the middle: one that goes to other experts, as
    rounding may let it, is far.
    """
    distances: dict[int, list[tuple[Tensor, Tensor]]] = {}
    staying = list(range(len(found[0])))
    for step, (mine, theirs) in enumerate(zip(found, expected, strict=True)):
        staying = [staying[row] for row in LEAVING.get(step, range(len(staying)))]
        for row, away, norm in zip(staying, (mine - theirs).norm(dim=1), theirs.norm(dim=1), strict=True):
            distances.setdefault(row, []).append((away, norm))
    rows = [[torch.stack(each) for each in zip(*pairs, strict=True)] for pairs in distances.values()]
    whole = [away.norm() / norm.norm() if exact else (away / norm).median() for away, norm in rows]
    return float(torch.stack(whole).max())
