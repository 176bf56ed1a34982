"""Ten kinds of wrong plugin a role: each is named by `check_plugin`, or as soon as its class is there."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, ClassVar

import pytest

from distillkit import Failure, Rollout, Sampler, SampleRequest, Weights
from distillkit.errors import PluginError
from distillkit.roles.plugin import Plugin
from distillkit.testing import FakeScorer, FakeStudent, ListSink, check_plugin
from distillkit_builtin.evaluators.reverse_kl import ReverseKL
from distillkit_builtin.losses.importance_sampling import ImportanceSampling
from distillkit_builtin.prompts import MessagesPrompts
from distillkit_builtin.routers import FieldRouter
from engine.testing.numbers_dataset import Numbers


class Elsewhere(Sampler):
    """Samples from weights that nobody can make up."""

    name: ClassVar[str] = "elsewhere"

    async def sync(self, weights: Weights) -> None:
        """Nothing is pushed."""

    async def sample(self, requests: Sequence[SampleRequest]) -> AsyncIterator[Rollout | Failure]:
        for request in requests:
            yield Failure(request, "nowhere")


class Yields:
    """A value that an async method yields, in the place of all others."""

    def __init__(self, value: object) -> None:
        self.value = value


def wrong(cls: type[Plugin], method: str, value: object, *, is_async: bool = False) -> Plugin:
    """A plugin as `cls` makes them, but for one method that gives `value`."""

    def plain(self: object, *given: object, **named: object) -> object:
        return value

    async def late(self: object, *given: object, **named: object) -> object:
        return value

    async def stream(self: object, *given: object, **named: object) -> AsyncIterator[object]:
        yield value.value if isinstance(value, Yields) else value

    body = stream if isinstance(value, Yields) else late if is_async else plain
    made: type[Plugin] = type(cls)("Wrong", (cls,), {"__doc__": "Wrong.", "__module__": __name__, method: body})
    return made()


SAID: list[tuple[str, object]] = [("state", 7), ("state", {"a": {1}}), ("tensors", {"a": [1.0]}), ("fingerprint", None)]
"""Of every role."""
NOW: dict[type[Plugin], list[tuple[str, object]]] = {
    FieldRouter: [("route", None), ("route", "a"), ("route", ["a"]), ("route", {"a": 1.0}), ("route", 1), *SAID],
    MessagesPrompts: [("build", None), ("build", []), ("build", "text"), ("build", {"student": []}), *SAID],
    ImportanceSampling: [
        *[("batch", None), ("batch", []), ("options", None), ("options", {"scale": object()}), ("options", 2.0)],
        *[("options_without_effect", None), ("options_without_effect", "scale"), ("token_loss", 7), *SAID],
        *[("needs", None), ("needs", ["topk"]), ("needs", {"topk": "20"}), ("sampler_needs", 3), ("reads", "logprobs")],
        *[("reads", {"hidden"}), ("max_teachers", "many"), ("max_teachers", 0), ("references", None), ("inputs", None)],
        *[("inputs", [])],
    ],
    ReverseKL: [("notes", None), ("notes", "text"), ("notes", [1]), ("notes", 7), ("evaluate", {"a": 1.0}), *SAID],
    Numbers: [("read", None), ("read", [1]), ("read", iter([1])), ("place", None), ("notes", 7), ("notes", "a"), *SAID],
    ListSink: [("check", "fine"), ("check", 7), ("provenance", 7), ("provenance", {"a": object()}), *SAID],
    Elsewhere: [("sample", None), ("sample", []), ("sample", Yields("a")), ("metrics", None), ("metrics", 7), *SAID],
    FakeScorer: [
        *[("score", None), ("score", []), ("score", Yields("a")), ("score", Yields(None)), ("tokenizer", "gpt2")],
        *[("capabilities", None), ("capabilities", ["sampled"]), ("context_length", "4k"), ("metrics", []), *SAID],
    ],
    FakeStudent: [
        *[("sample", []), ("sample", Yields(None)), ("tokenizer", None), ("context_length", "4k"), ("metrics", {1: 1})],
        *[("loss_functions", None), ("loss_functions", ["a"]), ("loss_functions", {"a": ["b"]}), *SAID],
    ],
}
LATE: list[tuple[type[Plugin], str, object]] = [
    *[(ReverseKL, "evaluate", value) for value in (None, {"reverse_kl": 0.5}, 0.5, [])],
    *[(FakeStudent, "train", value) for value in (None, {"train/loss": 0.5}, 0.5)],
    *[(FakeStudent, "publish", value) for value in (None, 0, "adapter")],
    *[(FakeStudent, "export", value) for value in (None, "adapter")],
]
"""What an async method returns in the end."""
AT_ONCE: list[tuple[type[Plugin], str]] = [
    *[(FakeStudent, method) for method in ("open", "close", "train", "publish", "sync", "save", "load", "export")],
    *[(ReverseKL, method) for method in ("open", "close", "evaluate")],
]
"""Methods that are awaited."""
NEVER_AWAITED: list[tuple[type[Plugin], str]] = [
    *[(FieldRouter, "route"), (MessagesPrompts, "build"), (ImportanceSampling, "batch"), (ListSink, "emit")],
    *[(ReverseKL, "notes"), (Numbers, "read"), (FakeScorer, "score"), (FakeStudent, "sample"), (ListSink, "declare")],
]


@pytest.mark.parametrize(("cls", "method", "value"), [(cls, *each) for cls, some in NOW.items() for each in some])
def test_what_a_method_gives_wrongly_is_named(cls: type[Plugin], method: str, value: object) -> None:
    with pytest.raises(PluginError, match=f"Wrong.*{method}"):
        check_plugin(wrong(cls, method, value))


@pytest.mark.parametrize(("cls", "method", "value"), LATE)
def test_what_an_async_method_returns_wrongly_is_named(cls: type[Plugin], method: str, value: object) -> None:
    with pytest.raises(PluginError, match=rf"Wrong\): {method}\(\) returned {type(value).__name__}, not "):
        check_plugin(wrong(cls, method, value, is_async=True))


@pytest.mark.parametrize(("cls", "method"), AT_ONCE)
def test_what_is_not_async_is_named(cls: type[Plugin], method: str) -> None:
    with pytest.raises(PluginError, match=rf"Wrong\): {method}\(\) returned dict at once: write `async def {method}`"):
        check_plugin(wrong(cls, method, {}))


@pytest.mark.parametrize(("cls", "method"), NEVER_AWAITED)
def test_a_class_with_a_method_that_nobody_would_await_is_refused(cls: type[Plugin], method: str) -> None:
    with pytest.raises(
        PluginError, match=rf"Wrong: `async def {method}` is no \w+\.{method}, .* without await; "
    ) as caught:
        wrong(cls, method, None, is_async=True)
    assert ("`yield`" in str(caught.value)) == (method in {"score", "sample"})


def test_what_is_found_wrong_has_the_methods_line_and_promise() -> None:
    with pytest.raises(PluginError) as caught:
        check_plugin(wrong(ReverseKL, "evaluate", {"a": 1.0}, is_async=True))
    assert "test_wrong_plugins.py:" in str(caught.value)
    assert "Evaluator.evaluate: Metrics of the policy version" in str(caught.value)


def test_what_its_own_code_raises_comes_through_with_its_line() -> None:
    class Missing(ListSink):
        """Looks for what is not there."""

        def emit(self, event: Any) -> None:
            raise KeyError("gap")

    with pytest.raises(KeyError) as caught:
        check_plugin(Missing())
    assert "test_wrong_plugins.py:" in caught.value.__notes__[0]
