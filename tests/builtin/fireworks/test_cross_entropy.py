"""Top-K targets at the service: what is sent, what it learns, and a run of several teachers by the recipe's own API."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import question

import distillkit
from builtin.fireworks.runs import make_config, nothing_is_left, two_teachers
from distillkit.arrays import token_ids
from distillkit.errors import InputError, PluginError
from distillkit.records import ScoredRollout
from distillkit.testing import complete_batch, make_context, make_scored_rollouts
from distillkit.training_data import Batch, Datum
from distillkit.types import SampleKey
from distillkit_builtin.fireworks.batch_codec import as_datums
from distillkit_builtin.local.student import LocalStudent
from distillkit_builtin.losses.topk_cross_entropy import TopkCrossEntropy

pytest.importorskip("fireworks.training.sdk")
if TYPE_CHECKING:
    from distillkit_loopback.fireworks.service import LoopbackService

LEARNING_RATE, RANK, ALPHA, STEPS = 0.02, 8, 16, 3


def test_targets_are_shifted_by_one_and_weights_multiplied_in() -> None:
    inputs = {
        "target_ids": np.array([[7, 8], [9, -1]]),
        "target_weights": np.array([[0.75, 0.25], [1.0, np.nan]], np.float32),
        "weights": np.array([0.5, 0.25], np.float32),
        "sampling_logprobs": np.array([-1.0, -1.0], np.float32),
    }
    datum = Datum(SampleKey("1-a", 0, 0), token_ids([1, 2, 3]), token_ids([4, 5]), inputs)
    masked = replace(datum, inputs={**inputs, "weights": np.array([0.0, 0.25], np.float32)})
    (sent, hidden) = as_datums(Batch("cross_entropy", {}, (datum, masked)))
    assert sent.model_input.to_ints() == [1, 2, 3, 4]  # without the last, which only is a target
    arrays = {name: tensor.to_numpy() for name, tensor in sent.loss_fn_inputs.items()}
    assert arrays.keys() == {"target_tokens", "weights"}
    assert arrays["target_tokens"].tolist() == [[0, 0], [0, 0], [7, 8], [9, 0]]
    assert arrays["weights"].tolist() == [[0, 0], [0, 0], [0.375, 0.125], [0.25, 0]]
    assert hidden.loss_fn_inputs["weights"].to_numpy().tolist() == [[0, 0], [0, 0], [0, 0], [0.25, 0]]


def test_a_loss_that_makes_other_data_than_the_service_reads_is_named() -> None:
    inputs = {"weights": np.ones(1, np.float32), "sampling_logprobs": np.zeros(1, np.float32)}
    datum = Datum(SampleKey("1-a", 0, 0), token_ids([1]), token_ids([4]), inputs)
    with pytest.raises(PluginError, match="the service's cross_entropy reads 'target_ids', which the loss does not"):
        as_datums(Batch("cross_entropy", {}, (datum,)))


LORA = {"lora_rank": RANK, "lora_alpha": ALPHA, "learning_rate": LEARNING_RATE}


async def losses_of(student: Any, batch: Batch) -> list[float]:
    """The same batch again and again: each loss shows what the steps before it did to the weights."""
    context = make_context()
    student.declare(context)
    student.check(context)
    try:
        await student.open(context)
        return [(await student.train(batch)).metrics["train/loss"] for _ in range(STEPS)]
    finally:
        await student.close()
        await context.shared.release(context.user)


async def test_steps_have_the_loss_that_float64_gives(
    service: "LoopbackService", tmp_path: Path, tiny_model: str
) -> None:
    adam = {"adam_betas": (0.9, 0.95), "adam_epsilon": 1e-8}
    remote = make_config(service, tmp_path, tiny_model, student={**LORA, **adam}).student
    loss = TopkCrossEntropy(k=3)
    scored = make_scored_rollouts(loss)
    losses = await losses_of(remote, complete_batch(loss, scored))
    assert losses == pytest.approx(in_float64(tiny_model, loss, scored), rel=1e-3)
    assert losses[2] < losses[0] - 0.05


async def test_training_agrees_with_the_local_backends(
    service: "LoopbackService", tmp_path: Path, tiny_model: str
) -> None:
    alike = {**LORA, "grad_clip_norm": 1.0}
    remote = make_config(service, tmp_path, tiny_model, student=alike).student
    local = LocalStudent(model=tiny_model, dtype="float32", device="cpu", **alike)  # type: ignore[arg-type]
    loss = TopkCrossEntropy(k=3)
    if not loss.reads() <= local.loss_capabilities():
        pytest.skip("student local does not give at_ids")
    batch = complete_batch(loss, make_scored_rollouts(loss))
    there, here = await losses_of(remote, batch), await losses_of(local, batch)
    assert there == pytest.approx(here, abs=1e-4)
    assert there[0] != pytest.approx(there[2], abs=1e-2)


def in_float64(source: str, loss: TopkCrossEntropy, scored: list[ScoredRollout]) -> list[float]:
    """`- sum_t w_t sum_k q_tk log s_t(v_tk)` before each of the steps, by transformers, PEFT and torch alone."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(source).eval()
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = get_peft_model(base, config).double().eval()
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(trained, LEARNING_RATE, (0.9, 0.95), 1e-8, 0.0)
    tokens = sum(one.rollout.active_count for one in scored)
    losses = []
    for _ in range(STEPS):
        total = torch.zeros((), dtype=torch.float64)
        for one in scored:
            prompt, response = one.rollout.request.prompt_ids.tolist(), one.rollout.token_ids.tolist()
            logits = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0].double()
            logprobs = logits.log_softmax(-1)[len(prompt) - 1 : -1]
            targets = loss.inputs(one)
            ids, weights = (torch.tensor(targets[name]) for name in ("target_ids", "target_weights"))
            each = -(weights.double() * logprobs.gather(1, ids)).sum(1) / tokens
            total = total + each[torch.tensor(one.rollout.active)].sum()
        optimizer.zero_grad()
        torch.autograd.backward(total)
        optimizer.step()
        losses.append(float(total.detach()))
    return losses


def test_every_row_is_scored_by_all_teachers_and_their_top_k_are_sent(
    service: "LoopbackService", tmp_path: Path, tiny_model: str
) -> None:
    first, second = two_teachers(service)
    teachers = [{**first, "weight": 3.0}, second]
    config = make_config(
        service,
        tmp_path,
        tiny_model,
        rows=[question(f"number {i}") for i in range(4)],
        teachers=teachers,
        router="all",
        loss={"name": "topk_cross_entropy", "k": 4},
        train={"normalization": "sum"},
    )
    result = distillkit.run(config)
    assert (result.steps, nothing_is_left(service)) == (1, True)
    (body,) = [request.body for request in service.requests if request.path.endswith("/forward_backward")]
    wire: Any = body["forward_backward_input"]  # type: ignore[index,call-overload]  # JSON
    assert (wire["loss_fn"], wire.get("loss_fn_config")) == ("cross_entropy", None)
    assert len(wire["data"]) == 8
    for datum in wire["data"]:
        targets, weights = datum["loss_fn_inputs"]["target_tokens"], datum["loss_fn_inputs"]["weights"]
        length = len(datum["model_input"]["chunks"][0]["tokens"])
        assert targets["shape"] == weights["shape"] == [length, 4]
        sums = np.array(weights["data"]).reshape(-1, 4).sum(axis=1)
        assert set(sums.round(5)) == {0.0, 1.0}
    scoring: list[Any] = [r.body for r in service.requests if r.path.endswith("/completions")]
    assert sum(one.get("top_logprobs") == 4 for one in scoring) == 16  # 8 completions, each by both teachers


def test_more_than_the_service_gives_is_refused_with_who_gives_it(
    service: "LoopbackService", tmp_path: Path, tiny_model: str
) -> None:
    config = make_config(service, tmp_path, tiny_model, loss={"name": "topk_cross_entropy", "k": 6})
    with pytest.raises(InputError, match=r"gives sampled, topk up to 5; .* needs topk of 6: serve .*, or lower k"):
        distillkit.run(config)
    assert not [request for request in service.requests if request.method == "POST"]
