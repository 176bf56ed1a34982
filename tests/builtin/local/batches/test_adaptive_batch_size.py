"""A device that is too small for what is computed at once: smaller parts, the same numbers, and a notice."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

import distillkit
from distillkit import RunConfig
from distillkit.errors import RunFailedError
from distillkit_builtin.local.batches import adaptive_batch_size
from distillkit_builtin.local.batches.adaptive_batch_size import AdaptiveBatchSize
from distillkit_builtin.local.fast.decoder import Decoder
from distillkit_builtin.local.inference import scoring
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.packing import packing_proof
from distillkit_builtin.local.sampling.plain_generator import PlainGenerator
from distillkit_builtin.local.training import policy

Make = Callable[..., RunConfig]
OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB."


@pytest.fixture
def small_device(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Let the device run out of memory from so many (padded) tokens, or completions that are sampled, at once.

    The few sequences that a model is proved with when it is opened are let through.
    """

    def limit(tokens: int, completions: int) -> None:
        respond, generate = CausalLM.response_states, PlainGenerator.generate_batch
        pack = policy.packed_response_states
        prefill, admit = scoring.prefill_response_states, Decoder.admit
        prove, proving = packing_proof.require_packable, threading.Event()

        def require_packable(causal_lm: CausalLM) -> None:
            proving.set()
            try:
                prove(causal_lm)
            finally:
                proving.clear()

        def response_states(self: CausalLM, items: Sequence[Any], *rest: Any) -> Any:
            if max(map(len, items)) * len(items) > tokens and not proving.is_set():
                raise torch.OutOfMemoryError(OUT_OF_MEMORY)
            return respond(self, items, *rest)

        def prefill_response_states(backbone: Any, items: Sequence[Any], *rest: Any) -> Any:
            if max(map(len, items)) * len(items) > tokens:
                raise torch.OutOfMemoryError(OUT_OF_MEMORY)
            return prefill(backbone, items, *rest)

        def generate_some(self: PlainGenerator, requests: Sequence[Any], version: int, emit: Any) -> None:
            if len(requests) > completions:
                generate(self, requests[:1], version, emit)  # the first has ended before
                raise torch.OutOfMemoryError(OUT_OF_MEMORY)
            generate(self, requests, version, emit)

        def admit_some(self: Decoder, slots: Sequence[int], requests: Sequence[Any]) -> None:
            if self.slots.count > completions:
                raise torch.OutOfMemoryError(OUT_OF_MEMORY)
            admit(self, slots, requests)

        def packed_response_states(causal_lm: CausalLM, items: Sequence[Any]) -> Any:
            if sum(map(len, items)) > tokens:
                raise torch.OutOfMemoryError(OUT_OF_MEMORY)
            return pack(causal_lm, items)

        # Over all that the libraries keep it takes most of these tests' time, and frees nothing here.
        monkeypatch.setattr(adaptive_batch_size.gc, "collect", lambda: 0)
        monkeypatch.setattr(CausalLM, "response_states", response_states)
        monkeypatch.setattr(policy, "packed_response_states", packed_response_states)
        monkeypatch.setattr(policy, "require_packable", require_packable)
        monkeypatch.setattr(scoring, "prefill_response_states", prefill_response_states)
        monkeypatch.setattr(PlainGenerator, "generate_batch", generate_some)
        monkeypatch.setattr(Decoder, "admit", admit_some)

    return limit


@pytest.fixture
def config(local_config: Make, other_tiny_model: str, forward: str) -> Make:
    """A config whose models are all computed in one way."""
    scorer = {"name": "local", "dtype": "float32", "device": "cpu", "forward": forward}

    def make(**over: Any) -> RunConfig:
        teachers = [{"model": other_tiny_model, "scorer": scorer}]
        return local_config(**{"student": {"forward": forward}, "teachers": teachers, **over})

    return make


def test_less_at_once_gives_the_same_numbers_and_is_told(
    config: Make, small_device: Callable[[int, int], None]
) -> None:
    # One step: AdamW's steps are of a fixed size in whatever direction rounding points, so a second may sample others.
    whole = distillkit.run(config(name="whole", train={"max_steps": 1}))
    small_device(100, 3)
    parts = distillkit.run(config(name="parts", train={"max_steps": 1}))
    assert parts.summary["failed_completions"] == 0
    for ours, theirs in zip(parts.metrics, whole.metrics, strict=True):
        for name in ("train/loss", "train/grad_norm", "train/reverse_kl", "train/teacher_nll", "train/active_tokens"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-5), name
    log = (parts.run_dir / "run.log").read_text()
    for option in ("student.micro_batch_tokens", "scorer.micro_batch_tokens", "student.sample_batch_size"):
        assert f"{option} sets that" in log
    assert "done again with 2 completions at once" in log


def test_what_does_not_fit_one_by_one_ends_the_run(config: Make, small_device: Callable[[int, int], None]) -> None:
    small_device(5, 100)
    with pytest.raises(RunFailedError, match=r"not enough memory for even one completion at once .*CUDA out of memory"):
        distillkit.run(config())


def test_a_step_that_was_done_again_moves_the_weights_once(
    config: Make, small_device: Callable[[int, int], None]
) -> None:
    whole = distillkit.run(config(name="whole", train={"max_steps": 1}))
    small_device(100, 100)
    parts = distillkit.run(config(name="parts", train={"max_steps": 1}))
    from safetensors.numpy import load_file

    ours, theirs = (load_file(one.adapter_path / "adapter_model.safetensors") for one in (parts, whole))
    for name, array in theirs.items():
        np.testing.assert_allclose(ours[name], array, atol=1e-3)


def test_memory_that_only_saves_time_is_freed_before_anything_is_halved() -> None:
    kept = [True]
    batch = AdaptiveBatchSize(8, "tokens", "student.micro_batch_tokens", free_caches=lambda: bool(kept) and kept.pop())
    error = torch.OutOfMemoryError(OUT_OF_MEMORY)
    batch.shrink(error, 1)
    assert (batch.size, batch.messages) == (8, [])
    batch.shrink(error, 1)
    assert batch.size == 4
