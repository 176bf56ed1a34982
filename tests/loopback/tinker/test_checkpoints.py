"""What is saved is found, loaded, kept for its time, deleted and exported."""

import io
import json
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

pytest.importorskip("tinker")
import tinker
from peft import PeftModel
from tinker import RestClient

from distillkit_loopback.hf.causal_lm import CausalLM
from distillkit_loopback.tinker.service import TinkerService
from loopback.tinker.conftest import KEY, MODEL, Connect, Start
from loopback.tinker.sdk_calls import TIME, completions, logprobs_of, sample, scores, train, trainer

KEYS = {"x-api-key": KEY}
pytestmark = pytest.mark.filterwarnings("ignore:.*load_state.*:FutureWarning")  # what SDK 0.25 has, and SkyRL needs


def rest(service: TinkerService) -> RestClient:
    return RestClient(base_url=service.base_url, api_key=KEY)


def test_a_model_goes_on_from_its_state_as_if_nothing_had_been(service: TinkerService, connect: Connect) -> None:
    client, data = connect(service), completions()
    first = trainer(client)
    train(first, data)
    path = first.save_state("after-one").result(TIME).path
    train(first, data)
    again = trainer(client, seed=99)
    again.load_state_with_optimizer(path).result(TIME)
    train(again, data)
    assert logprobs_of(again, data) == logprobs_of(first, data)
    without = trainer(client, seed=99)
    without.load_state(path).result(TIME)
    train(without, data)
    assert logprobs_of(without, data) != logprobs_of(first, data)


def test_a_new_model_is_made_of_a_state_where_the_server_can(start: Start, connect: Connect) -> None:
    service, data = start("hosted"), completions()
    client = connect(service)
    first = trainer(client, train_unembed=True)
    train(first, data)
    path = first.save_state("a").result(TIME).path
    again = client.create_training_client_from_state_with_optimizer(path).result(TIME)
    train(first, data)
    train(again, data)
    assert logprobs_of(again, data) == logprobs_of(first, data)
    with pytest.raises(tinker.BadRequestError, match="LoadWeights is not permitted with seq_id 4"):
        again.load_state(path).result(TIME)
    skyrl = connect(start("skyrl"))
    path = trainer(skyrl).save_state("a").result(TIME).path
    with pytest.raises(tinker.UnprocessableEntityError, match=r"'model_id'.*Field required"):
        skyrl.create_training_client_from_state_with_optimizer(path).result(TIME)


def test_another_service_of_the_same_folder_knows_them(start: Start, connect: Connect, tmp_path: Path) -> None:
    first, data = start("hosted", folder=tmp_path), completions()
    client = trainer(connect(first))
    train(client, data)
    path = client.save_state("a").result(TIME).path
    weights = client.save_weights_for_sampler("b").result(TIME).path
    wanted = logprobs_of(client, data)
    first.close()
    second = start("hosted", folder=tmp_path)
    assert [*second.checkpoints] == [path, weights]
    again = trainer(connect(second))
    again.load_state(path).result(TIME)
    assert logprobs_of(again, data) == wanted
    sampler = connect(second).create_sampling_client(model_path=weights).result(TIME)
    assert sampler.get_base_model() == MODEL


def test_they_are_listed_described_and_deleted(service: TinkerService, connect: Connect) -> None:
    client = trainer(connect(service))
    state = client.save_state("a").result(TIME).path
    weights = client.save_weights_for_sampler("a").result(TIME).path
    assert [*service.checkpoints] == [state, weights]
    known = rest(service)
    listed = known.list_checkpoints(client.model_id).result(TIME).checkpoints
    assert [(each.tinker_path, each.checkpoint_type) for each in listed] == [(state, "training"), (weights, "sampler")]
    info = known.get_weights_info_by_tinker_path(state).result(TIME)
    assert (info.base_model, info.lora_rank) == (MODEL, 4)
    assert info.train_unembed is (False if service.kind == "hosted" else None)
    known.delete_checkpoint_from_tinker_path(state).result(TIME)
    assert [*service.checkpoints] == [weights]
    with pytest.raises(tinker.NotFoundError, match="Checkpoint not found"):
        known.delete_checkpoint_from_tinker_path(state).result(TIME)


def test_a_name_is_taken_once(service: TinkerService, connect: Connect) -> None:
    client = trainer(connect(service))
    client.save_state("a").result(TIME)
    body = {"model_id": client.model_id, "path": "a", "seq_id": 2, "overwrite": True}
    answer = httpx.post(f"{service.base_url}/api/v1/save_weights", json=body, headers=KEYS)
    assert answer.status_code == (200 if service.kind == "hosted" else 409)
    body = {"model_id": client.model_id, "path": "a", "seq_id": 3}
    assert httpx.post(f"{service.base_url}/api/v1/save_weights", json=body, headers=KEYS).status_code == 409
    body = {"model_id": client.model_id, "path": "no/name", "seq_id": 4}
    assert httpx.post(f"{service.base_url}/api/v1/save_weights", json=body, headers=KEYS).status_code == 422


def test_what_is_kept_for_a_time_is_gone_after_it(
    start: Start, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = start("hosted")
    client = trainer(connect(service))
    path = client.save_state("a", ttl_seconds=3600).result(TIME).path
    (listed,) = rest(service).list_checkpoints(client.model_id).result(TIME).checkpoints
    assert listed.expires_at is not None
    assert 3500 < (listed.expires_at - datetime.now(UTC)).total_seconds() <= 3600
    rest(service).set_checkpoint_ttl_from_tinker_path(path, None).result(TIME)
    assert service.checkpoints[path].saving.expires_at is None
    with pytest.raises(tinker.UnprocessableEntityError, match="not between 3600"):
        client.save_state("b", ttl_seconds=5).result(TIME)
    monkeypatch.setattr("distillkit_loopback.tinker.checkpoints._expired", lambda saving: True)
    with pytest.raises(tinker.NotFoundError):
        trainer(connect(service)).load_state(path).result(TIME)
    assert not service.checkpoints


def test_skyrl_keeps_everything_whatever_is_asked(start: Start, connect: Connect) -> None:
    service = start("skyrl")
    client = trainer(connect(service))
    path = client.save_state("a", ttl_seconds=5, overwrite=True).result(TIME).path
    assert service.checkpoints[path].saving.expires_at is None
    address = f"{service.base_url}/api/v1/training_runs/{client.model_id}/checkpoints/weights/a/ttl"
    assert httpx.put(address, json={"ttl_seconds": 3600}).status_code == 405


def _scores(source: str, folder: Path, ids: list[int]) -> np.ndarray[Any, Any]:
    model = PeftModel.from_pretrained(CausalLM.load(source).model, str(folder))
    with torch.no_grad():
        rows = torch.log_softmax(model(input_ids=torch.tensor([ids[:-1]])).logits[0], 1)
    return np.asarray(rows[torch.arange(len(ids) - 1), ids[1:]])


def test_external_weights_are_the_policy(start: Start, connect: Connect, tiny_model: str, tmp_path: Path) -> None:
    service, data = start("hosted"), completions()
    client = trainer(connect(service))
    train(client, data)
    path = client.save_weights_external("out").result(TIME).path
    for name, url in rest(service).get_external_weights_urls(path).result(TIME).urls.items():
        (tmp_path / name).write_bytes(httpx.get(url).content)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == MODEL
    ids = [*data[0][0], *data[0][1]]
    np.testing.assert_allclose(_scores(tiny_model, tmp_path, ids), logprobs_of(client, data)[0], atol=1e-5)


def test_skyrls_archive_says_nothing_of_its_layers(
    start: Start, connect: Connect, tiny_model: str, tmp_path: Path
) -> None:
    service, data = start("skyrl"), completions()
    client = trainer(connect(service))
    train(client, data)
    client.save_weights_for_sampler("out").result(TIME)
    runs = f"{service.base_url}/api/v1/training_runs/{client.model_id}/checkpoints"
    answer = httpx.get(f"{runs}/out/archive", follow_redirects=True)
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        archive.extractall(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["target_modules"] is None
    layers = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "target_modules": layers}))
    ids = [*data[0][0], *data[0][1]]
    np.testing.assert_allclose(_scores(tiny_model, tmp_path, ids), logprobs_of(client, data)[0], atol=1e-5)
    client.save_state("state").result(TIME)
    assert httpx.get(f"{runs}/state/archive").status_code == 404


def test_weights_of_a_run_that_has_ended(start: Start, connect: Connect) -> None:
    ids = [1, 70, 80, 90]
    for kind in ("hosted", "skyrl"):
        service = start(kind)
        client = connect(service)
        path = trainer(client).save_weights_for_sampler("a").result(TIME).path
        other = connect(service).create_sampling_client(model_path=path).result(TIME)
        while_it_runs = scores(other, ids)
        for session in list(service.sessions.values())[:1]:
            service._gateway.sessions._end(session, "silent")
        if kind == "hosted":
            assert scores(other, ids) == while_it_runs
        else:
            with pytest.raises(ValueError, match=r"Model .* not loaded"):
                sample(other, ids)
