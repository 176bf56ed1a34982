"""What the loopback services share: orders for faults, and that neither service is built on the other."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import distillkit_loopback
from distillkit_loopback.transport.faults import Delay, Orders, Status
from distillkit_loopback.transport.messages import Request, refusal

LOOPBACK = Path(distillkit_loopback.__file__).parent


def asked(path: str, body: object = None) -> Request:
    return Request("POST", path, {}, {}, body, 0.0)  # type: ignore[arg-type]


def test_an_order_lets_some_through_and_is_for_so_many() -> None:
    orders: Orders[str] = Orders()
    orders.order("late", lambda request: request.path == "/a", times=2, after=1)
    orders.order("always", lambda request: True, times=None, after=0)
    assert [orders.take(asked(path)) for path in ("/b", "/a", "/a", "/b", "/a", "/a")] == [
        "always",
        "always",
        "late",
        "always",
        "late",
        "always",
    ]
    assert orders.waiting == 1
    orders.clear()
    assert orders.take(asked("/a")) is None
    assert orders.waiting == 0


def test_a_status_may_say_when_to_come_again() -> None:
    assert Status(503).headers == {}
    assert Status(429, retry_after=1.5).headers == {"retry-after": "1.5"}
    assert Delay(2) == Delay(2.0)


@pytest.mark.parametrize(("body", "model"), [({"model": "m"}, "m"), ({}, ""), (None, ""), (["model"], "")])
def test_a_request_names_a_model_where_its_body_does(body: object, model: str) -> None:
    assert asked("/a", body).model == model


def test_a_refusal_has_a_message_and_a_code() -> None:
    answer = refusal(400, "no", "BAD", {"x": "y"})
    assert (answer.status, answer.headers) == (400, {"x": "y"})
    assert answer.body == {"error": {"message": "no", "code": "BAD"}}


def test_no_service_is_built_on_another_one() -> None:
    def imports(folder: str, other: str) -> Iterator[Path]:
        for path in (LOOPBACK / folder).rglob("*.py"):
            if f"distillkit_loopback.{other}" in path.read_text(encoding="utf-8"):
                yield path

    for folder, other in (("openai", "fireworks"), ("fireworks", "openai"), ("transport", "fireworks")):
        assert not [*imports(folder, f"{other}.")]
