"""What a server says of itself before any client of the SDK exists, and what student `tinker` makes of that."""

import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from distillkit.errors import InputError
from distillkit.testing import make_context
from distillkit_builtin.remote.keys import Key
from distillkit_builtin.tinker import service
from distillkit_builtin.tinker.server_facts import ServerFacts, ask_server, read_key
from distillkit_builtin.tinker.student import TinkerStudent

ROOT, KEY = "http://tinker.test", "tml-0123456789"
SKYRL = {
    "paths": {"/api/v1/unload_model": {}},
    "components": {
        "schemas": {
            "AdamParams": {"properties": {"learning_rate": {}}},
            "SaveWeightsRequest": {"properties": {"path": {}}},
            "LoRAConfig": {"properties": {"rank": {}, "seed": {}}},
        }
    },
}
MODELS = [
    {"model_name": "org/model", "max_context_length": 64},
    {"model_name": "org/old", "trainable": False},
    {"model_name": "org/off", "sampleable": False},
]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINKER_API_KEY", KEY)
    monkeypatch.delenv("TINKER_BASE_URL", raising=False)


def asked(description: Any = None, **responses: httpx.Response) -> ServerFacts:
    """`responses` by the last part of the path."""

    def handle(request: httpx.Request) -> httpx.Response:
        assert request.headers["X-API-Key"] == KEY
        name = request.url.path.rpartition("/")[2].partition(".")[0]
        if name in responses:
            return responses[name]
        if name == "openapi":
            return httpx.Response(404) if description is None else httpx.Response(200, json=description)
        return httpx.Response(200, json={"healthz": {"status": "ok"}}.get(name, {"supported_models": MODELS}))

    return ask_server(ROOT, read_key("TINKER_API_KEY"), transport=httpx.MockTransport(handle))


def test_models_and_their_lengths_come_from_its_capabilities() -> None:
    facts = asked()
    assert facts.lengths == {"org/model": 64, "org/old": None, "org/off": None}
    assert (facts.schemas, facts.has_path("/unload_model")) == (None, None)
    assert not facts.ignores("AdamParams", "grad_clip_norm")
    facts.require_model("org/model", "student.model", trained=True)
    with pytest.raises(InputError, match=r"student\.model 'org/modal' is not at http://tinker\.test; did you mean"):
        facts.require_model("org/modal", "student.model")
    with pytest.raises(InputError, match="does not train this model"):
        facts.require_model("org/old", "student.model", trained=True)
    with pytest.raises(InputError, match="does not sample from this model"):
        facts.require_model("org/off", "model")


def test_what_it_reads_of_requests_comes_from_its_description() -> None:
    facts = asked(SKYRL)
    assert facts.ignores("AdamParams", "grad_clip_norm")
    assert not facts.ignores("AdamParams", "learning_rate")
    assert not facts.ignores("SomethingElse", "grad_clip_norm")
    assert (facts.has_path("/unload_model"), facts.has_path("/save_weights_external")) == (True, False)


@pytest.mark.parametrize(
    ("responses", "said"),
    [
        ({"healthz": httpx.Response(401, json={"detail": f"no {KEY}"})}, r"HTTP 401: no \*\*\*; is \$TINKER_API_KEY"),
        ({"healthz": httpx.Response(404)}, "is base_url the address of a Tinker server, without /api/v1"),
        ({"get_server_capabilities": httpx.Response(200, json={"models": []})}, "lists no models"),
        ({"get_server_capabilities": httpx.Response(200, json=[1])}, "lists no models"),
        ({"healthz": httpx.Response(503, text="later")}, "HTTP 503: later"),
    ],
)
def test_what_is_wrong_with_a_server_is_said(responses: dict[str, httpx.Response], said: str) -> None:
    with pytest.raises(InputError, match=said):
        asked(**responses)


def test_a_server_that_is_not_there_is_said_at_once_and_without_the_sdk(unused_port: int) -> None:
    before = set(sys.modules)
    with pytest.raises(InputError, match=rf"127\.0\.0\.1:{unused_port}/api/v1/healthz: connection refused; is the"):
        ask_server(f"http://127.0.0.1:{unused_port}", read_key("TINKER_API_KEY"))
    assert "tinker" not in set(sys.modules) - before


def test_https_to_a_server_that_speaks_http_is_explained() -> None:
    def handle(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)")

    with pytest.raises(InputError, match=r"speaks http: begin base_url with http://$"):
        ask_server("https://127.0.0.1:8091", read_key("TINKER_API_KEY"), transport=httpx.MockTransport(handle))


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_a_key_of_another_form_is_explained_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(read_key("TINKER_API_KEY"), Key)
    monkeypatch.setenv("TINKER_API_KEY", "sk-0123456789")
    with pytest.raises(InputError, match=r"begin with tml-.*TINKER_API_KEY=tml-local") as caught:
        read_key("TINKER_API_KEY")
    assert "0123456789" not in str(caught.value)
    monkeypatch.delenv("TINKER_API_KEY")
    with pytest.raises(InputError, match=r"TINKER_API_KEY is not set.*export TINKER_API_KEY=tml-local"):
        read_key("TINKER_API_KEY")


# -- the student's check


def check(monkeypatch: pytest.MonkeyPatch, description: Any = None, **options: Any) -> tuple[TinkerStudent, Any]:
    facts = asked(description)
    monkeypatch.setattr(service, "ask_server", lambda root, key: facts)
    student = TinkerStudent(**{"base_url": ROOT, "model": "org/model", **options})
    run = make_context()
    return student, student.check(run)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"grad_clip_norm": 1.0}, r"student\.grad_clip_norm is 1\.0, and .* reads no grad_clip_norm \(AdamParams\)"),
        ({"checkpoint_ttl": 7200}, "checkpoints would stay for ever; set it to null"),
        ({"train_attn": False}, "the LoRA would be where the server puts it"),
        ({"max_seq_len": 65}, "the server takes 64 tokens"),
        ({"train_attn": False, "train_mlp": False, "train_unembed": False}, "nothing would be trained"),
    ],
)
def test_what_the_server_would_drop_without_a_word_is_refused(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        check(monkeypatch, SKYRL, **options)


def test_what_cannot_be_known_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    student, report = check(monkeypatch, grad_clip_norm=1.0, checkpoint_ttl=7200)
    assert report.notes[0] == "student: org/model, LoRA of rank 32, at http://tinker.test"
    assert "grad_clip_norm" in report.notes[1]
    assert "checkpoint_ttl" in report.notes[2]
    assert student.context_length(make_context()) == 63


def test_which_layers_are_trained_is_said_to_be_the_servers_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    _, report = check(monkeypatch, SKYRL)
    assert report.notes[1:] == (
        "student: which layers have the LoRA is the server's choice: it does not read train_mlp, train_attn, "
        "train_unembed",
    )


def test_addresses_are_without_the_paths_that_the_sdk_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert TinkerStudent(model="m", base_url="http://a:1/x/api/v1/").root == "http://a:1/x"
    assert TinkerStudent(model="m").root == "https://tinker.thinkingmachines.dev/services/tinker-prod"
    monkeypatch.setenv("TINKER_BASE_URL", "http://b:2/")
    assert TinkerStudent(model="m").root == "http://b:2"
    assert TinkerStudent(model="Qwen/Qwen3-8B:peft:262144").tokenizer_source == "Qwen/Qwen3-8B"
    with pytest.raises(ValueError, match="user name or password"):
        TinkerStudent(model="m", base_url="http://me:word@a")
    with pytest.raises(ValueError, match="looks like a key itself") as caught:
        TinkerStudent(model="m", api_key_env="tml-0123456789")
    assert "0123456789" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://me:hunter2@a:1", r"TINKER_BASE_URL: holds a user name or password"),
        ("a:1", r"TINKER_BASE_URL: 'a:1' is no http or https address"),
        ("http://a:1?key=hunter2", r"TINKER_BASE_URL: http://a:1: takes nothing after \?"),
    ],
)
def test_an_address_in_the_environment_is_held_to_the_same(
    monkeypatch: pytest.MonkeyPatch, address: str, said: str
) -> None:
    monkeypatch.setenv("TINKER_BASE_URL", address)
    monkeypatch.setenv("TINKER_API_KEY", "tml-0123456789")
    with pytest.raises(InputError, match=said) as caught:
        TinkerStudent(model="m").check(make_context())
    assert "hunter2" not in str(caught.value)
    assert TinkerStudent(model="m", base_url="http://b:2").root == "http://b:2"


def test_it_samples_for_itself_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from distillkit_builtin.vllm.sampler import VllmSampler

    with pytest.raises(InputError, match="its weights stay there"):
        check(monkeypatch, sampler=VllmSampler(base_url="http://vllm:8000"))
