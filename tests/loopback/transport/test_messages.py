"""Requests and refusals, as all servers read and write them."""

import pytest

from distillkit_loopback.transport.messages import Request, refusal


@pytest.mark.parametrize(("body", "model"), [({"model": "m"}, "m"), ({}, ""), (None, ""), (["model"], "")])
def test_a_request_names_a_model_where_its_body_does(body: object, model: str) -> None:
    assert Request("POST", "/a", {}, {}, body, 0.0).model == model  # type: ignore[arg-type]


def test_a_refusal_has_a_message_and_a_code() -> None:
    response = refusal(400, "no", "BAD", {"x": "y"})
    assert (response.status, response.headers) == (400, {"x": "y"})
    assert response.body == {"error": {"message": "no", "code": "BAD"}}
