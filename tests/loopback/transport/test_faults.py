"""The queue of faults, which all servers share."""

import re
import threading
from typing import Any

import pytest

from distillkit_loopback.transport.faults import Delay, Faults, Hangup, Status
from distillkit_loopback.transport.messages import Request


def request(path: str = "/any", method: str = "POST", body: Any = None) -> Request:
    return Request(method, path, {}, {}, body, 0.0)


def test_a_fault_lets_some_through_and_is_for_so_many() -> None:
    faults: Faults[str] = Faults()
    faults.add("late", times=2, after=1, where="/a$")
    faults.add("always", times=None)
    assert [faults.take(request(path)) for path in ("/b", "/a", "/a", "/b", "/a", "/a")] == [
        "always",
        "always",
        "late",
        "always",
        "late",
        "always",
    ]
    assert faults.pending == 1
    faults.clear()
    assert faults.take(request("/a")) is None
    assert faults.pending == 0


def test_a_fault_shows_once_unless_it_has_times() -> None:
    faults: Faults[str] = Faults()
    faults.add("once")
    assert [faults.take(request()) for _ in range(2)] == ["once", None]


@pytest.mark.parametrize(
    ("where", "matching"),
    [
        (None, {"GET /a", "POST /a", "POST /a/b"}),
        ("/a$", {"GET /a", "POST /a"}),
        ("POST .*/a", {"POST /a", "POST /a/b"}),
        ("^GET ", {"GET /a"}),
        (lambda request: request.path.endswith("b"), {"POST /a/b"}),
    ],
)
def test_where_is_a_pattern_of_method_and_path_or_a_function_of_the_request(where: Any, matching: set[str]) -> None:
    faults: Faults[str] = Faults()
    faults.add("fault", times=None, where=where)
    requests = [request(path, method) for method, path in (("GET", "/a"), ("POST", "/a"), ("POST", "/a/b"))]
    assert {f"{each.method} {each.path}" for each in requests if faults.take(each)} == matching


def test_a_function_sees_the_body() -> None:
    faults: Faults[Hangup] = Faults()
    faults.add(Hangup(), after=1, where=lambda request: request.model == "a")
    assert [faults.take(request(body={"model": name})) for name in "abaab"] == [None, None, Hangup(), None, None]


def test_a_pattern_that_is_none_is_refused_when_it_is_added() -> None:
    with pytest.raises(re.error, match="unterminated"):
        Faults[str]().add("fault", where="[")


def test_threads_share_the_queue() -> None:
    faults: Faults[str] = Faults()
    faults.add("fault", times=100)
    taken: list[str | None] = []
    threads = [
        threading.Thread(target=lambda: taken.extend(faults.take(request()) for _ in range(50))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (taken.count("fault"), taken.count(None)) == (100, 100)


def test_a_status_may_say_when_to_come_again() -> None:
    assert Status(503).headers == {}
    assert Status(429, retry_after=1.5).headers == {"retry-after": "1.5"}
    assert Delay(2) == Delay(2.0)
