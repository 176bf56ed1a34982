from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import tiny_models

from distillkit.arrays import logprob_array, token_ids
from distillkit.errors import InputError
from distillkit.records import Rollout, ScoreRequest
from distillkit.types import SampleRequest
from distillkit_builtin.hf_tokenizer import HFTokenizer
from distillkit_builtin.local.batches.adaptive_batch_size import AdaptiveBatchSize
from distillkit_builtin.local.fast.slot_generator import SlotGenerator
from distillkit_builtin.local.fixed.fixed_rows import FixedDecoder
from distillkit_builtin.local.fixed.fused_norms import FusedNorms
from distillkit_builtin.local.fixed.step_graph import CudaCapture
from distillkit_builtin.local.fixed.unsupported_step import UnsupportedStepError
from distillkit_builtin.local.inference.forward_choice import choose_backbone, choose_decoder
from distillkit_builtin.local.inference.generator import generator_for
from distillkit_builtin.local.inference.inference_model import InferenceModel
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.sampling.known_ids import KnownIds
from distillkit_builtin.local.sampling.plain_generator import PlainGenerator

Load = Callable[..., CausalLM]


def test_auto_takes_the_fast_path_where_it_is_verified(causal_lm: CausalLM, tiny_model: str) -> None:
    notices: list[str] = []
    backbone = choose_backbone(causal_lm, "auto", notices.append)
    assert isinstance(generator_for(causal_lm, backbone, HFTokenizer.load(tiny_model)), SlotGenerator)
    assert notices == []


def test_auto_takes_the_plain_path_elsewhere_and_says_why(load: Load, tmp_path: Path) -> None:
    source = tiny_models.write_model(tmp_path, family="gemma2")
    notices: list[str] = []
    assert choose_backbone(load(source), "auto", notices.append) is None
    assert isinstance(generator_for(load(source), None, HFTokenizer.load(source)), PlainGenerator)
    assert notices == ["Gemma2ForCausalLM is computed by transformers' own forward: its attn_logit_softcapping is 50.0"]


def test_the_fast_path_is_refused_where_it_is_not_supported(load: Load, tmp_path: Path) -> None:
    source = tiny_models.write_model(tmp_path, family="cohere")
    with pytest.raises(InputError, match=r"forward: fast cannot be used: model type 'cohere' .*; take auto"):
        choose_backbone(load(source), "fast", print)


def test_plain_is_plain(causal_lm: CausalLM) -> None:
    assert choose_backbone(causal_lm, "plain", print) is None


def test_steps_are_recorded_on_cuda_where_they_are_proved(causal_lm: CausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    norms = FusedNorms(lambda forward: forward)

    def prove(proved: CausalLM, capture: object, given: object) -> FixedDecoder:
        assert isinstance(capture, CudaCapture)
        assert given is norms
        return FixedDecoder(proved, capture, norms)

    monkeypatch.setattr("distillkit_builtin.local.inference.forward_choice.norms_on_cuda", lambda: norms)
    monkeypatch.setattr("distillkit_builtin.local.inference.forward_choice.proved_decoder", prove)
    assert choose_decoder(causal_lm, print) is None, "nothing is gained on a CPU"
    monkeypatch.setattr(causal_lm.device, "device", torch.device("cuda"))
    decoder = choose_decoder(causal_lm, print)
    assert decoder is not None


async def test_steps_are_proved_before_the_first_completion_once_and_not_for_scores(
    causal_lm: CausalLM, tiny_model: str, monkeypatch: pytest.MonkeyPatch, ask: Callable[..., list[SampleRequest]]
) -> None:
    """A proof takes seconds, which a teacher that only scores need not wait for."""
    proofs, tokenizer = 0, HFTokenizer.load(tiny_model)

    def choose(proved: CausalLM, notify: Callable[[str], None]) -> FixedDecoder:
        nonlocal proofs
        proofs += 1
        notify("proved")
        return FixedDecoder(proved, None)

    monkeypatch.setattr("distillkit_builtin.local.inference.inference_model.choose_decoder", choose)
    notices: list[str] = []
    inference = await InferenceModel.open(
        causal_lm,
        tokenizer,
        "plain",
        known=KnownIds.of(tokenizer),
        sample_batch=AdaptiveBatchSize(8, "completions", "x"),
        score_batch=AdaptiveBatchSize(100, "tokens", "x"),
        notify=lambda message, kind="note": notices.append(message),
    )
    generator = inference.generator
    rollout = Rollout(ask(1)[0], 0, token_ids([7, 8]), logprob_array([-1.0, -1.0]), "length", "")
    assert len([each async for each in inference.score([ScoreRequest(rollout, "t", token_ids([5, 6]))])]) == 1
    assert proofs == 0
    for _ in range(2):
        assert len([each async for each in inference.sample(ask(2), 0)]) == 2
    assert (proofs, notices) == (1, ["proved"])
    assert inference.generator is generator
    assert isinstance(generator, PlainGenerator)
    assert generator.fixed is not None
    assert generator.fixed.memory is not None


def test_why_no_step_is_recorded_is_said(causal_lm: CausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> FixedDecoder:
        raise UnsupportedStepError("a layer keeps what it has read in a Diary")

    monkeypatch.setattr("distillkit_builtin.local.inference.forward_choice.proved_decoder", refuse)
    monkeypatch.setattr("distillkit_builtin.local.inference.forward_choice.norms_on_cuda", lambda: None)
    monkeypatch.setattr(causal_lm.device, "device", torch.device("cuda"))
    notices: list[str] = []
    assert choose_decoder(causal_lm, notices.append) is None
    assert notices == ["LlamaForCausalLM decodes without a CUDA graph: a layer keeps what it has read in a Diary"]
