"""Adapters and whole weights that are loaded into a running server."""

from pathlib import Path

import httpx
import pytest

from loopback.openai.wire import (
    COMPLETIONS,
    SCORING,
    Serve,
    complete,
    post,
    refused,
    write_adapter,
)


def test_an_adapter_is_served_under_its_own_name(serve: Serve, tmp_path: Path) -> None:
    server, path = serve(name="base"), write_adapter(tmp_path / "one")
    loaded = post(server, "/v1/load_lora_adapter", lora_name="one", lora_path=path)
    assert (loaded.status_code, loaded.text) == (200, "Success: LoRA adapter 'one' added successfully.")
    card = httpx.get(server.url + "/v1/models").json()["data"][1]
    assert card.items() >= {"id": "one", "parent": "base", "root": path}.items()
    base = complete(server, model="base", **SCORING)
    assert complete(server, model="one", **SCORING) != base
    assert post(server, "/v1/unload_lora_adapter", lora_name="one").status_code == 200
    assert refused(post(server, COMPLETIONS, model="one", **SCORING))[0] == 404
    assert complete(server, model="base", **SCORING) == base


def test_adapters_that_cannot_be_loaded_are_refused(serve: Serve, tmp_path: Path) -> None:
    server, path = serve(name="base"), write_adapter(tmp_path / "one")
    load = "/v1/load_lora_adapter"
    missing = refused(post(server, load, lora_name="no", lora_path="/nonexistent"))
    assert missing == (404, "NotFoundError", "Loading lora no failed: No adapter found for /nonexistent")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "adapter_config.json").write_text("{}")
    assert refused(post(server, load, lora_name="half", lora_path=str(tmp_path / "half")))[0] == 500
    assert refused(post(server, load, lora_name="base", lora_path=path))[0] == 400
    assert refused(post(server, load))[0] == 400
    assert post(server, load, lora_name="one", lora_path=path).status_code == 200
    assert "already been loaded" in refused(post(server, load, lora_name="one", lora_path=path))[2]
    assert post(server, load, lora_name="one", lora_path=path, load_inplace=True).status_code == 200
    assert refused(post(server, "/v1/unload_lora_adapter", lora_name="no"))[0] == 404
    assert refused(post(server, "/v1/unload_lora_adapter"))[0] == 400


def test_a_server_that_was_killed_comes_back_without_its_adapters(serve: Serve, tmp_path: Path) -> None:
    server, path = serve(), write_adapter(tmp_path / "one")
    post(server, "/v1/load_lora_adapter", lora_name="one", lora_path=path)
    before = complete(server, **SCORING)
    url = server.url
    with httpx.Client() as client:
        client.get(url + "/health")
        server.stop()
        with pytest.raises(httpx.TransportError):
            client.get(url + "/health")
        server.start()
        assert server.url == url
        assert client.get(url + "/health").status_code == 200
    assert not server.catalogue.adapters
    assert complete(server, **SCORING) == before


def test_the_base_model_can_be_given_other_weights_until_the_server_stops(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    first = complete(server, **SCORING)
    assert httpx.get(server.url + "/weight_info").json() == {"weight_version": "default"}
    reload = {"method": "reload_weights", "kwargs": {"weights_path": str(tmp_path)}}
    assert post(server, "/collective_rpc", **reload).status_code == 200
    assert post(server, "/reset_prefix_cache").status_code == 200
    assert post(server, "/update_weight_version", new_version="one").status_code == 200
    assert httpx.get(server.url + "/weight_info").json() == {"weight_version": "one"}
    assert complete(server, **SCORING) != first
    server.stop()
    server.start()
    assert httpx.get(server.url + "/weight_info").json() == {"weight_version": "default"}
    assert complete(server, **SCORING) == first


def test_weights_that_are_not_there_leave_the_model_as_it_was(serve: Serve) -> None:
    server = serve()
    first = complete(server, **SCORING)
    reload = {"method": "reload_weights", "kwargs": {"weights_path": "/nonexistent"}}
    assert refused(post(server, "/collective_rpc", **reload))[:2] == (500, "InternalServerError")
    assert refused(post(server, "/collective_rpc", method="sleep"))[0] == 500
    assert complete(server, **SCORING) == first
