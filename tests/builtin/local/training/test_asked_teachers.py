"""`full`: the trainer asks a row's teachers again, for their whole distributions."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import tiny_models
from helpers.distribution_losses import chunked, distribution_batch, exact_copy, reference, reverse_kl
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

import distillkit
from builtin.local.training.chunked_trainers import gradients, policy_of, trainer_of
from builtin.local.training.sampled_batches import PLAIN
from distillkit import RunConfig
from distillkit.context import SharedObjects
from distillkit.errors import InputError, PluginError
from distillkit.preflight.prepared_run import context_for
from distillkit_builtin.local.batches import adaptive_batch_size
from distillkit_builtin.local.model.causal_lm import CausalLM
from distillkit_builtin.local.training import asked_teachers
from distillkit_builtin.local.training.asked_teachers import share_teacher, shared_teacher
from distillkit_builtin.local.training.policy import Policy
from distillkit_builtin.local.training.trainer import Trainer
from distillkit_builtin.losses.divergence import Divergence

Load = Callable[..., CausalLM]


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_teacher_that_is_the_student_gives_no_loss_and_no_gradient(
    load: Load, tmp_path: Path, family: str, packs: bool
) -> None:
    """It shares the student's base, without the adapter, which is at its start, and is zero."""
    causal_lm = load(tiny_models.write_model(tmp_path, family=family))
    policy = Policy.lora(causal_lm, rank=4, alpha=8, dropout=0.0, seed=0)
    if packs and family == "llama":
        policy.pack()
    share = trainer_of(policy, causal_lm, positions=7).compute_gradient(distribution_batch("reverse_kl"))
    assert share.loss == pytest.approx(0.0, abs=1e-5)
    assert max(float(gradient.abs().max()) for gradient in gradients(policy).values()) < 1e-4


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("packs", [True, False])
def test_a_teacher_on_the_students_base_is_asked_without_the_adapter(
    load: Load, tiny_model: str, packs: bool, plain: bool
) -> None:
    base = exact_copy(load(tiny_model))
    causal_lm = load(tiny_model)
    policy = policy_of(causal_lm, "lora")
    if packs:
        policy.pack()
    data = distribution_batch("reverse_kl")
    expected = reference(exact_copy(causal_lm), data, {"t": base})
    assert float(expected.detach()) > 0.1
    found = trainer_of(policy, causal_lm, plain=plain).compute_gradient(data)
    assert found.loss == pytest.approx(float(expected.detach()), rel=1e-4)


def test_a_teacher_out_of_memory_is_asked_in_smaller_batches(
    load: Load, tiny_model: str, other_tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = distribution_batch("reverse_kl", longer=11)
    expected = trainer_of(policy_of(load(tiny_model), "lora"), load(other_tiny_model)).compute_gradient(data)
    compute, sizes = asked_teachers.response_states, []

    def limited(causal_lm: CausalLM, items: Sequence[Any], *rest: Any) -> Any:
        if len(items) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        sizes.append(len(items))
        return compute(causal_lm, items, *rest)

    monkeypatch.setattr(asked_teachers, "response_states", limited)
    monkeypatch.setattr(adaptive_batch_size.gc, "collect", lambda: 0)
    found = trainer_of(policy_of(load(tiny_model), "lora"), load(other_tiny_model), tokens=200).compute_gradient(data)
    assert sum(sizes) == len(data.datums)
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)


def test_an_adapter_on_the_head_is_trained_and_is_not_the_teachers(load: Load, tmp_path: Path) -> None:
    source = tiny_models.write_model(tmp_path, family="qwen3")
    base, causal_lm = exact_copy(load(source)), load(source)
    config = LoraConfig(r=4, target_modules=["q_proj", "lm_head"], task_type="CAUSAL_LM")
    causal_lm.adapter = get_peft_model(causal_lm.model, config)
    policy = Policy._with_adapter(causal_lm)
    with torch.no_grad():
        for parameter in policy.trained.values():
            parameter.normal_(0, 0.1)
    data = distribution_batch("reverse_kl")
    model = exact_copy(causal_lm)
    expected = reference(model, data, {"t": base})
    expected.backward()
    exact = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    found = trainer_of(policy, causal_lm, positions=7).compute_gradient(data)
    assert found.loss == pytest.approx(float(expected.detach()), rel=1e-4)
    assert any("lm_head" in name for name in exact)
    for name, gradient in gradients(policy).items():
        theirs = exact[name.removeprefix("base_model.model.")]
        torch.testing.assert_close(gradient.double(), theirs, rtol=1e-3, atol=1e-4 * float(theirs.abs().max()))


def test_mixtures_privileged_prompts_and_routes_are_those_of_a_plain_computation(
    load: Load, tiny_model: str, other_tiny_model: str, tmp_path: Path
) -> None:
    third = tiny_models.write_model(tmp_path, family="qwen2", seed=5)
    teachers = {"a": load(other_tiny_model), "b": load(third)}
    policy = policy_of(load(tiny_model), "lora")
    mixtures = [{"a": 0.3, "b": 0.7}, {"b": 1.0}, {"a": 1.0, "b": 0.0}]
    data = distribution_batch("everything", mixtures, longer=11)
    model = exact_copy(policy.causal_lm)
    plain = {name: exact_copy(causal_lm) for name, causal_lm in teachers.items()}
    expected = reference(model, data, plain)
    expected.backward()
    exact = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    found = Trainer(policy, PLAIN, chunked(teachers, positions=3)).compute_gradient(data)
    assert found.loss == pytest.approx(float(expected.detach()), rel=1e-5)
    for name, gradient in gradients(policy).items():
        theirs = exact[name.removeprefix("base_model.model.")]
        torch.testing.assert_close(gradient.double(), theirs, rtol=1e-4, atol=2e-5 * float(theirs.abs().max()))


@pytest.fixture(scope="session")
def wide_models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Student and teacher whose heads have 5 and 13 rows more than there are tokens."""
    written = []
    for seed, more in enumerate((5, 13)):
        folder = tmp_path_factory.mktemp(f"wide-{more}")
        source = tiny_models.write_model(folder, seed=seed)
        model = AutoModelForCausalLM.from_pretrained(source)
        model.resize_token_embeddings(tiny_models.VOCABULARY + more)
        with torch.no_grad():
            model.get_input_embeddings().weight[tiny_models.VOCABULARY :].normal_(0, 0.3)
        model.save_pretrained(source)
        written.append(source)
    return written[0], written[1]


def test_rows_without_a_token_get_no_probability_on_both_sides_and_what_they_had_is_measured(
    load: Load, wide_models: tuple[str, str]
) -> None:
    student, teacher = map(load, wide_models)
    known = tiny_models.VOCABULARY
    policy = policy_of(student, "lora")
    data = distribution_batch("reverse_kl")
    seen: list[tuple[torch.Tensor, ...]] = []

    def look(positions: Any, options: object) -> Any:
        seen.append(tuple(x.detach() for x in (positions.student, positions.teacher, positions.logprobs)))
        return reverse_kl(positions, options)  # type: ignore[arg-type]

    trainer = Trainer(policy, PLAIN, chunked({"t": teacher}, known=known))
    batch = distillkit.training_data.Batch("look", {}, data.datums[:1], look, data.reads | {"logprobs"})
    metrics = trainer.step(batch).metrics
    (datum,) = batch.datums
    counted = torch.tensor(datum.inputs["weights"]) != 0
    ids = torch.tensor([*datum.prompt_ids, *datum.response_ids])[None]
    start = len(datum.prompt_ids) - 1
    sides = []
    fresh = policy_of(load(wide_models[0]), "lora").causal_lm
    for model in (fresh.model, teacher.model):
        sides.append(model(input_ids=ids).logits[0, start:-1][counted].detach())
    for mine, logits in zip(seen[0][:2], sides, strict=True):
        assert mine.shape[1] == known
        torch.testing.assert_close(mine, logits[:, :known].log_softmax(-1), rtol=1e-4, atol=1e-4)
    own = sides[0].log_softmax(-1).gather(1, torch.tensor(datum.response_ids)[counted][:, None])[:, 0]
    torch.testing.assert_close(seen[0][2], own, rtol=1e-4, atol=1e-4)  # as samplers and scorers have it: of all rows
    for name, logits in zip(("train/unknown_mass", "train/teacher_unknown_mass"), sides, strict=True):
        assert metrics[name] == pytest.approx(float(logits.softmax(-1)[:, known:].sum(1).mean()), rel=1e-3)
        assert metrics[name] > 1e-4


@pytest.mark.parametrize("narrow", ["student", "teacher"])
def test_a_head_with_fewer_rows_than_the_tokenizer_cuts_all_sides(
    load: Load, wide_models: tuple[str, str], narrow: str
) -> None:
    student, teacher = map(load, wide_models if narrow == "student" else wide_models[::-1])
    trainer = Trainer(policy_of(student, "lora"), PLAIN, chunked({"t": teacher}, known=tiny_models.VOCABULARY + 9))
    metrics = trainer.step(distribution_batch("everything")).metrics
    names = ("train/unknown_mass", "train/teacher_unknown_mass")
    cut, whole = names[::-1] if narrow == "student" else names
    assert whole not in metrics  # its head has the fewest rows
    assert metrics[cut] > 1e-4


def test_a_teacher_that_is_not_in_this_process_is_named(local_config: Callable[..., RunConfig]) -> None:
    run = context_for("student", local_config(), SharedObjects(), print)
    with pytest.raises(PluginError, match=r"whole distributions of teacher 'far'.*take scorer local"):
        shared_teacher(run, "far")
    share_teacher(run, "near", sentinel := object())  # type: ignore[arg-type]
    assert shared_teacher(run, "near") is sentinel


@pytest.mark.parametrize("student", [{}, {"lora_rank": 0, "learning_rate": 0.01}])
def test_a_run_asks_its_teachers_again(local_config: Callable[..., RunConfig], student: dict[str, Any]) -> None:
    result = distillkit.run(
        local_config(loss=Divergence(), student=student, data={"epochs": 4}, sampling={"max_completion_tokens": 16})
    )
    losses = [float(str(line["train/loss"])) for line in result.metrics if "train/loss" in line]
    assert losses[-1] < 0.9 * losses[0]
    assert all(float(str(line["rollout/logprob_mismatch_max"])) < 1e-3 for line in result.metrics)


def test_turn_ends_that_are_mapped_are_refused(local_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    other = tiny_models.write_model(tmp_path / "ends", seed=1, eos="<|endoftext|>")
    tiny_models.write_tokenizer(
        tmp_path / "ends", eos="<|endoftext|>", template=tiny_models.CHATML.replace("<|im_end|>", "<|endoftext|>")
    )
    scorer = {"name": "local", "dtype": "float32", "device": "cpu"}
    teachers = [{"model": other, "scorer": scorer, "turn_end": "map"}]
    with pytest.raises(InputError, match="needs full of its teachers, and turn_end: map knows how to read sampled"):
        distillkit.run(local_config(loss=Divergence(), teachers=teachers))
