"""States and adapters that the loopback service saved, in other trainers and models."""

import pytest

pytest.importorskip("fireworks.training.sdk")
import torch
from builtin.fireworks.conftest import STUDENT, Connect
from safetensors.torch import load_file

from distillkit_loopback.fireworks.service import LoopbackService
from loopback.fireworks.sdk_calls import TIME, completions, train, weights_of


@pytest.mark.parametrize("optimizer", [True, False])
def test_a_saved_state_brings_back_weights_and_if_asked_moments(
    service: LoopbackService, connect: Connect, optimizer: bool
) -> None:
    connected = connect()
    client = connected.create_training_client(STUDENT, lora_rank=4, lora_alpha=8)
    train(client, completions(0))
    assert client.save_state("step-1").result(TIME).path == "step-1"
    assert client.list_checkpoints() == ["step-1"]

    def after_another() -> dict[str, torch.Tensor]:
        train(client, completions(1))
        name = f"weights-{len(service.requests)}"
        return load_file(weights_of(service, connected, client, name) / "adapter_model.safetensors")

    first = after_another()
    load = client.load_state_with_optimizer if optimizer else client.load_state
    load("step-1").result(TIME)
    second = after_another()
    same = [torch.allclose(first[name], second[name], atol=1e-6) for name in first]
    assert all(same) == optimizer


def test_another_trainer_goes_on_from_the_state_of_one_that_is_deleted(
    service: LoopbackService, connect: Connect
) -> None:
    old = connect()
    client = old.create_training_client(STUDENT, lora_rank=4, lora_alpha=8)
    train(client, completions())
    client.save_state("step-1").result(TIME)
    mine = load_file(weights_of(service, old, client, "mine") / "adapter_model.safetensors")
    old.close()
    assert not service.jobs
    new = connect(trainer_job_id="second", deployment_id="second")
    fresh = new.create_training_client(STUDENT, lora_rank=4, lora_alpha=8)
    fresh.load_state_with_optimizer(fresh.resolve_checkpoint_path("step-1", source_job_id="trainer")).result(TIME)
    fresh.save_state("copied").result(TIME)
    saved = fresh.save_weights_for_sampler_ext("theirs")
    row = next(row for row in new.list_checkpoints("second") if row["name"].endswith(saved.path))
    model = new.promote_checkpoint(name=row["name"], output_model_id="theirs", base_model=STUDENT)
    theirs = load_file(service.path(model["name"]) / "adapter_model.safetensors")
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_promoted_adapter_is_what_another_model_can_begin_with(service: LoopbackService, connect: Connect) -> None:
    connected = connect()
    client = connected.create_training_client(STUDENT, lora_rank=4, lora_alpha=8)
    train(client, completions())
    mine = load_file(weights_of(service, connected, client, "first") / "adapter_model.safetensors")
    other = connected.create_training_client(STUDENT, lora_rank=4, lora_alpha=8)
    other.load_adapter("accounts/loopback/models/first").result(TIME)
    theirs = load_file(weights_of(service, connected, other, "second") / "adapter_model.safetensors")
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
